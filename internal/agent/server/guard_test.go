package server

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
)

const (
	tokenName = "abcdefghijklmnop"
	tokenText = "a secret"
)

// guarded asks for a switch with limits that a test can wait for.
func guarded(action string) agent.Request {
	sum := sha256.Sum256([]byte(tokenText))
	return agent.Request{
		Method: agent.MethodSwitch, Job: job, Toplevel: newSystem, Bundle: newBundle, Action: action,
		Switch: &agent.GuardOptions{Limits: agent.Limits{Activation: 20, Confirm: 20}},
		Token:  &agent.Token{Name: tokenName, Hash: hex.EncodeToString(sum[:])},
	}
}

func finish(verdict agent.Verdict) agent.Request {
	return agent.Request{Method: agent.MethodFinish, Job: job, Verdict: verdict}
}

// confirm does what the login user does.
func (m *fakeMachine) confirm(name, text string) {
	m.T.Helper()
	m.Write(filepath.Join(agent.ConfirmFolder(job), name+".new"), text)
	file := m.Path(filepath.Join(agent.ConfirmFolder(job), name))
	if err := os.Rename(file+".new", file); err != nil {
		m.T.Fatal(err)
	}
}

// waits checks that a switch waits to be confirmed.
func waits(t *testing.T, r agent.Response) {
	t.Helper()
	if r.Error != nil || r.Switch.Phase != agent.Waiting || r.Switch.Outcome != "" || r.Switch.Current != string(newSystem) || r.Switch.Left < 1 {
		t.Fatalf("%+v, %v", r.Switch, r.Error)
	}
}

// isOld checks that the machine is what it was, and that nothing is left of the switch.
func (m *fakeMachine) isOld() {
	m.T.Helper()
	if got := m.StorePath("/run/current-system"); got != string(oldSystem) {
		m.T.Errorf("it runs %q", got)
	}
	m.isDisarmed(profile{string(oldSystem), 1})
	if got := m.StorePath(currentConfiguration); got != string(oldBundle) {
		m.T.Errorf("the root is %q", got)
	}
}

func (m *fakeMachine) isDisarmed(boots profile) {
	m.T.Helper()
	if p := readProfile(m.Root); p != boots {
		m.T.Errorf("the profile is %+v", p)
	}
	if m.Exists(backRoot) {
		m.T.Error("the old system is still kept")
	}
	armed := map[string]bool{}
	for line := range strings.Lines(m.Read("/timers")) {
		f := strings.Fields(line)
		if f[0] == "arm" {
			armed[f[1]+".timer"] = true
		} else {
			delete(armed, f[1])
		}
	}
	if len(armed) > 0 {
		m.T.Errorf("armed: %v", armed)
	}
}

