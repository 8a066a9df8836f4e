package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

// thirdSystem is somebody else's.
const thirdSystem nix.StorePath = "/nix/store/44444444444444444444444444444444-third"

// decides is a person at the console.
func (m *fakeMachine) decides(verdict agent.Verdict) {
	m.T.Helper()
	if err := writeFile(filepath.Join(m.jobFolder(JobSwitch), verdictFile), []byte(`{"verdict":"`+string(verdict)+`"}`)); err != nil {
		m.T.Fatal(err)
	}
}

// fails waits until going back has failed so often.
func (m *fakeMachine) fails(tries int) guardState {
	m.T.Helper()
	var state guardState
	until(m.T, "it could not go back", func() bool {
		state, _ = readState(m.jobFolder(JobSwitch))
		return state.Phase == agent.Stranded && state.Tries == tries
	})
	return state
}

// strand begins a switch that nobody confirms, on a machine whose old system fails; ferry is told when it has failed twice.
func (m *fakeMachine) strand() (*ferry, agent.Response) {
	m.T.Helper()
	m.Write("/control/status-old-test", "2\n")
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(m.T, r)
	f.send(agent.Request{Method: agent.MethodFinish, Job: job, Verdict: agent.VerdictBack, Reason: "the page is blank"})
	m.fails(1)
	m.decides(agent.VerdictBack)
	r, _ = f.answer()
	if r.Error != nil || r.Switch.Phase != agent.Stranded || r.Switch.Outcome != agent.SwitchStranded || r.Switch.Reason != "the page is blank" ||
		r.Switch.Trouble != "the old system's switch-to-configuration ended with status 2" || r.Switch.Left < 1 {
		m.T.Fatalf("%+v, %v", r.Switch, r.Error)
	}
	m.fails(2)
	return f, r
}

// hasEnded waits for the end of a switch that nobody follows.
func (m *fakeMachine) hasEnded() jobStatus {
	m.T.Helper()
	var status jobStatus
	until(m.T, "it has ended", func() bool {
		var ended bool
		status, ended, _ = readStatus(m.jobFolder(JobSwitch))
		return ended && !running(m.jobFolder(JobSwitch))
	})
	return status
}

// leaves ends a ferry and its agent.
func (f *ferry) leaves() {
	f.t.Helper()
	_ = f.in.Close()
	err := <-f.ended
	f.ended <- err
}

func TestATargetThatCannotGoBackGoesOnTrying(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.strand()
	if !m.Exists(backRoot) || !fileExists(armedProgram(m.Root, m.jobFolder(JobSwitch))) {
		t.Error("what it goes back with is not kept")
	}
	if timers := m.Read("/timers"); !strings.HasSuffix(timers, "stop ferry-rollback-deployment1-again-1.timer\n") || !strings.Contains(timers, "arm ferry-rollback-deployment1-again-2 ") {
		t.Errorf("the timers: %q", timers)
	}
	until(t, "others may work", func() bool { return atWork(m.Root) == nil })
	if entries := readJournal(m.Root, 5); len(entries) > 0 {
		t.Errorf("it has not ended: %+v", entries)
	}
	// By itself, after the pause.
	if err := os.Remove(m.Path("/control/status-old-test")); err != nil {
		t.Fatal(err)
	}
	m.decides(agent.VerdictBack)
	if status := m.hasEnded(); status.Outcome != agent.SwitchRolledBack || status.Reason != "the page is blank" || status.Trouble != "" {
		t.Errorf("%+v", status)
	}
	m.isOld()
}

func TestATargetThatCannotGoBackTriesAgainByItself(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.Write("/control/status-old-test", "2\n")
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	f.send(finish(agent.VerdictBack))
	m.fails(1)
	if err := os.Remove(m.Path("/control/status-old-test")); err != nil {
		t.Fatal(err)
	}
	if r, log := f.answer(); r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || !strings.Contains(log, "trying again in 10s\n") {
		t.Errorf("%+v, %v, %q", r.Switch, r.Error, log)
	}
	m.isOld()
}

