package server

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// traced makes what reaches the disk one of the machine's calls.
func (m *fakeMachine) traced() *fakeMachine {
	m.T.Helper()
	m.Disk.Trace = func(step, path string) {
		m.Write("/calls", m.Read("/calls")+step+" "+strings.TrimPrefix(path, m.Dir)+"\n")
	}
	return m
}

// everything is what toDisk does on a machine that has one boot partition.
var everything = []string{"sync all /nix/store", "sync all /nix/var/nix", "sync all /etc", "sync all /var/lib/ferry", "sync all /boot"}

// stored is what storeToDisk does.
var stored = everything[:2]

// inOrder makes sure that the calls are these.
func (m *fakeMachine) inOrder(want ...[]string) {
	m.T.Helper()
	if got, all := m.calls(), slices.Concat(want...); !slices.Equal(got, all) {
		m.T.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(all, "\n"))
	}
}

// TestACommitBringsEachStepToTheDisk locks the order: what a link points at is on the disk before the link, the link before
// what depends on it, and all of it before the commit is over. Whatever a power cut leaves of it boots.
func TestACommitBringsEachStepToTheDisk(t *testing.T) {
	m := newMachine(t).traced()
	m.Write("/boot/.keep", "")
	m.Write(agent.Folder+"/agent", "")
	m.Write(machine.GCRoots+"/.keep", "")
	if status, log := m.work(commitJob); status.Status != 0 || status.Error != "" {
		t.Fatalf("%+v\n%s", status, log)
	}
	m.inOrder(stored, []string{"link " + machine.GCRoots + "/pending", "nix-env --set 1-new", "sync " + profiles, "1-new boot"}, everything, []string{
		"link " + machine.GCRoots + "/previous", "link " + machine.GCRoots + "/previous-system", "link " + currentRoot, "link " + currentConfiguration,
	})
}

// TestACommitThatIsUndoneBringsThatToTheDisk locks the same for the way back.
func TestACommitThatIsUndoneBringsThatToTheDisk(t *testing.T) {
	m := newMachine(t).traced()
	m.Write("/control/status-boot", "1\n")
	m.Write("/control/old-is-well", "")
	if status, _ := m.work(commitJob); status.Status != 1 || status.Error != "" {
		t.Fatalf("%+v", status)
	}
	m.inOrder(stored, []string{
		"mkdir " + machine.GCRoots, "link " + machine.GCRoots + "/pending",
		"nix-env --set 1-new", "sync " + profiles, "1-new boot", "nix-env --switch-generation 1", "sync " + profiles, "0-old boot",
	}, everything[:3])
}

// TestATrialIsOnTheDiskBeforeTheBootLoaderIsTold locks that a power cut finds either the old default alone, or a trial that
// goes back by itself; and that what is taken back is on the disk before it is forgotten.
func TestATrialIsOnTheDiskBeforeTheBootLoaderIsTold(t *testing.T) {
	m := newTriable(t).traced()
	if status, log := m.work(bootOnceJob); status.Status != 0 {
		t.Fatalf("%+v\n%s", status, log)
	}
	calls := m.calls()
	// They are written in any order.
	for i, call := range calls {
		for _, name := range []string{rebootTimer, rebootTimerUnit} {
			if call == "write "+controlFolder+"/"+name {
				calls[i] = "write a unit"
			}
		}
		for _, name := range []string{"reboot-old", "reboot-new"} {
			if call == "link "+machine.GCRoots+"/"+name {
				calls[i] = "link a root"
			}
		}
	}
	m.Write("/calls", strings.Join(calls, "\n"))
	const note = "write " + trialFolder + "/" + trialFile
	m.inOrder([]string{
		"mkdir " + trialFolder, "mkdir " + controlFolder + "/" + rebootTimerWants, "write a unit", "write a unit",
		"link " + controlFolder + "/" + rebootTimerWants + "/" + rebootTimer,
		note, "mkdir " + machine.GCRoots, "link a root", "link a root", "sync " + profiles, "0-old boot",
	}, everything, []string{note, "bootctl set-oneshot nixos-generation-2.conf"}, everything, []string{"systemctl reboot"})

	m.Write("/calls", "")
	if status, log := m.work(bootForgetJob); status.Status != 0 {
		t.Fatalf("%+v\n%s", status, log)
	}
	forgotten := []string{"sync " + machine.GCRoots, "sync " + agent.Folder}
	m.inOrder([]string{"bootctl set-oneshot ", "sync " + profiles, "0-old boot"}, everything, everything, []string{
		"systemctl stop " + rebootTimer, "systemctl daemon-reload",
	}, forgotten)
}