func TestASwitchThatIsConfirmedIsCommitted(t *testing.T) {
	m := newMachine(t).withSystemd()
	f := m.connect(locked("s1"))
	r, log := f.ask(guarded("switch"))
	waits(t, r)
	if log != "switching: test\ndone\n" {
		t.Errorf("the log is %q", log)
	}
	if got := m.StorePath(backRoot); got != string(oldSystem) {
		t.Errorf("what could be returned to is not kept: %q", got)
	}
	f.send(finish(""))
	m.confirm(tokenName, tokenText+"\n")
	r, _ = f.answer()
	if r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted || r.Switch.Generation != 2 || r.Switch.Trouble != "" {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	if calls := m.calls(); !slices.Equal(calls, []string{"1-new test", "nix-env --set 1-new", "1-new boot"}) {
		t.Errorf("ran %q", calls)
	}
	m.isDisarmed(profile{string(newSystem), 2})
	want := "arm ferry-rollback-deployment1 35s\narm ferry-rollback-deployment1-unconfirmed 35s\nstop ferry-rollback-deployment1.timer\nstop ferry-rollback-deployment1-unconfirmed.timer\n"
	if got := m.Read("/timers"); got != want {
		t.Errorf("the timers: %q", got)
	}
	if got := m.StorePath(currentConfiguration); got != string(newBundle) {
		t.Errorf("the root is %q", got)
	}
	if m.Exists(agent.ConfirmFolder(job)) {
		t.Error("the folder of the token is left")
	}
}

func TestATestThatIsConfirmedIsNotCommitted(t *testing.T) {
	m := newMachine(t).withSystemd()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("test"))
	waits(t, r)
	r, _ = f.ask(finish(agent.VerdictConfirm))
	if r.Error != nil || r.Switch.Outcome != agent.SwitchActivated || r.Switch.Current != string(newSystem) {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	m.isDisarmed(profile{string(oldSystem), 1})
}

func TestASwitchThatIsNotConfirmedGoesBack(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(m *fakeMachine)
		finish    agent.Request
		says      string
	}{
		"nobody comes":       {func(*fakeMachine) {}, finish(""), "ferry could not come back over a new connection within 1s"},
		"with a wrong token": {func(m *fakeMachine) { m.confirm(tokenName, "another secret\n") }, finish(""), "could not come back"},
		"under a wrong name": {func(m *fakeMachine) { m.confirm("bcdefghijklmnopq", tokenText) }, finish(""), "could not come back"},
		"by a link": {func(m *fakeMachine) {
			m.Write("/elsewhere", tokenText)
			m.Link(m.Path("/elsewhere"), filepath.Join(agent.ConfirmFolder(job), tokenName))
		}, finish(""), "could not come back"},
		"by a pipe that nobody writes to": {func(m *fakeMachine) {
			if err := syscall.Mkfifo(m.Path(filepath.Join(agent.ConfirmFolder(job), tokenName)), 0o600); err != nil {
				m.T.Fatal(err)
			}
		}, finish(""), "could not come back"},
		"by somebody else's file": {func(m *fakeMachine) {
			m.confirm(tokenName, tokenText)
			if err := os.Chown(m.Path(filepath.Join(agent.ConfirmFolder(job), tokenName)), 1234, -1); err != nil {
				m.T.Fatal(err)
			}
		}, finish(""), "could not come back"},
		"ferry asks for it": {func(*fakeMachine) {}, agent.Request{Method: agent.MethodFinish, Job: job, Verdict: agent.VerdictBack, Reason: "the page\x1b[2J is blank"}, "the page"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			f := m.connect(locked("s1"))
			begin := guarded("switch")
			begin.Switch.Limits.Confirm = 1
			r, _ := f.ask(begin)
			if r.Error != nil || r.Switch.Phase != agent.Waiting {
				t.Fatalf("%+v, %v", r.Switch, r.Error)
			}
			c.meanwhile(m)
			r, log := f.ask(c.finish)
			if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || !strings.Contains(r.Switch.Reason, c.says) || strings.Contains(r.Switch.Reason, "\x1b") {
				t.Errorf("%+v, %v", r.Switch, r.Error)
			}
			if !strings.Contains(log, "ferry: rolling back to old: ") || !strings.Contains(log, "ferry: this is old again\n") {
				t.Errorf("the log is %q", log)
			}
			if calls := m.calls(); !slices.Equal(calls, []string{"1-new test", "0-old test"}) {
				t.Errorf("ran %q", calls)
			}
			m.isOld()
		})
	}
}

func TestAnActivationThatFailsGoesBackOrHasChangedNothing(t *testing.T) {
	both, one := []string{"1-new test", "0-old test"}, []string{"1-new test"}
	for status, c := range map[int]struct {
		outcome agent.SwitchOutcome
		says    string
		ran     []string
	}{
		1: {agent.SwitchRefused, "refused (exit status 1)", one}, 100: {agent.SwitchRefused, "needs a reboot", one},
		2: {agent.SwitchRolledBack, "activation script failed", both}, 3: {agent.SwitchRolledBack, "systemd could not be reloaded", both},
		4: {agent.SwitchRolledBack, "units failed", both}, 101: {agent.SwitchRolledBack, "ended with status 101", both},
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			m := newMachine(t).withSystemd()
			m.Write("/control/status-test", strconv.Itoa(status)+"\n")
			m.Write("/control/old-is-well", "")
			r, _ := m.connect(locked("s1")).ask(guarded("switch"))
			if r.Error != nil || r.Switch.Phase != agent.Ended || r.Switch.Outcome != c.outcome || !strings.Contains(r.Switch.Reason, c.says) || r.Switch.Status != status {
				t.Errorf("%+v, %v", r.Switch, r.Error)
			}
			if calls := m.calls(); !slices.Equal(calls, c.ran) {
				t.Errorf("ran %q", calls)
			}
			m.isOld()
		})
	}
}