func TestThePausesGrowToALimit(t *testing.T) {
	for tries, want := range map[int]time.Duration{1: 10 * time.Second, 2: 20 * time.Second, 5: 160 * time.Second, 8: 15 * time.Minute, 1 << 30: 15 * time.Minute} {
		if got := againAfter(tries); got != want {
			t.Errorf("after %d: %v", tries, got)
		}
	}
}

func TestAPersonDecidesAboutATargetThatCannotGoBack(t *testing.T) {
	t.Run("to leave it", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		m.strand()
		m.decides(agent.VerdictLeave)
		if status := m.hasEnded(); status.Outcome != agent.SwitchStranded || status.Reason != "the page is blank" {
			t.Errorf("%+v", status)
		}
		if !strings.HasSuffix(m.Read("/timers"), "stop ferry-rollback-deployment1-again-2.timer\n") || fileExists(armedProgram(m.Root, m.jobFolder(JobSwitch))) {
			t.Errorf("still armed: %q", m.Read("/timers"))
		}
	})
	t.Run("to keep it", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		m.strand()
		m.decides(agent.VerdictKeep)
		if status := m.hasEnded(); status.Outcome != agent.SwitchCommitted {
			t.Errorf("%+v", status)
		}
		if calls := m.calls(); !slices.Equal(calls[len(calls)-3:], []string{"1-new test", "nix-env --set 1-new", "1-new boot"}) {
			t.Errorf("ran %q", calls)
		}
		m.isDisarmed(profile{string(newSystem), 2})
	})
}

// Whoever attaches to it follows it; ferry is no person that may keep what was to be gone back from.
func TestAGuardThatIsKilledWhileItTriesAgainIsSucceeded(t *testing.T) {
	m := newMachine(t).withSystemd()
	f, _ := m.strand()
	f.send(finish(agent.VerdictKeep))
	if r, _ := f.answer(); r.Error != nil || r.Switch.Outcome != agent.SwitchStranded {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	state := m.fails(2)
	if err := syscall.Kill(state.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.Path("/control/status-old-test")); err != nil {
		t.Fatal(err)
	}
	until(t, "it is gone", func() bool { return !running(m.jobFolder(JobSwitch)) })
	// The timer's process.
	if err := rollBackIn(t.Context(), m.Root, m.jobFolder(JobSwitch)); err != nil {
		t.Fatal(err)
	}
	if status := m.hasEnded(); status.Outcome != agent.SwitchRolledBack || status.Reason != "the page is blank" {
		t.Errorf("%+v", status)
	}
	m.isOld()
}

// What was to be gone back from is nothing to go back to.
func TestADeploymentTakesTheWayBackOverFromOneThatCouldNotGoBack(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.Program(string(thirdSystem)+"/bin/switch-to-configuration", strings.ReplaceAll(strings.ReplaceAll(switchScript, string(newSystem), string(thirdSystem)), "*new*", "*third*"))
	f, _ := m.strand()
	f.leaves()
	// The old one has failed, and left the new one running.
	if err := m.Disk.Link(string(newSystem), m.Path("/run/current-system")); err != nil {
		t.Fatal(err)
	}
	next := guarded("switch")
	next.Job, next.Toplevel = "deployment2", thirdSystem
	f = m.connect(locked("s2"))
	r, _ := f.ask(next)
	if r.Error != nil || r.Switch.Phase != agent.Waiting || r.Switch.Before != string(oldSystem) {
		t.Fatalf("%+v, %v", r.Switch, r.Error)
	}
	if status := m.hasEnded(); status.Outcome != agent.SwitchStranded || status.Reason != "the page is blank; another deployment has begun" {
		t.Errorf("%+v", status)
	}
	if err := os.Remove(m.Path("/control/status-old-test")); err != nil {
		t.Fatal(err)
	}
	r, _ = f.ask(agent.Request{Method: agent.MethodFinish, Job: "deployment2", Verdict: agent.VerdictBack})
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	m.isOld()
}
