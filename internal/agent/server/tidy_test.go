package server

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
)

// obstruct puts something in the place of a file that cannot be removed, and gives what makes it removable. A file system that is
// read-only for a while does the same.
func (m *fakeMachine) obstruct(name string) (free func()) {
	m.T.Helper()
	if err := os.Remove(name); err != nil {
		m.T.Fatal(err)
	}
	inside := filepath.Join(name, "inside")
	if err := os.MkdirAll(inside, 0o755); err != nil {
		m.T.Fatal(err)
	}
	return func() {
		if err := os.Remove(inside); err != nil {
			m.T.Error(err)
		}
	}
}

func absentNow(name string) func() bool { return func() bool { return !isThere(name) } }

// TestWhatASwitchCannotRemoveGoesLater has a switch whose end cannot remove what has armed it. It is over all the same, and others
// may deploy.
func TestWhatASwitchCannotRemoveGoesLater(t *testing.T) {
	for name, c := range map[string]struct {
		verdict agent.Verdict
		killed  bool // the guard, so that its successor ends it
	}{"committed": {agent.VerdictConfirm, false}, "gone back": {agent.VerdictBack, false}, "by a successor": {agent.VerdictBack, true}} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			f := m.connect(locked("s1"))
			r, _ := f.ask(guarded("switch"))
			waits(t, r)
			dir := m.jobFolder(JobSwitch)
			armed, back := armedProgram(m.Root, dir), m.Path(backRoot)
			free := []func(){m.obstruct(back)}
			if !c.killed {
				// Its successor is that program.
				free = append(free, m.obstruct(armed))
			}
			if state, err := readState(dir); c.killed && (err != nil || syscall.Kill(state.Pid, syscall.SIGKILL) != nil) {
				t.Fatal(err)
			}
			if r, _ = f.ask(finish(c.verdict)); r.Error != nil || r.Switch.Phase != agent.Ended {
				t.Fatalf("%+v, %v", r.Switch, r.Error)
			}
			until(t, "its locks are free", func() bool { return !running(dir) && atWork(m.Root) == nil })
			if isThere(armed) == c.killed || !isThere(back) {
				t.Fatal("it could be removed, or the other could not")
			}
			for _, do := range free {
				do()
			}
			until(t, "the program is gone", absentNow(armed))
			until(t, "the root is gone", absentNow(back))
		})
	}
}

// TestWhatAnotherSwitchNeedsIsNotTidiedAway has the next switch wait when the one before comes to remove what it has left.
func TestWhatAnotherSwitchNeedsIsNotTidiedAway(t *testing.T) {
	m := newMachine(t).withSystemd()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	armed := armedProgram(m.Root, m.jobFolder(JobSwitch))
	free := m.obstruct(armed)
	if r, _ = f.ask(finish(agent.VerdictBack)); r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack {
		t.Fatalf("%+v, %v", r.Switch, r.Error)
	}
	next := guarded("switch")
	next.Job = "deployment2"
	r, _ = f.ask(next)
	waits(t, r)
	free()
	// Not while the other one works: its guard holds the lock as long as it waits.
	if r, _ = f.ask(agent.Request{Method: agent.MethodFinish, Job: "deployment2", Verdict: agent.VerdictBack}); r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack {
		t.Fatalf("%+v, %v", r.Switch, r.Error)
	}
	until(t, "the program is gone", absentNow(armed))
	m.isOld()
}

// TestWhatIsLeftOfKeptAccountsIsRemoved: what was half removed, where a folder could not be written to, is found without what says
// what it was; what is being kept by a job is not touched.
func TestWhatIsLeftOfKeptAccountsIsRemoved(t *testing.T) {
	m := newMachine(t)
	unit := filepath.Join(controlFolder, accountsUnit)
	m.Write(unit, accountsUnitText)
	m.Write(accountsBefore, "")
	work, err := lockWork(m.Root, Job{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	removeOldAccounts(m.Root)
	if !m.Exists(unit) || !m.Exists(accountsBefore) {
		t.Error("it was removed while a job is at work")
	}
	work.release()
	removeOldAccounts(m.Root)
	if m.Exists(unit) || m.Exists(accountsFolder) || m.Exists(controlFolder) {
		t.Error("it is still there")
	}
}