func TestUnitsThatFailAreJudgedByThePolicy(t *testing.T) {
	for name, c := range map[string]struct {
		policy        agent.Units
		before, after string
		status        int
		says          string // "": it is kept
	}{
		"a fresh one": {"", "old.service\n", "old.service\nnew.service\n", 4, "units failed: new.service"},
		"a fresh one that nobody complains about": {"no-new", "", "new.service\n", 0, "units failed: new.service"},
		"an old one":                   {"no-new", "old.service\n", "old.service\n", 4, ""},
		"an old one where none may be": {"none", "old.service\n", "old.service\n", 0, "units are in the failed state: old.service"},
		"any, and nobody cares":        {"ignore", "", "new.service\n", 4, ""},
		"one that is started again":    {"no-new", "", "", 4, "units failed (exit status 4)"},
		"none":                         {"none", "", "", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			m.Write("/control/failed", c.before)
			f := m.connect(locked("s1"))
			m.Write("/control/status-test", strconv.Itoa(c.status)+"\n")
			m.Write("/control/old-is-well", "")
			begin := guarded("test")
			begin.Switch.Units = c.policy
			// The units fail in the middle of the activation.
			m.Write("/control/wait", "")
			f.send(begin)
			until(t, "it activates", func() bool { return len(m.calls()) > 0 })
			m.Write("/control/failed", c.after)
			m.Write("/control/go", "")
			r, _ := f.answer()
			if r.Error == nil && r.Switch.Phase == agent.Waiting {
				r, _ = f.ask(finish(agent.VerdictConfirm))
			}
			if r.Error != nil {
				t.Fatal(r.Error)
			}
			if want := agent.SwitchActivated; c.says == "" && r.Switch.Outcome != want {
				t.Errorf("%+v", r.Switch)
			} else if c.says != "" && (r.Switch.Outcome != agent.SwitchRolledBack || !strings.HasPrefix(r.Switch.Reason, c.says)) {
				t.Errorf("%+v", r.Switch)
			}
		})
	}
}

func TestChecksAreAwaitedAfterTheConfirmation(t *testing.T) {
	for name, c := range map[string]struct {
		finish  agent.Request
		outcome agent.SwitchOutcome
		says    string
	}{
		"they go well":     {finish(agent.VerdictKeep), agent.SwitchCommitted, ""},
		"they do not":      {agent.Request{Method: agent.MethodFinish, Job: job, Verdict: agent.VerdictBack, Reason: "http: 503"}, agent.SwitchRolledBack, "http: 503"},
		"nobody tells how": {finish(""), agent.SwitchRolledBack, "did not say within 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			f := m.connect(locked("s1"))
			begin := guarded("switch")
			begin.Switch.Limits.Checks = 1
			begin.Switch.Awaits = "a name"
			r, _ := f.ask(begin)
			waits(t, r)
			if r.Switch.Awaits != "a name" {
				t.Errorf("the checks are %q", r.Switch.Awaits)
			}
			m.confirm(tokenName, tokenText)
			r, _ = f.ask(c.finish)
			if r.Error != nil || r.Switch.Outcome != c.outcome || !strings.Contains(r.Switch.Reason, c.says) {
				t.Errorf("%+v, %v", r.Switch, r.Error)
			}
		})
	}
}

func TestACommitThatFailsGoesBack(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.Write("/control/status-boot", "1\n")
	m.Write("/control/old-is-well", "")
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	r, _ = f.ask(finish(agent.VerdictConfirm))
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.From != agent.Committing ||
		!strings.Contains(r.Switch.Reason, "boot loader could not be written (exit status 1)") {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	want := []string{"1-new test", "nix-env --set 1-new", "1-new boot", "nix-env --switch-generation 1", "0-old boot", "0-old test"}
	if calls := m.calls(); !slices.Equal(calls, want) {
		t.Errorf("ran %q", calls)
	}
	m.isOld()
}

func TestNothingIsChangedWhereNoWayBackCanBeArmed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *fakeMachine)
		says   string
	}{
		"systemd makes no timer": {func(m *fakeMachine) { m.Write("/control/no-timers", "") }, "arm the rollback: "},
		"no system runs":         {func(m *fakeMachine) { _ = os.Remove(m.Path("/run/current-system")) }, "no /run/current-system"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			c.change(m)
			r, _ := m.connect(locked("s1")).ask(guarded("switch"))
			if r.Error != nil || r.Switch.Outcome != agent.SwitchRefused || !strings.Contains(r.Switch.Reason, c.says) || len(m.calls()) > 0 {
				t.Errorf("%+v, %v; ran %q", r.Switch, r.Error, m.calls())
			}
		})
	}
	m := newMachine(t)
	r, _ := m.connect(locked("s1")).ask(guarded("switch"))
	if r.Error == nil || r.Error.Kind != agent.KindUnsafe || len(m.calls()) > 0 {
		t.Errorf("without systemd: %+v, %v; ran %q", r.Switch, r.Error, m.calls())
	}
	unsafe := guarded("switch")
	unsafe.Switch.Unsafe = true
	f := newMachine(t).connect(locked("s2"))
	r, _ = f.ask(unsafe)
	waits(t, r)
	r, _ = f.ask(finish(agent.VerdictBack))
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack {
		t.Errorf("unsafe: %+v, %v", r.Switch, r.Error)
	}
}

