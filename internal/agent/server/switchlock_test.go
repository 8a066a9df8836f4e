package server

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent/machine"
)

const mallory = 1234

// opens starts a process of a user's that has a file open and runs a command of the shell's before it waits; it returns when that
// is done, and the process ends with the test.
func (m *fakeMachine) opens(uid uint32, name, how, command string) *exec.Cmd {
	m.T.Helper()
	// Everybody may come to the files of a machine.
	for folder := m.Dir; folder != "/" && folder != os.TempDir(); folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			m.T.Fatal(err)
		}
	}
	cmd := exec.CommandContext(m.T.Context(), "sh", "-c", `exec 9`+how+`"$1"; `+command+`; echo; exec sleep 60`, "sh", m.Path(name))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.T.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.T.Fatal(err)
	}
	m.T.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		m.T.Fatal(err)
	}
	return cmd
}

// mode is a file's.
func (m *fakeMachine) mode(name string) string {
	info, err := os.Lstat(m.Path(name))
	if err != nil {
		return err.Error()
	}
	return info.Mode().String()
}

// TestOnlyRootsSwitchIsWaitedFor holds the lock of NixOS's own program in each way that there is, and looks who is waited for.
func TestOnlyRootsSwitchIsWaitedFor(t *testing.T) {
	const hold = "flock 9"
	for name, c := range map[string]struct {
		mode  os.FileMode
		holds func(m *fakeMachine)
		waits bool
	}{
		"nobody": {0o644, func(*fakeMachine) {}, false},
		"a user": {0o644, func(m *fakeMachine) { m.opens(mallory, switchLock, "<", hold) }, false},
		"users who share it": {0o644, func(m *fakeMachine) {
			m.opens(mallory, switchLock, "<", "flock -s 9")
			m.opens(mallory, switchLock, "<", "flock -s 9")
		}, false},
		"a user from before it was 600": {0o600, func(m *fakeMachine) { m.opensBefore(mallory) }, false},
		"root":                          {0o644, func(m *fakeMachine) { m.opens(0, switchLock, ">>", hold) }, true},
		"root, with flock(1)":           {0o644, func(m *fakeMachine) { m.opens(0, switchLock, "<", hold) }, true},
		"root, in one of root's":        {0o600, func(m *fakeMachine) { m.opens(0, switchLock, ">>", hold) }, true},
		"root, who waits for a user": {0o644, func(m *fakeMachine) {
			m.opens(mallory, switchLock, "<", hold)
			m.opens(0, switchLock, ">>", "flock 9 & true")
		}, true},
		"root, who only reads it": {0o644, func(m *fakeMachine) { m.opens(0, switchLock, "<", "true") }, false},
		"root, in one that was replaced": {0o644, func(m *fakeMachine) {
			m.opens(0, switchLock, ">>", hold)
			if err := os.Rename(m.Path(switchLock), m.Path(switchLock+".old")); err != nil {
				m.T.Fatal(err)
			}
			m.Write(switchLock, "")
			if err := os.Rename(m.Path(switchLock+".old"), m.Path(switchLock)); err != nil {
				m.T.Fatal(err)
			}
			if err := machine.ReplaceLock(m.Path(switchLock), m.Path(turnFile)); err != nil {
				m.T.Fatal(err)
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Write(switchLock, "")
			if err := os.Chmod(m.Path(switchLock), c.mode); err != nil {
				t.Fatal(err)
			}
			c.holds(m)
			got := awaitSwitchLock(t.Context(), m.Root, 0)
			if c.waits != strings.HasPrefix(got, "process ") {
				t.Errorf("it waits for %q", got)
			}
			if !c.waits {
				if mode := m.mode(switchLock); mode != "-rw-------" || !machine.IsFree(m.Path(switchLock)) {
					t.Errorf("the lock is %s, free: %v", mode, machine.IsFree(m.Path(switchLock)))
				}
			}
		})
	}
}

// opensBefore has a user hold the lock on a file that they may not open any more.
func (m *fakeMachine) opensBefore(uid uint32) {
	m.T.Helper()
	before, err := os.Stat(m.Path(switchLock))
	if err == nil {
		err = os.Chmod(m.Path(switchLock), 0o644)
	}
	if err != nil {
		m.T.Fatal(err)
	}
	m.opens(uid, switchLock, "<", "flock 9")
	if err := os.Chmod(m.Path(switchLock), before.Mode()); err != nil {
		m.T.Fatal(err)
	}
}

// TestALockThatIsNotThereIsMadeForRoot on a machine where nobody has switched since the boot, and leaves alone what is no file.
func TestALockThatIsNotThereIsMadeForRoot(t *testing.T) {
	withUmask(t, 0)
	m := newMachine(t)
	if got := awaitSwitchLock(t.Context(), m.Root, 0); got != "" || m.mode(switchLock) != "-rw-------" || m.mode("/run/nixos") != "drwxr-xr-x" {
		t.Errorf("%q, %s in %s", got, m.mode(switchLock), m.mode("/run/nixos"))
	}
	for name, make := range map[string]func(path string) error{
		"a folder": func(path string) error { return os.Mkdir(path, 0o755) },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"a link":   func(path string) error { return os.Symlink("/etc/passwd", path) },
	} {
		m := newMachine(t)
		if err := os.MkdirAll(m.Path("/run/nixos"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := make(m.Path(switchLock)); err != nil {
			t.Fatal(err)
		}
		before := m.mode(switchLock)
		if got := awaitSwitchLock(t.Context(), m.Root, 0); got != "" || m.mode(switchLock) != before {
			t.Errorf("%s: %q, %s", name, got, m.mode(switchLock))
		}
	}
}

// TestALockThatOthersCanOpenIsReplaced has ferry's own locks as an older bundle's script made them, with a user who holds them.
func TestALockThatOthersCanOpenIsReplaced(t *testing.T) {
	m := newMachine(t)
	for _, name := range []string{lockFile, workFile, journalLock} {
		m.Write(name, "")
		m.opens(mallory, name, "<", "flock 9")
	}
	held, holder, err := takeLock(m.Root, locked("s1"), time.Now())
	if err != nil || holder != nil {
		t.Fatalf("%+v, %v", holder, err)
	}
	defer held.release()
	work, err := lockWork(m.Root, Job{Session: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer work.release()
	mustAppend(t, m.Root, entryOf("one"))
	for _, name := range []string{lockFile, workFile, journalLock} {
		if mode := m.mode(name); mode != "-rw-------" {
			t.Errorf("%s is %s", name, mode)
		}
	}
	if atWork(m.Root) == nil || !deploying(m.Root) {
		t.Error("the locks are not held")
	}
}

// TestALockThatRootHoldsIsNotReplaced has the script of an older bundle at work, with a lock that everybody can open.
func TestALockThatRootHoldsIsNotReplaced(t *testing.T) {
	for _, name := range []string{lockFile, workFile} {
		m := newMachine(t)
		m.Write(name, `{"who":"nixos-rebuild-switch on this machine"}`)
		cmd := m.opens(0, name, ">>", "flock 9")
		if got, holder, err := takeLock(m.Root, locked("s1"), time.Now()); got != nil || holder == nil || holder.Who != "nixos-rebuild-switch on this machine" || err != nil {
			t.Errorf("%s: %v, %+v, %v", name, got, holder, err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		held, holder, err := takeLock(m.Root, locked("s1"), time.Now())
		if err != nil || holder != nil {
			t.Fatalf("%s: %+v, %v", name, holder, err)
		}
		held.release()
		if mode := m.mode(name); mode != "-rw-------" {
			t.Errorf("%s is %s", name, mode)
		}
	}
}

// TestALockThatWasReplacedIsOpenedAgain has somebody open a lock before another one takes its place.
func TestALockThatWasReplacedIsOpenedAgain(t *testing.T) {
	m := newMachine(t)
	first, err := lockWork(m.Root, Job{Session: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan *lock)
	go func() {
		l, err := lockWork(m.Root, Job{Session: "s2"}, time.Now())
		if err != nil {
			t.Error(err)
		}
		second <- l
	}()
	until(t, "the second waits", func() bool {
		var st syscall.Stat_t
		locks, err := os.ReadFile("/proc/locks")
		return err == nil && syscall.Stat(m.Path(workFile), &st) == nil && strings.Contains(string(locks), "-> FLOCK") &&
			strings.Count(string(locks), ":"+strconv.FormatUint(st.Ino, 10)+" ") == 2
	})
	if err := os.Chmod(m.Path(workFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := machine.ReplaceLock(m.Path(workFile), m.Path(turnFile)); err != nil {
		t.Fatal(err)
	}
	first.release()
	l := <-second
	defer l.release()
	if !machine.IsCurrent(l.file) || machine.IsFree(m.Path(workFile)) {
		t.Error("it holds a lock that is nobody's")
	}
}
