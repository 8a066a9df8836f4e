package server

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const mallory = 1234

// opens starts a process of a user's that has a file open and runs a command of the shell's before it waits; it returns when that
// is done, and the process ends with the test.
func (m *fakeMachine) opens(uid uint32, name, how, command string) *exec.Cmd {
	m.t.Helper()
	// Everybody may come to the files of a machine.
	for folder := m.dir; folder != "/" && folder != os.TempDir(); folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(m.t.Context(), "sh", "-c", `exec 9`+how+`"$1"; `+command+`; echo; exec sleep 60`, "sh", m.path(name))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		m.t.Fatal(err)
	}
	return cmd
}

// mode is a file's.
func (m *fakeMachine) mode(name string) string {
	info, err := os.Lstat(m.path(name))
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
			if err := os.Rename(m.path(switchLock), m.path(switchLock+".old")); err != nil {
				m.t.Fatal(err)
			}
			m.write(switchLock, "")
			if err := os.Rename(m.path(switchLock+".old"), m.path(switchLock)); err != nil {
				m.t.Fatal(err)
			}
			if err := replaceLock(m.path(switchLock), m.path(turnFile)); err != nil {
				m.t.Fatal(err)
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.write(switchLock, "")
			if err := os.Chmod(m.path(switchLock), c.mode); err != nil {
				t.Fatal(err)
			}
			c.holds(m)
			got := awaitSwitchLock(t.Context(), m.root, 0)
			if c.waits != strings.HasPrefix(got, "process ") {
				t.Errorf("it waits for %q", got)
			}
			if !c.waits {
				if mode := m.mode(switchLock); mode != "-rw-------" || !isFree(m.path(switchLock)) {
					t.Errorf("the lock is %s, free: %v", mode, isFree(m.path(switchLock)))
				}
			}
		})
	}
}

// opensBefore has a user hold the lock on a file that they may not open any more.
func (m *fakeMachine) opensBefore(uid uint32) {
	m.t.Helper()
	before, err := os.Stat(m.path(switchLock))
	if err == nil {
		err = os.Chmod(m.path(switchLock), 0o644)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.opens(uid, switchLock, "<", "flock 9")
	if err := os.Chmod(m.path(switchLock), before.Mode()); err != nil {
		m.t.Fatal(err)
	}
}

// TestALockThatIsNotThereIsMadeForRoot on a machine where nobody has switched since the boot, and leaves alone what is no file.
func TestALockThatIsNotThereIsMadeForRoot(t *testing.T) {
	withUmask(t, 0)
	m := newMachine(t)
	if got := awaitSwitchLock(t.Context(), m.root, 0); got != "" || m.mode(switchLock) != "-rw-------" || m.mode("/run/nixos") != "drwxr-xr-x" {
		t.Errorf("%q, %s in %s", got, m.mode(switchLock), m.mode("/run/nixos"))
	}
	for name, make := range map[string]func(path string) error{
		"a folder": func(path string) error { return os.Mkdir(path, 0o755) },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"a link":   func(path string) error { return os.Symlink("/etc/passwd", path) },
	} {
		m := newMachine(t)
		if err := os.MkdirAll(m.path("/run/nixos"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := make(m.path(switchLock)); err != nil {
			t.Fatal(err)
		}
		before := m.mode(switchLock)
		if got := awaitSwitchLock(t.Context(), m.root, 0); got != "" || m.mode(switchLock) != before {
			t.Errorf("%s: %q, %s", name, got, m.mode(switchLock))
		}
	}
}

// TestALockThatOthersCanOpenIsReplaced has ferry's own locks as an older bundle's script made them, with a user who holds them.
func TestALockThatOthersCanOpenIsReplaced(t *testing.T) {
	m := newMachine(t)
	for _, name := range []string{lockFile, workFile, journalLock} {
		m.write(name, "")
		m.opens(mallory, name, "<", "flock 9")
	}
	held, holder, err := takeLock(m.root, locked("s1"), time.Now())
	if err != nil || holder != nil {
		t.Fatalf("%+v, %v", holder, err)
	}
	defer held.release()
	work, err := lockWork(m.root, Job{Session: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer work.release()
	mustAppend(t, m.root, entryOf("one"))
	for _, name := range []string{lockFile, workFile, journalLock} {
		if mode := m.mode(name); mode != "-rw-------" {
			t.Errorf("%s is %s", name, mode)
		}
	}
	if atWork(m.root) == nil || !deploying(m.root) {
		t.Error("the locks are not held")
	}
}

// TestALockThatRootHoldsIsNotReplaced has the script of an older bundle at work, with a lock that everybody can open.
func TestALockThatRootHoldsIsNotReplaced(t *testing.T) {
	for _, name := range []string{lockFile, workFile} {
		m := newMachine(t)
		m.write(name, `{"who":"nixos-rebuild-switch on this machine"}`)
		cmd := m.opens(0, name, ">>", "flock 9")
		if got, holder, err := takeLock(m.root, locked("s1"), time.Now()); got != nil || holder == nil || holder.Who != "nixos-rebuild-switch on this machine" || err != nil {
			t.Errorf("%s: %v, %+v, %v", name, got, holder, err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		held, holder, err := takeLock(m.root, locked("s1"), time.Now())
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
	first, err := lockWork(m.root, Job{Session: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan *lock)
	go func() {
		l, err := lockWork(m.root, Job{Session: "s2"}, time.Now())
		if err != nil {
			t.Error(err)
		}
		second <- l
	}()
	until(t, "the second waits", func() bool {
		var st syscall.Stat_t
		locks, err := os.ReadFile("/proc/locks")
		return err == nil && syscall.Stat(m.path(workFile), &st) == nil && strings.Contains(string(locks), "-> FLOCK") &&
			strings.Count(string(locks), ":"+strconv.FormatUint(st.Ino, 10)+" ") == 2
	})
	if err := os.Chmod(m.path(workFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replaceLock(m.path(workFile), m.path(turnFile)); err != nil {
		t.Fatal(err)
	}
	first.release()
	l := <-second
	defer l.release()
	if !isCurrent(l.file) || isFree(m.path(workFile)) {
		t.Error("it holds a lock that is nobody's")
	}
}

// TestWhoWasElevatedIsKnown reads the auxiliary vectors of processes of either word size, and of this one.
func TestWhoWasElevatedIsKnown(t *testing.T) {
	for _, size := range []int{4, 8} {
		for secure := range uint64(2) {
			var text []byte
			for _, word := range []uint64{33, 0x7fff0000, 6, 4096, 23, secure, 31, 1, 0, 0} {
				if size == 4 {
					text = binary.NativeEndian.AppendUint32(text, uint32(word))
				} else {
					text = binary.NativeEndian.AppendUint64(text, word)
				}
			}
			file := filepath.Join(t.TempDir(), "auxv")
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := isElevated(filepath.Dir(file)); got != (secure == 1) {
				t.Errorf("%d bytes, %d: %v", size, secure, got)
			}
		}
	}
	if isElevated(fmt.Sprintf("/proc/%d", os.Getpid())) {
		t.Error("this process")
	}
}