// TestEachBootPartitionIsBroughtToTheDisk has the several that GRUB may be on, and what is mounted below them; no other file system
// is waited for.
func TestEachBootPartitionIsBroughtToTheDisk(t *testing.T) {
	m := newMachine(t).traced()
	m.Write("/proc/self/mountinfo", `28 1 259:3 / /boot rw,relatime shared:1 - vfat /dev/sda1 rw
29 1 259:4 / /boot2 rw,relatime shared:2 - ext4 /dev/sdb1 rw
30 1 259:5 / /boot2/efi rw,relatime shared:3 - vfat /dev/sdb2 rw
31 1 259:6 / /efi2 rw,relatime shared:4 - xfs /dev/sdc1 rw
32 1 0:40 / /mnt/far rw,relatime shared:5 - nfs4 far:/ rw
`)
	for _, folder := range []string{"/boot", "/boot2/efi", "/efi2", "/mnt/far", agent.Folder} {
		m.Write(folder+"/.keep", "")
	}
	if err := toDisk(t.Context(), m.Root); err != nil {
		t.Fatal(err)
	}
	got := m.calls()
	slices.Sort(got)
	want := slices.Concat(everything, []string{"sync all /boot2", "sync all /boot2/efi", "sync all /efi2"})
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAnEntryOfTheJournalIsOnTheDisk locks that no power cut after a deployment takes its entry away.
func TestAnEntryOfTheJournalIsOnTheDisk(t *testing.T) {
	m := newMachine(t).traced()
	mustAppend(t, m.Root, entryOf("one"))
	mustAppend(t, m.Root, entryOf("two"))
	m.inOrder([]string{"sync " + journalFile, "sync " + journalFile})
}

// TestATrialWithoutSystemdIsOnTheDisk locks that its folder is, too, where no way back is made before.
func TestATrialWithoutSystemdIsOnTheDisk(t *testing.T) {
	m := newTriable(t).traced()
	if err := os.RemoveAll(m.Path(machine.SystemdRuns)); err != nil {
		t.Fatal(err)
	}
	m.Program("/bin/reboot", "#!/bin/sh\necho reboot >>\"$FERRY_TEST_ROOT/calls\"\n")
	if status, log := m.work(bootOnceJob); status.Status != 0 {
		t.Fatalf("%+v\n%s", status, log)
	}
	if calls := m.calls(); len(calls) < 2 || calls[0] != "mkdir "+trialFolder || calls[1] != "write "+trialFolder+"/"+trialFile {
		t.Errorf("it begins with %q", calls)
	}
}

// TestWhatCannotBeBroughtToTheDiskIsNotCommitted locks that nothing moves then.
func TestWhatCannotBeBroughtToTheDiskIsNotCommitted(t *testing.T) {
	m := newMachine(t)
	// Nothing there can be opened, nor made.
	m.again("nix", "/nix/var/nix/nix")
	if err := os.Rename(m.Path("/nix/var/nix/nix"), m.Path("/nix/var/loop")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(m.Path("/nix/var/nix")), os.Rename(m.Path("/nix/var/loop"), m.Path("/nix/var/nix"))); err != nil {
		t.Fatal(err)
	}
	status, _ := m.work(commitJob)
	if status.Status != -1 || !strings.Contains(status.Error, "bring what was written to ") {
		t.Errorf("%+v", status)
	}
	if calls := m.calls(); calls != nil {
		t.Errorf("ran %q", calls)
	}
	if got := m.StorePath(currentConfiguration); got != string(oldBundle) {
		t.Errorf("the bundle is %q", got)
	}
}
