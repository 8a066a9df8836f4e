package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"

	"golang.org/x/sys/unix"
)

// looked is what an agent without the lock says of the machine.
func (m *fakeMachine) looked() agent.LookResult {
	m.T.Helper()
	response, _ := m.connect(Options{}).ask(agent.Request{Method: agent.MethodLook})
	if response.Error != nil || response.Look == nil {
		m.T.Fatalf("%+v", response)
	}
	return *response.Look
}

// healthy makes the links that a system of ferry's has besides.
func (m *fakeMachine) healthy() *fakeMachine {
	m.Link(string(oldBundle), currentRoot)
	m.Link("/run/current-system", runningRoot)
	return m
}

// TestAMachineThatIsWellHasNothingToSay has no unit that failed, no lock, no timer, and all its links.
func TestAMachineThatIsWellHasNothingToSay(t *testing.T) {
	m := newMachine(t).withSystemd().healthy()
	if got, want := asJSON(t, m.looked()), "{\n \"failed\": []\n}"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestUnitsThatFailedAreNamed in a number that fits, and that they are not known is said.
func TestUnitsThatFailedAreNamed(t *testing.T) {
	m := newMachine(t).healthy()
	if got := m.looked(); got.UnitsError != "PID 1 is not systemd" || len(got.Failed) != 0 {
		t.Errorf("without systemd: %+v", got)
	}
	m.withSystemd()
	m.Write("/control/failed", "● one.service loaded failed failed One\ntwo.mount loaded failed failed Two\n")
	if got := m.looked(); strings.Join(got.Failed, " ") != "one.service two.mount" || got.UnitsError != "" {
		t.Errorf("%+v", got)
	}
	m.Write("/control/failed", strings.Repeat("x.service loaded failed failed X\n", 5000))
	if got := m.looked(); len(got.Failed) != agent.MaxFailed {
		t.Errorf("%d units", len(got.Failed))
	}
}

// TestOnlyWhatABootBringsNeedsAReboot compares the running system with the booted one.
func TestOnlyWhatABootBringsNeedsAReboot(t *testing.T) {
	m := newMachine(t).withSystemd().healthy()
	m.again(string(newSystem), "/run/current-system")
	if got := m.looked(); len(got.Reboot) != 0 {
		t.Errorf("the same kernel: %q", got.Reboot)
	}
	m.Link("/nix/store/a-linux/bzImage", string(oldSystem)+"/kernel")
	m.Link("/nix/store/b-linux/bzImage", string(newSystem)+"/kernel")
	m.Link("/nix/store/c-initrd/initrd", string(oldSystem)+"/initrd")
	m.Link("/nix/store/c-initrd/initrd", string(newSystem)+"/initrd")
	if got := m.looked(); strings.Join(got.Reboot, " ") != "kernel" {
		t.Errorf("another kernel: %q", got.Reboot)
	}
}

// TestRoomInBootMattersWhereItIsAFileSystemOfItsOwn tells what of the running system has to be copied there.
func TestRoomInBootMattersWhereItIsAFileSystemOfItsOwn(t *testing.T) {
	m := newMachine(t)
	m.Write("/nix/store/a-linux/bzImage", "kernel")
	m.Link("/nix/store/a-linux/bzImage", string(oldSystem)+"/kernel")
	m.Write("/boot/.keep", "")
	if files, size := bootFiles(m.Root, string(oldSystem)); len(files) != 0 || size != 0 {
		t.Errorf("the same file system: %q, %d", files, size)
	}
	if err := os.RemoveAll(m.Path("/boot")); err != nil {
		t.Fatal(err)
	}
	// Any other file system does.
	m.Link("/proc", "/boot")
	if files, size := bootFiles(m.Root, string(oldSystem)); strings.Join(files, " ") != "/nix/store/a-linux/bzImage" || size != int64(len("kernel")) {
		t.Errorf("another one: %q, %d", files, size)
	}
}

// TestWhatKeepsSystemsFromBeingCollectedIsLookedAfter takes each link away, or puts something else there.
func TestWhatKeepsSystemsFromBeingCollectedIsLookedAfter(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(m *fakeMachine)
		want  string
	}{
		"the root of the bundle": {func(m *fakeMachine) { _ = os.Remove(m.Path(currentRoot)) }, "the bundle may be collected: "},
		"another root":           {func(m *fakeMachine) { m.again("/somewhere", currentRoot) }, "the bundle may be collected: "},
		"another link":           {func(m *fakeMachine) { m.again(string(newBundle), currentConfiguration) }, currentConfiguration + " is not what was deployed last"},
		"a bundle that is gone":  {func(m *fakeMachine) { _ = os.RemoveAll(m.Path(string(oldBundle))) }, " which is not there any more"},
		"a folder instead of it": {func(m *fakeMachine) {
			_ = os.Remove(m.Path(currentConfiguration))
			m.Write(currentConfiguration+"/configuration.nix", "{ }")
		}, "is in the way: it is no link"},
		"a profile of nothing": {func(m *fakeMachine) { _ = os.Remove(m.Path(systemProfile + "-1-link")) }, "points at nothing: the machine may not boot"},
		"a system of no generation": {func(m *fakeMachine) {
			m.again(string(newSystem), "/run/current-system")
			_ = os.Remove(m.Path(runningRoot))
		}, "what runs may be collected: "},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).healthy()
			c.spoil(m)
			troubles := rootTroubles(m.Root, m.StorePath("/run/current-system"))
			if len(troubles) != 1 || !strings.Contains(troubles[0].Text, c.want) || troubles[0].Fix == "" || troubles[0].Blocks {
				t.Errorf("%+v", troubles)
			}
		})
	}
	m := newMachine(t)
	_ = os.Remove(m.Path(currentConfiguration))
	if troubles := rootTroubles(m.Root, string(oldSystem)); len(troubles) != 0 {
		t.Errorf("ferry was never there: %+v", troubles)
	}
}