// A guard that is killed is succeeded by the process that its agent, or else its timer, starts.
func TestAGuardThatIsKilledIsSucceeded(t *testing.T) {
	for name, c := range map[string]struct {
		phase   agent.Phase
		outcome agent.SwitchOutcome
	}{
		"while it activates":            {agent.Activating, agent.SwitchRolledBack},
		"while it waits":                {agent.Waiting, agent.SwitchRolledBack},
		"while it commits":              {agent.Committing, agent.SwitchCommitted},
		"while it commits, which fails": {agent.Committing, agent.SwitchRolledBack},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			if c.phase == agent.Committing && c.outcome == agent.SwitchRolledBack {
				m.Write("/control/status-boot", "1\n")
				m.Write("/control/old-is-well", "")
			}
			hold := func() { m.Write("/control/wait", "") }
			if c.phase == agent.Activating {
				hold()
			}
			f := m.connect(locked("s1"))
			f.send(guarded("switch"))
			folder := m.jobFolder(JobSwitch)
			if c.phase != agent.Activating {
				r, _ := f.answer()
				waits(t, r)
				if c.phase == agent.Committing {
					hold()
					f.send(finish(agent.VerdictConfirm))
				} else {
					f.send(finish(""))
				}
			}
			var state guardState
			until(t, "it is "+string(c.phase), func() bool {
				state, _ = readState(folder)
				return state.Phase == c.phase && (c.phase == agent.Waiting || strings.Contains(m.Read("/calls"), map[agent.Phase]string{agent.Activating: "test", agent.Committing: "boot"}[c.phase]))
			})
			if err := syscall.Kill(state.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.Write("/control/go", "")
			r, _ := f.answer()
			if r.Error != nil || r.Switch.Outcome != c.outcome {
				t.Errorf("%+v, %v", r.Switch, r.Error)
			}
			if c.outcome == agent.SwitchRolledBack {
				m.isOld()
			} else {
				m.isDisarmed(profile{string(newSystem), 2})
			}
		})
	}
}

