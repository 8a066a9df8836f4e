package chaos_test

import (
	"context"
	"fmt"
	"testing"

	"ferry/internal/lab"
)

// Scripts for disks. A full file system has room for names, and for nothing in the files.
const (
	fillRun    = "mount -o remount,size=$(du -sk /run | cut -f1)k /run; dd if=/dev/zero of=/run/filler bs=4k 2>/dev/null; true"
	emptyRun   = "rm -f /run/filler; mount -o remount,size=100m /run"
	fillStore  = "dd if=/dev/zero of=/nix/filler bs=64k 2>/dev/null; dd if=/dev/zero of=/nix/filler2 bs=1k 2>/dev/null; true"
	emptyStore = "rm -f /nix/filler*"

	// A folder that is mounted once more, read-only: as if its disk were. It becomes so elsewhere, where nobody has a file of it open for
	// writing: where somebody has, it would be refused, and be left mounted.
	protects = `mount --bind %[1]s /mnt && mount --make-private /mnt && mount -o remount,bind,ro /mnt && mount --bind /mnt %[1]s
status=$?
umount /mnt
exit $status`
	frees = "while mountpoint -q %[1]s && [ \"$(findmnt -n -o OPTIONS --mountpoint %[1]s | tail -n 1 | cut -d , -f 1)\" = ro ]; do umount -l %[1]s || exit; done"

	// daemonAgain lets what had to fail without a store to write to be started again, as a person would.
	daemonAgain = "! systemctl is-failed --quiet nix-daemon.socket || { systemctl reset-failed nix-daemon.socket nix-daemon.service; systemctl start nix-daemon.socket; }"
)

// readOnly are two scripts: a folder becomes read-only, and can be written again.
func readOnly(folder string) (begin, end string) {
	return fmt.Sprintf(protects, folder), fmt.Sprintf(frees, folder)
}

func diskFaults() []fault {
	all := []fault{
		{name: "/run full for a while", do: forAWhile(fillRun, emptyRun)},
		{name: "/run full until all is over", do: untilTheEnd(fillRun, emptyRun)},
		{name: "store full for a while", do: forAWhile(fillStore, emptyStore)},
		{name: "store full until all is over", do: untilTheEnd(fillStore, emptyStore)},
	}
	for _, folder := range []string{"/boot", "/var"} {
		all = append(all,
			fault{name: folder + " full for a while", do: fills(folder, false), mounts: true, moves: true},
			fault{name: folder + " full until all is over", do: fills(folder, true), mounts: true, moves: true})
	}
	for _, folder := range []string{"/boot", "/nix", "/var"} {
		begin, end := readOnly(folder)
		if folder == "/nix" {
			end += "; " + daemonAgain
		}
		all = append(all,
			fault{name: folder + " read-only for a while", do: forAWhile(begin, end), mounts: true},
			fault{name: folder + " read-only until all is over", do: untilTheEnd(begin, end), mounts: true})
	}
	begin, end := readOnly("/etc")
	return append(all, fault{name: "/etc read-only for a while", do: forAWhile(begin, end), mounts: true})
}

// fills leaves no room in a folder, for a while or until all is over.
func fills(folder string, tillTheEnd bool) func(context.Context, *round, strike) error {
	return func(ctx context.Context, r *round, s strike) error {
		free, err := r.Target.FillDisk(ctx, folder)
		if err != nil {
			return err
		}
		if tillTheEnd {
			r.owe(free)
			return nil
		}
		pause(ctx, s.lasts)
		return free(ctx)
	}
}

// TestAFolderThatWasProtectedIsAsItWas has somebody write to the folder all the while: what a fault leaves mounted would be another
// round's.
func TestAFolderThatWasProtectedIsAsItWas(t *testing.T) {
	t.Parallel()
	target := lab.StartTarget(t, lab.Options{NoSystemd: true})
	sh := func(script string) string {
		out, err := target.Output(t.Context(), "sh", "-c", script)
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		return string(out)
	}
	const mounts = "findmnt --raw --noheadings --output TARGET,SOURCE,OPTIONS | sort"
	before := sh(mounts)
	for _, folder := range []string{"/boot", "/var"} {
		sh(fmt.Sprintf("(while [ ! -e /tmp/over ]; do echo more >%[1]s/busy; done; rm -f %[1]s/busy) >/dev/null 2>&1 &", folder))
		begin, end := readOnly(folder)
		for range 10 {
			sh(begin)
			if got := sh("touch " + folder + "/file 2>&1; rm -f " + folder + "/file; true"); got == "" {
				t.Errorf("%s can be written to", folder)
			}
			sh(end)
		}
		sh("touch /tmp/over; while ls " + folder + "/busy 2>/dev/null; do sleep 0.1; done; rm /tmp/over")
		if after := sh(mounts); after != before {
			t.Errorf("after %s there is mounted\n%s, and before\n%s", folder, after, before)
		}
	}
}
