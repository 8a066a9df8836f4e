package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// output runs a command in the machine, which must succeed.
func output(t *testing.T, target *Target, argv ...string) string {
	t.Helper()
	out, err := target.Output(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestAPowerCutKeepsTheDiskAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]Options{"systemd": {}, "no systemd": {NoSystemd: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := StartTarget(t, opts)
			output(t, target, "sh", "-c", "echo disk >/var/file; mount -t tmpfs none /mnt; echo memory >/mnt/file")
			if err := target.Kill(); err != nil {
				t.Fatal(err)
			}
			if _, err := target.Output(t.Context(), "true"); err == nil {
				t.Error("a command ran on a machine that is off")
			}
			if target.greets(t.Context()) {
				t.Error("a machine that is off answers")
			}
			if err := target.PowerOn(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := output(t, target, "sh", "-c", "cat /var/file; ls /mnt"); got != "disk" {
				t.Errorf("after the boot there is %q, want only the file on disk", got)
			}
		})
	}
}

// TestAPowerCutLosesWhatWasNotSynced locks that a machine with disks of its own has after a power cut what it has synced, and
// nothing else, on each of them, as often as that happens.
func TestAPowerCutLosesWhatWasNotSynced(t *testing.T) {
	t.Parallel()
	target := StartTarget(t, Options{Disk: true, StoreLimit: 40 << 20})
	const write = `for folder in /var /boot /nix; do
	echo one >$folder/synced
	sync $folder/synced
	echo two >$folder/lost
	echo two >$folder/replaced.new
	mv $folder/replaced.new $folder/replaced
done`
	for range 2 {
		output(t, target, "sh", "-c", "for folder in /var /boot /nix; do echo one >$folder/replaced; done; sync")
		output(t, target, "sh", "-c", write)
		if err := target.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := target.PowerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, folder := range []string{"/var/", "/boot/", "/nix/"} {
			if got := output(t, target, "sh", "-c", "cd "+folder+"; cat synced replaced; ls lost 2>/dev/null || echo gone"); got != "one\none\ngone" {
				t.Errorf("after the power cut %s has %q", folder, got)
			}
		}
	}
	output(t, target, "sh", "-c", "echo kept >/var/kept; echo kept >/boot/kept")
	if err := errors.Join(target.Sync(), target.Kill(), target.PowerOn(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := output(t, target, "cat", "/var/kept", "/boot/kept"); got != "kept\nkept" {
		t.Errorf("what was synced from outside is %q", got)
	}
}

func TestAMachineThatRebootsComesBack(t *testing.T) {
	t.Parallel()
	target := StartTarget(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	id, boots := output(t, target, "cat", "/proc/sys/kernel/random/boot_id"), target.Boots()
	output(t, target, "sh", "-c", "echo was here >/run/before")
	output(t, target, "systemctl", "reboot")
	if err := target.WaitReboot(ctx, boots); err != nil {
		t.Fatal(err)
	}
	// The kernel, and so its boot_id, is shared with the host; /run is the machine's own.
	if _, err := target.Output(ctx, "cat", "/run/before"); err == nil {
		t.Errorf("/run is as it was before the reboot (boot %s)", id)
	}
}

func TestAMachineWithoutItsCableIsSilent(t *testing.T) {
	t.Parallel()
	target := StartTarget(t, Options{NoSystemd: true})
	conn, err := net.Dial("tcp", netip.AddrPortFrom(target.Addr(), 22).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	greeting := make([]byte, 256)
	if _, err := conn.Read(greeting); err != nil {
		t.Fatal(err)
	}
	if err := target.LinkDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	output(t, target, "ip", "link", "set", "host0", "up")
	if target.greets(t.Context()) {
		t.Error("a new connection was answered")
	}
	if _, err := conn.Write([]byte("SSH-2.0-test\r\n")); err != nil {
		t.Errorf("an open connection broke instead of falling silent: %v", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(greeting); !os.IsTimeout(err) {
		t.Errorf("an open connection read %d bytes, %v", n, err)
	}
	if err := target.LinkUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(greeting); err != nil {
		t.Errorf("the open connection did not recover: %v", err)
	}
	if !target.greets(t.Context()) {
		t.Error("a new connection was not answered afterwards")
	}
}

func TestBandwidthLimitsBothDirections(t *testing.T) {
	t.Parallel()
	target, b := StartTarget(t, Options{NoSystemd: true}), NewBuilder(t, BuilderOptions{})
	if err := b.Know(target); err != nil {
		t.Fatal(err)
	}
	const size = 512 << 10
	up := func() *exec.Cmd {
		cmd := b.Command(t.Context(), "ssh", "root@"+target.Name(), "cat >/dev/null")
		cmd.Stdin = bytes.NewReader(make([]byte, size))
		return cmd
	}
	down := func() *exec.Cmd {
		return b.Command(t.Context(), "ssh", "root@"+target.Name(), "head", "-c", strconv.Itoa(size), "/dev/zero")
	}
	// What passes at 2 Mibit/s takes two seconds at least, however busy this machine is; without a limit it may not.
	const limit, least = 4 * size, 1800 * time.Millisecond
	for name, test := range map[string]struct {
		bits int64
		want func(time.Duration) bool
	}{
		"limited":   {limit, func(took time.Duration) bool { return took >= least }},
		"unlimited": {0, func(took time.Duration) bool { return took < least }},
	} {
		if err := target.Bandwidth(t.Context(), test.bits); err != nil {
			t.Fatal(err)
		}
		for direction, pass := range map[string]func() *exec.Cmd{"up": up, "down": down} {
			start := time.Now()
			if _, err := pass().Output(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); !test.want(took) {
				t.Errorf("%s, %s: %v for %d bytes", name, direction, took, size)
			}
		}
	}
}

func TestAStoreWithALimitFillsUp(t *testing.T) {
	t.Parallel()
	target := StartTarget(t, Options{StoreLimit: 20 << 20})
	output(t, target, "nix-store", "--add", "/etc/hostname")
	_, err := target.Output(t.Context(), "dd", "if=/dev/zero", "of=/nix/store/big", "bs=1M", "count=30")
	if err == nil || !strings.Contains(err.Error(), "No space left on device") {
		t.Errorf("30 MB on a store of 20 MB: %v", err)
	}
	output(t, target, "dd", "if=/dev/zero", "of=/var/big", "bs=1M", "count=30")
}

func TestAFullDiskHasRoomWhenItIsFreed(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]Options{
		"systemd": {StoreLimit: 20 << 20}, "trixie": {StoreLimit: 20 << 20, Suite: "trixie"}, "no systemd": {StoreLimit: 20 << 20, NoSystemd: true},
		"disks": {StoreLimit: 20 << 20, Disk: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := StartTarget(t, opts)
			folders := []string{"/nix/store", "/boot", "/var"}
			if !opts.NoSystemd {
				folders = append(folders, "/run")
			}
			for _, folder := range folders {
				const write = `echo before >$0/small; head -c 3000000 /dev/zero >$0/large; stat -c %s $0/large; rm $0/large`
				was := output(t, target, "ls", "-A", folder)
				free, err := target.FillDisk(t.Context(), folder)
				if err != nil {
					t.Fatal(err)
				}
				if got := output(t, target, "sh", "-c", write+" 2>/dev/null", folder); got == "3000000" || t.Failed() {
					t.Errorf("%s: on a full disk there is room for %s bytes", folder, got)
				}
				if now := output(t, target, "ls", "-A", "-I", "small", folder); now != was {
					t.Errorf("%s: there is now\n%s, and was\n%s", folder, now, was)
				}
				output(t, target, "mv", folder+"/small", folder+"/kept")
				if err := free(t.Context()); err != nil {
					t.Fatal(err)
				}
				if now := output(t, target, "ls", "-A", "-I", "kept", folder); now != was {
					t.Errorf("%s: afterwards there is\n%s, and was\n%s", folder, now, was)
				}
				if got := output(t, target, "sh", "-c", "ls $0/kept; "+write, folder); got != folder+"/kept\n3000000" {
					t.Errorf("%s: afterwards: %s", folder, got)
				}
			}
			if got := output(t, target, "findmnt", "--noheadings", "--list", "--output", "TARGET,SOURCE"); strings.Contains(got, "lab-full") || strings.Contains(got, "/mnt") {
				t.Errorf("still mounted: %s", got)
			}
		})
	}
}

func TestAnAarch64MachineRunsAarch64Programs(t *testing.T) {
	t.Parallel()
	program := aarch64Program()
	for name, opts := range map[string]Options{
		"systemd":    {System: "aarch64-linux"},
		"no systemd": {System: "aarch64-linux", NoSystemd: true, Suite: "trixie"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, b := StartTarget(t, opts), NewBuilder(t, BuilderOptions{Aarch64: true})
			if err := target.WriteFile(t.Context(), "/root/answer", program, 0o755); err != nil {
				t.Fatal(err)
			}
			out, err := target.Command(t.Context(), "/root/answer").CombinedOutput()
			if string(out) != "42\n" {
				t.Errorf("printed %q (%v), want 42", out, err)
			}
			if err := b.Know(target); err != nil {
				t.Fatal(err)
			}
			uname, err := b.Output(t.Context(), "ssh", "alice@"+target.Name(), "uname -m; nix-instantiate --eval -E builtins.currentSystem")
			if string(uname) != "aarch64\n\"aarch64-linux\"\n" {
				t.Errorf("it says it is %q (%v)", uname, err)
			}
			if err := b.WriteFile("/root/answer", program, 0o755); err != nil {
				t.Fatal(err)
			}
			built, err := b.Output(t.Context(), "nix-build", "--no-out-link", "-E",
				`derivation { name = "x"; system = "aarch64-linux"; builder = "/bin/sh"; args = ["-c" "/root/answer >$out"]; }`)
			if err != nil {
				t.Error(err)
			} else if text, _ := os.ReadFile(b.Path(strings.TrimSpace(string(built)))); string(text) != "42\n" {
				t.Errorf("a build for aarch64 gave %q", text)
			}
		})
	}
}

func TestATargetRefusesToBuild(t *testing.T) {
	t.Parallel()
	target := StartTarget(t, Options{NoSystemd: true})
	_, err := target.Output(t.Context(), "nix-build", "--no-out-link", "-E",
		`derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh"; args = ["-c" "echo >$out"]; }`)
	if err == nil {
		t.Error("it built")
	}
}

func TestWhoMayReachTheNixDaemon(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		opts Options
		may  bool
	}{
		"as on NixOS":              {Options{}, true},
		"as on NixOS, trixie":      {Options{Suite: "trixie"}, true},
		"as on NixOS, no systemd":  {Options{NoSystemd: true}, true},
		"as on Debian":             {Options{DebianDaemon: true}, false},
		"as on Debian, no systemd": {Options{DebianDaemon: true, NoSystemd: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := StartTarget(t, test.opts)
			_, err := target.Output(t.Context(), "runuser", "-u", "alice", "--", "nix-store", "--add", "/etc/hostname")
			if (err == nil) != test.may {
				t.Errorf("alice adds a path: %v, want success: %v", err, test.may)
			}
		})
	}
}

// echo starts a server that answers with what it is told.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return server.Addr().(*net.TCPAddr).AddrPort()
}

func TestARelayFreezesAndCutsAtAByte(t *testing.T) {
	t.Parallel()
	relay := StartRelay(t, echo(t), RelayOptions{})
	conn, err := net.Dial("tcp", relay.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func(send, want int) {
		t.Helper()
		if _, err := conn.Write(make([]byte, send)); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, _ := io.ReadFull(conn, make([]byte, want+1)); n != want {
			t.Errorf("%d bytes came back, want %d", n, want)
		}
	}
	relay.FreezeIn(15)
	ask(10, 10)
	ask(10, 0)
	if up := relay.Traffic().Up; up != 15 {
		t.Errorf("%d bytes passed before the freeze, want 15", up)
	}
	relay.Thaw()
	ask(0, 10)
	relay.CutIn(5)
	if _, err := conn.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	// What comes back may be lost with the connection.
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection was not cut: %v", err)
	}
	if up := relay.Traffic().Up; up != 25 {
		t.Errorf("%d bytes passed before the cut, want 25", up)
	}
}

func TestARelayDelaysCountsFreezesAndCuts(t *testing.T) {
	t.Parallel()
	const delay = 60 * time.Millisecond
	relay := StartRelay(t, echo(t), RelayOptions{Delay: delay, CutAfter: 100})
	conn, err := net.Dial("tcp", relay.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func(n int) (int, time.Duration) {
		start := time.Now()
		if _, err := conn.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadFull(conn, make([]byte, n))
		return got, time.Since(start)
	}
	for range 2 {
		if got, took := ask(10); got != 10 || took < delay {
			t.Errorf("%d bytes came back after %v, want 10 after %v", got, took, delay)
		}
	}
	relay.Freeze()
	if got, _ := ask(10); got != 0 {
		t.Errorf("%d bytes passed a frozen relay", got)
	}
	relay.Thaw()
	if got, _ := ask(0); got != 0 {
		t.Errorf("read %d", got)
	}
	if n, err := io.ReadFull(conn, make([]byte, 10)); n != 10 {
		t.Errorf("%d of 10 frozen bytes came after the thaw: %v", n, err)
	}
	if want := (Traffic{Connections: 1, Up: 30, Down: 30, Turns: 3}); relay.Traffic() != want {
		t.Errorf("counted %+v, want %+v", relay.Traffic(), want)
	}
	if got, _ := ask(30); got != 10 {
		t.Errorf("%d bytes came back, want 10: 100 in all may pass", got)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection was not cut: %d, %v", n, err)
	}
}