// locks writes a /proc/locks in which a process holds a file's lock, and others have, wait for or hold another one.
func (m *fakeMachine) locks(name string, pid int) {
	m.T.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(m.Path(name), &st); err != nil {
		m.T.Fatal(err)
	}
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	m.Write("/proc/locks", fmt.Sprintf("1: POSIX  ADVISORY  WRITE 7 %s 0 EOF\n2: FLOCK  ADVISORY  READ 8 %s 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 9 %s 0 EOF\n"+
		"3: FLOCK  ADVISORY  WRITE 11 00:01:1 0 EOF\n4: FLOCK  ADVISORY  WRITE %d %s 0 EOF\n", inode, inode, inode, pid, inode))
}

// TestWhoHoldsTheLockIsKnownWithoutRoot from the command line of the agent and from the job's own file.
func TestWhoHoldsTheLockIsKnownWithoutRoot(t *testing.T) {
	m := newMachine(t)
	now := time.Unix(1700000000, 0)
	if got := shownAtWork(m.Root, now); got != nil {
		t.Errorf("nobody was there: %+v", got)
	}
	for _, name := range []string{lockFile, workFile} {
		m.Write(name, "what only root may read is not readable here")
		m.locks(name, 4711)
		if got := shownAtWork(m.Root, now); got == nil || got.Who != "" {
			t.Errorf("%s, and nothing is known: %+v", name, got)
		}
	}
	_ = os.Remove(m.Path(workFile))
	m.locks(lockFile, 4711)
	m.Write("/proc/uptime", "1000.50 4000.00\n")
	m.Write("/proc/4711/stat", "4711 (a b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 90000 20\n")
	m.Write("/proc/4711/cmdline", "/var/lib/ferry/agent-x\x00serve\x00--as\x00bob@laptop\x00--session\x00s\x00--lock\x00")
	if got := shownAtWork(m.Root, now); got == nil || got.Who != "bob@laptop" || got.Since != now.Unix()-1000+900 {
		t.Errorf("an agent: %+v", got)
	}
	dir := filepath.Join(machine.RunFolder, "deployment1-switch")
	m.Write(filepath.Join(dir, jobFile), "what only root may read is not readable here")
	publish(m.Path(dir), Job{Who: "alice@desk", Bundle: newBundle, Server: sshConnection{Client: "192.0.2.7:50000"}}, "", 0)
	m.Write("/proc/4711/cmdline", "/var/lib/ferry/agent-x\x00job\x00"+dir+"\x00")
	if got := shownAtWork(m.Root, now); got == nil || got.Who != "alice@desk" || got.From != "192.0.2.7" || got.Bundle != string(newBundle) || got.Since == 0 {
		t.Errorf("a job: %+v", got)
	}
	m.Write(lockFile, `{"who":"carol@there","since":5}`)
	if got := shownAtWork(m.Root, now); got == nil || got.Who != "carol@there" || got.Since != 5 {
		t.Errorf("as root: %+v", got)
	}
	m.locks(lockFile, os.Getpid())
	if got := shownAtWork(m.Root, now); got != nil {
		t.Errorf("it is who asks: %+v", got)
	}
}

