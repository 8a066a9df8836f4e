package server

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// modes gives the mode of all that is in a folder of the machine, below the folder that it is in.
func (m *fakeMachine) modes(folder string) map[string]string {
	m.T.Helper()
	modes := map[string]string{}
	err := filepath.WalkDir(m.Path(folder), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(filepath.Dir(m.Path(folder)), path)
		modes[name] = fmt.Sprintf("%o", info.Mode().Perm())
		return err
	})
	if err != nil {
		m.T.Fatal(err)
	}
	return modes
}

// withUmask has files made with another umask for the time of the test.
func withUmask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

// TestNothingOfASwitchIsForOthers looks at every file of a switch that waits, and of one that has ended: whoever can open a file
// can hold a lock on it, and read in it what is not theirs to know.
func TestNothingOfASwitchIsForOthers(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077} {
		t.Run(fmt.Sprintf("umask %03o", mask), func(t *testing.T) {
			m := newMachine(t).withSystemd()
			if err := os.MkdirAll(m.Path("/run"), 0o755); err != nil {
				t.Fatal(err)
			}
			withUmask(t, mask)
			if err := os.Mkdir(m.Path(machine.RunFolder), 0o777); err != nil {
				t.Fatal(err)
			}
			f := m.connect(locked("s1"))
			r, _ := f.ask(guarded("switch"))
			waits(t, r)
			dir := "ferry/" + job + "-switch"
			// All else is root's alone.
			public := map[string]string{"ferry": "755", dir: "711", dir + "/" + shownFile: "644"}
			are := func(when string, there ...string) {
				t.Helper()
				got := m.modes(machine.RunFolder)
				for name, mode := range got {
					if want := public[name]; want != "" && mode != want || want == "" && !strings.HasSuffix(mode, "00") {
						t.Errorf("%s: %s is %s", when, name, mode)
					}
				}
				for _, name := range there {
					if got[dir+"/"+name] == "" {
						t.Errorf("%s: %s is not there", when, name)
					}
				}
			}
			are("it waits", jobFile, jobLock, logFile, stateFile, shownFile, confirmFolder, expectFolder+"/"+tokenName)
			r, _ = f.ask(finish(agent.VerdictConfirm))
			if r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
				t.Fatalf("%+v, %v", r.Switch, r.Error)
			}
			are("it has ended", statusFile, verdictFile, shownFile)
		})
	}
}

// TestTheFolderOfTheTokenIsTheLoginUsers has alice as who deploys.
func TestTheFolderOfTheTokenIsTheLoginUsers(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.AddProcess(os.Getpid(), 77, 0, "ferry-agent", "0::/")
	m.AddProcess(77, 1, 1234, "sshd", "0::/")
	r, _ := m.connect(locked("s1")).ask(guarded("switch"))
	waits(t, r)
	info, err := os.Stat(m.Path(agent.ConfirmFolder(job)))
	if err != nil || info.Mode().Perm() != 0o700 || machine.OwnerOf(info) != 1234 {
		t.Errorf("%v, %v", info, err)
	}
	// Written by her, with nothing but a file of hers.
	m.confirm(tokenName, tokenText)
	if err := os.Chown(m.Path(filepath.Join(agent.ConfirmFolder(job), tokenName)), 1234, -1); err != nil {
		t.Fatal(err)
	}
	until(t, "it is committed", func() bool { return hasEnded(m.Path(filepath.Dir(agent.ConfirmFolder(job)))) })
	if status, _, err := readStatus(m.Path(filepath.Dir(agent.ConfirmFolder(job)))); err != nil || status.Outcome != agent.SwitchCommitted {
		t.Errorf("%+v, %v", status, err)
	}
}

// TestAFolderOfSomebodyElsesIsRefused has another user, a file and a link where ferry's folder in /run should be.
func TestAFolderOfSomebodyElsesIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		make func(m *fakeMachine)
		says string
	}{
		"another user's": {func(m *fakeMachine) {
			m.Write(machine.RunFolder+"/.keep", "")
			if err := os.Chown(m.Path(machine.RunFolder), 1234, -1); err != nil {
				m.T.Fatal(err)
			}
		}, "belongs to the user with the number 1234"},
		"a file": {func(m *fakeMachine) { m.Write(machine.RunFolder, "") }, "not a directory"},
		"a link": {func(m *fakeMachine) { m.Write("/elsewhere/.keep", ""); m.Link(m.Path("/elsewhere"), machine.RunFolder) }, "is no folder"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			c.make(m)
			if _, _, err := takeLock(m.Root, locked("s1"), time.Now()); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if left, err := os.ReadDir(m.Path("/elsewhere")); err == nil && len(left) != 1 {
				t.Errorf("made there: %v", left)
			}
		})
	}

}