func TestAnActivationThatHangsIsEndedAndGoneBackFrom(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.Program(string(newSystem)+"/bin/switch-to-configuration", "#!/bin/sh\ntrap '' TERM\nsleep 300 &\nwait\nsleep 300\n")
	// The way back takes longer than the new system may.
	m.Program(string(oldSystem)+"/bin/switch-to-configuration", strings.Replace(switchScript, "\n", "\nsleep 2\n", 1))
	begin := guarded("switch")
	begin.Switch.Limits.Activation = 1
	start := time.Now()
	r, _ := m.connect(locked("s1")).ask(begin)
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || !strings.Contains(r.Switch.Reason, "did not end within 1s") {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	m.isOld()
}

func TestSomebodyElsesSwitchIsNamed(t *testing.T) {
	m := newMachine(t)
	m.Write(switchLock, "")
	file, err := os.Open(m.Path(switchLock))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	got := awaitSwitchLock(t.Context(), m.Root, 0)
	if want := fmt.Sprintf("process %d (%s", os.Getpid(), filepath.Base(os.Args[0])); !strings.Contains(got, fmt.Sprintf("process %d (", os.Getpid())) || !strings.Contains(got, filepath.Base(os.Args[0])) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if got := awaitSwitchLock(t.Context(), m.Root, time.Minute); got != "" {
		t.Errorf("free: %q", got)
	}
}

// ferry attach comes without the lock, and finds what was begun last, or is at work although the clock says otherwise.
func TestASwitchCanBeAttachedToAndConfirmedFromThere(t *testing.T) {
	m := newMachine(t).withSystemd()
	earlier := filepath.Join(machine.RunFolder, "deployment0-switch")
	m.Write(earlier+"/"+jobFile, "{}")
	m.Write(earlier+"/"+statusFile, `{"outcome":"rolled back"}`)
	if tomorrow := time.Now().Add(24 * time.Hour); os.Chtimes(m.Path(earlier+"/"+jobFile), tomorrow, tomorrow) != nil {
		t.Fatal("the clock could not be set back")
	}
	first := m.connect(locked("s1"))
	r, log := first.ask(guarded("switch"))
	waits(t, r)
	second := m.connect(Options{Who: "alice@there"})
	r, again := second.ask(agent.Request{Method: agent.MethodSwitch})
	waits(t, r)
	if again != log || r.Switch.Job != job || r.Switch.Who != "alice@here" || r.Switch.Before != string(oldSystem) || r.Switch.Bundle != newBundle {
		t.Errorf("the log is %q, %+v", again, r.Switch)
	}
	r, _ = second.ask(finish(agent.VerdictConfirm))
	if r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	if err := os.RemoveAll(m.Path(earlier)); err != nil {
		t.Fatal(err)
	}
	if r, _ := second.ask(agent.Request{Method: agent.MethodSwitch}); r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
		t.Errorf("after its end: %+v, %v", r.Switch, r.Error)
	}
	empty := newMachine(t).connect(Options{})
	if r, _ := empty.ask(agent.Request{Method: agent.MethodSwitch}); r.Error == nil || r.Error.Kind != agent.KindNone {
		t.Errorf("nothing was deployed: %+v, %v", r.Switch, r.Error)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for start := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// A shutdown of the machine must not wait for a guard that waits; where it goes on, it is succeeded.
func TestAGuardThatWaitsLeavesWhenItIsToldTo(t *testing.T) {
	m := newMachine(t).withSystemd()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	state, err := readState(m.jobFolder(JobSwitch))
	if err != nil {
		t.Fatal(err)
	}
	f.send(finish(""))
	if err := syscall.Kill(state.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r, _ = f.answer()
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.Reason != "the process that watched over the switch was killed" {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	m.isOld()
}

// One of them may be killed before it has come back, and must not take the other's confirmation with it.
func TestASwitchThatTwoFollowIsConfirmedByEither(t *testing.T) {
	m := newMachine(t).withSystemd()
	first := m.connect(locked("s1"))
	r, _ := first.ask(guarded("switch"))
	waits(t, r)
	second := m.connect(Options{Who: "alice@there"})
	r, _ = second.ask(agent.Request{Method: agent.MethodSwitch, Token: &agent.Token{Name: "bcdefghijklmnopq", Hash: strings.Repeat("0", 64)}})
	waits(t, r)
	first.send(finish(""))
	m.confirm(tokenName, tokenText)
	r, _ = first.answer()
	if r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
}

func TestAVerdictToGoBackStands(t *testing.T) {
	m := newMachine(t).withSystemd()
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	// The guard is held up before it sees what was said.
	state, err := readState(m.jobFolder(JobSwitch))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(state.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.send(agent.Request{Method: agent.MethodFinish, Job: job, Verdict: agent.VerdictBack, Reason: "the page is blank"})
	until(t, "it is said", func() bool { return readVerdict(m.jobFolder(JobSwitch)).Verdict != "" })
	second := m.connect(Options{Who: "alice@there"})
	second.send(finish(agent.VerdictKeep))
	time.Sleep(100 * time.Millisecond)
	if err := syscall.Kill(state.Pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*ferry{f, second} {
		if r, _ := f.answer(); r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.Reason != "the page is blank" {
			t.Errorf("%+v, %v", r.Switch, r.Error)
		}
	}
	m.isOld()
	if e := readJournal(m.Root, 1); len(e) != 1 || e[0].Reason != "the page is blank" {
		t.Errorf("the journal says %+v", e)
	}
}

// What runs already is committed, and not only installed for the next boot.
func TestTheJournalTellsACommitFromAnInstallation(t *testing.T) {
	for name, c := range map[string]struct {
		runs nix.StorePath
		want agent.JournalOutcome
	}{"it runs": {newSystem, agent.JournalCommitted}, "another runs": {oldSystem, agent.JournalInstalled}} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			if err := os.Remove(m.Path("/run/current-system")); err != nil {
				t.Fatal(err)
			}
			m.Link(string(c.runs), "/run/current-system")
			if r, _ := m.connect(locked("s1")).ask(commitment("boot")); r.Error != nil || r.Commit.Status != 0 {
				t.Fatalf("%+v, %v", r.Commit, r.Error)
			}
			if e := readJournal(m.Root, 1); len(e) != 1 || e[0].Outcome != c.want || e[0].Reason != "" {
				t.Errorf("the journal says %+v", e)
			}
		})
	}
}

// Those that a system has are restarted, in the order in which one needs the other.
func TestTheUnitsOfTheNetworkAreFound(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"sshd.service", "network-addresses-eth0.service", "networking-scripted.target", "networking.target", "greeter.service"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(os.DevNull, filepath.Join(dir, "firewall.service")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dhcpcd.service.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := []string{"networking-scripted.target", "network-addresses-eth0.service", "dhcpcd.service", "sshd.service"}
	if got := unitsLike(dir, networkUnits[:]); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