// TestAWayBackThatIsArmedIsTold for a switch that goes on, for one that has ended, and for a trial by a reboot.
func TestAWayBackThatIsArmedIsTold(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(machine.RunFolder, "deployment1-switch")
	m.Write(filepath.Join(dir, jobFile), "what only root may read is not readable here")
	publish(m.Path(dir), Job{Who: "alice@desk", Toplevel: newSystem}, "", 0)
	if got := findArmed(m.Root); got == nil || got.Phase != agent.Arming {
		t.Errorf("before the first phase: %+v", got)
	}
	publish(m.Path(dir), Job{Who: "alice@desk", Toplevel: newSystem}, agent.Waiting, machine.Uptime()+60_500)
	got := findArmed(m.Root)
	if got == nil || got.Who != "alice@desk" || got.Toplevel != string(newSystem) || got.Phase != agent.Waiting || got.Left < 50 || got.Left > 60 || got.Reboot {
		t.Errorf("%+v", got)
	}
	past := time.Now().Add(-2 * beginGrace)
	if err := os.Chtimes(m.Path(filepath.Join(dir, jobFile)), past, past); err != nil {
		t.Fatal(err)
	}
	if got := findArmed(m.Root); got != nil {
		t.Errorf("it never began: %+v", got)
	}
	m.Write(filepath.Join(dir, begunFile), "")
	if got := findArmed(m.Root); got == nil {
		t.Error("it began long ago, and goes on")
	}
	m.Write(filepath.Join(dir, statusFile), `{"status":0}`)
	if got := findArmed(m.Root); got != nil {
		t.Errorf("it has ended: %+v", got)
	}
	if err := (&trial{Old: string(oldSystem), New: string(newSystem)}).write(m.Root); err != nil {
		t.Fatal(err)
	}
	if got := findArmed(m.Root); got == nil || !got.Reboot || got.Toplevel != string(newSystem) {
		t.Errorf("a trial: %+v", got)
	}
}

// TestHistoryIsTheNewestPartOfTheJournal over both files, as long as it is asked for and as fits into an answer.
func TestHistoryIsTheNewestPartOfTheJournal(t *testing.T) {
	m := newMachine(t)
	for _, id := range []string{"one", "two"} {
		mustAppend(t, m.Root, entryOf(id))
	}
	if err := os.Rename(m.Path(journalFile), m.Path(rotatedJournal)); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, m.Root, entryOf("three"))
	for limit, want := range map[int]string{0: "", 1: "three", 2: "two three", 3: "one two three", 1 << 30: "one two three"} {
		response, _ := m.connect(Options{}).ask(agent.Request{Method: agent.MethodHistory, Limit: limit})
		if response.Error != nil || response.History == nil {
			t.Fatalf("%+v", response)
		}
		if got := ids(response.History.Entries); got != want || response.History.Older != (limit < 3) {
			t.Errorf("%d: %q, older %v", limit, got, response.History.Older)
		}
	}
	line := strings.TrimSuffix(m.Read(journalFile), "\n")
	line = strings.Replace(line, `"outcome"`, `"reason":"`+strings.Repeat("x", 500)+`","outcome"`, 1) + "\n"
	m.Write(journalFile, strings.Repeat(line, maxJournal/len(line)))
	m.Write(rotatedJournal, m.Read(journalFile))
	response, _ := m.connect(Options{}).ask(agent.Request{Method: agent.MethodHistory, Limit: agent.MaxHistory})
	if n, all := len(response.History.Entries), 2*maxJournal/len(line); n < all/3 || n > all/2 || !response.History.Older {
		t.Errorf("%d of %d long entries", n, all)
	}
}
