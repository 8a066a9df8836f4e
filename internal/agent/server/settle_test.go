package server

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// orphan begins a switch, and kills everybody who minds it.
func (m *fakeMachine) orphan() {
	m.T.Helper()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(m.T, r)
	f.leaves()
	state, err := readState(m.jobFolder(JobSwitch))
	if err != nil {
		m.T.Fatal(err)
	}
	if err := syscall.Kill(state.Pid, syscall.SIGKILL); err != nil {
		m.T.Fatal(err)
	}
	until(m.T, "it is gone", func() bool { return !running(m.jobFolder(JobSwitch)) })
}

// TestASwitchThatNobodyMindsIsSettledFirst has the next ferry come before the timer.
func TestASwitchThatNobodyMindsIsSettledFirst(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.orphan()
	f := m.connect(locked("s2"))
	if facts := f.hello.Facts; facts.Current != string(oldSystem) || facts.Lock != nil {
		t.Errorf("ferry is told of %+v", facts)
	}
	if status := m.hasEnded(); status.Outcome != agent.SwitchRolledBack {
		t.Errorf("%+v", status)
	}
	m.isOld()
	next := commitment("boot")
	next.Job = "deployment2"
	if r, _ := f.ask(next); r.Error != nil || r.Commit.Status != 0 {
		t.Errorf("%+v, %v", r.Commit, r.Error)
	}
	// The timer is late.
	if err := rollBackIn(t.Context(), m.Root, m.jobFolder(JobSwitch)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"1-new test", "0-old test", "nix-env --set 1-new", "1-new boot"}; !slices.Equal(m.calls(), want) {
		t.Errorf("ran %q", m.calls())
	}
}

// TestAJobSettlesWhatIsInItsWay is for what has come into its way since ferry connected, and for a deployment that is none of
// ferry's.
func TestAJobSettlesWhatIsInItsWay(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.orphan()
	var said bytes.Buffer
	if err := settleAll(t.Context(), m.Root, &said); err != nil {
		t.Fatal(err)
	}
	if status := m.hasEnded(); status.Outcome != agent.SwitchRolledBack || !strings.Contains(said.String(), "the switch deployment1 was not ended") {
		t.Errorf("%+v, %q", status, said.String())
	}
	m.isOld()
	work, err := lockWork(m.Root, Job{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer work.release()
	if err := settleAll(t.Context(), m.Root, &said); err == nil || err.Error() != "another deployment is at work" {
		t.Errorf("beside another: %v", err)
	}
}

// TestASwitchThatHasNotBegunNeverDoes has an agent that was killed between writing the job down and starting it.
func TestASwitchThatHasNotBegunNeverDoes(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.Write(filepath.Join(machine.RunFolder, job+"-switch", jobFile), `{"kind":"switch","session":"s1"}`)
	m.connect(locked("s2"))
	if _, err := os.Stat(m.jobFolder(JobSwitch)); !os.IsNotExist(err) {
		t.Errorf("its folder: %v", err)
	}
}

// TestASystemOfSomebodyElsesIsLeftAsItIs has somebody switch by hand while a deployment is under way.
func TestASystemOfSomebodyElsesIsLeftAsItIs(t *testing.T) {
	const says = "somebody else has switched the target to third (4444444…) meanwhile, which was left as it is"
	byHand := func(m *fakeMachine) {
		m.Write(string(thirdSystem)+"/.keep", "")
		if err := m.Disk.Link(string(thirdSystem), m.Path("/run/current-system")); err != nil {
			m.T.Fatal(err)
		}
	}
	isThird := func(m *fakeMachine) {
		m.T.Helper()
		if got := m.StorePath("/run/current-system"); got != string(thirdSystem) {
			m.T.Errorf("it runs %q", got)
		}
		if want := []string{"1-new test"}; !slices.Equal(m.calls(), want) {
			m.T.Errorf("ran %q", m.calls())
		}
		m.isDisarmed(profile{string(oldSystem), 1})
	}
	for name, verdict := range map[string]agent.Verdict{"before the commit": agent.VerdictConfirm, "before going back": agent.VerdictBack} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			f := m.connect(locked("s1"))
			r, _ := f.ask(guarded("switch"))
			waits(t, r)
			byHand(m)
			r, _ = f.ask(finish(verdict))
			if r.Error != nil || r.Switch.Outcome != agent.SwitchOvertaken || !strings.HasSuffix(r.Switch.Reason, says) {
				t.Errorf("%+v, %v", r.Switch, r.Error)
			}
			isThird(m)
		})
	}
	t.Run("by a successor", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		m.orphan()
		byHand(m)
		if err := rollBackIn(t.Context(), m.Root, m.jobFolder(JobSwitch)); err != nil {
			t.Fatal(err)
		}
		if status := m.hasEnded(); status.Outcome != agent.SwitchOvertaken || !strings.HasSuffix(status.Reason, says) {
			t.Errorf("%+v", status)
		}
		isThird(m)
	})
	t.Run("the same system, committed by hand", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		m.orphan()
		m.Link(string(newSystem), systemProfile+"-2-link")
		if err := m.Disk.Link("system-2-link", m.Path(systemProfile)); err != nil {
			t.Fatal(err)
		}
		if err := rollBackIn(t.Context(), m.Root, m.jobFolder(JobSwitch)); err != nil {
			t.Fatal(err)
		}
		if status := m.hasEnded(); status.Outcome != agent.SwitchOvertaken || m.StorePath("/run/current-system") != string(newSystem) {
			t.Errorf("%+v", status)
		}
	})
}

// TestWhatIsArmedKeepsItsProgram removes the agents of other versions while a switch waits.
func TestWhatIsArmedKeepsItsProgram(t *testing.T) {
	m := newMachine(t).withSystemd()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	armed := armedProgram(m.Root, m.jobFolder(JobSwitch))
	m.Program(filepath.Join(agent.Folder, "agent-old"), "")
	m.Program(filepath.Join(agent.Folder, "armed-gone"), "")
	removeOldAgents(m.Root, m.Path(filepath.Join(agent.Folder, "agent-new")))
	for name, want := range map[string]bool{armed: true, m.Path(agent.Folder + "/agent-old"): false, m.Path(agent.Folder + "/armed-gone"): false} {
		if fileExists(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	if r, _ := f.ask(finish(agent.VerdictConfirm)); r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	until(t, "its program is gone", func() bool { return !fileExists(armed) })
}
