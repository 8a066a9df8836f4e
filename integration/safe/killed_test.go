package safe_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// signals sends a signal to the processes of the agent's program on the target that do what the word says; one there has to be.
func (x *trial) signals(signal, word string) {
	x.T.Helper()
	x.OnTarget("pkill", "-"+signal, "-f", "^/var/lib/ferry/(agent|armed)-[^ ]* "+word+" ")
}

func (x *trial) killsAgent() { x.T.Helper(); x.signals("KILL", "serve") }
func (x *trial) killsGuard() { x.T.Helper(); x.signals("KILL", "job") }

// until waits until what look gives contains text.
func (x *trial) until(what string, look func() string, text string) {
	x.T.Helper()
	last := ""
	x.T.Cleanup(func() {
		if x.T.Failed() {
			x.T.Logf("%s: %q is looked for in %q", what, text, last)
		}
	})
	site.Until(x.T, what, func() bool {
		last = look()
		return strings.Contains(last, text)
	})
}

// TestFerryIsKilledInEachPhase kills it with SIGKILL, which it cannot notice: the target goes back, unless it was confirmed.
func TestFerryIsKilledInEachPhase(t *testing.T) {
	t.Parallel()
	eachLogin(t, func(t *testing.T, x *trial) {
		for _, phase := range []site.Stage{armed, activate, confirm, commit, disarm} {
			t.Run(phase.Name, func(t *testing.T) {
				x := x.in(t)
				before, greeting := x.State(), x.rewrite("")
				confirmed := phase.Name == "commit" || phase.Name == "disarm"
				var flags []string
				if !confirmed {
					flags = []string{quickly}
				}
				cmd, ended := x.begin(phase, flags...)
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				ended()
				if phase.Name == "confirm" {
					// ferry's own ssh lives on without it, and would confirm.
					x.goesBack()
				}
				x.goOn(phase)
				if confirmed {
					x.ends("committed")
					x.isNew(greeting)
				} else {
					x.goesBack()
					x.is(before)
				}
			})
		}
		greeting := x.rewrite("")
		x.Deploy()
		x.isNew(greeting)
	})
}

// TestAnAgentThatIsKilledIsStartedAgain kills the process that ferry talks to; the switch itself goes on.
func TestAnAgentThatIsKilledIsStartedAgain(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	for _, phase := range []site.Stage{armed, activate, confirm, commit, disarm} {
		t.Run(phase.Name, func(t *testing.T) {
			x := x.in(t)
			greeting := x.rewrite("")
			_, ended := x.begin(phase)
			x.killsAgent()
			x.goOn(phase)
			if o := ended(); o.Status != 0 {
				t.Errorf("status %d", o.Status)
			}
			x.isNew(greeting)
		})
	}
}

// TestAGuardThatIsKilledIsSucceeded kills the process on the target that switches, in each phase. The agent that follows it
// starts another one, which goes back, or forward if the new system was confirmed.
func TestAGuardThatIsKilledIsSucceeded(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	for _, c := range []struct {
		phase  site.Stage
		status int
		says   string
	}{
		{arm, 1, "web: activate: the process that was to switch was killed before it began; nothing has changed"},
		{armed, 1, "web: activate: the process that was to switch was killed before it began; nothing has changed"},
		{activate, 4, "web: activate: the process that watched over the switch was killed; the target rolled back to "},
		{confirm, 4, "web: confirm: the process that watched over the switch was killed; the target rolled back to "},
		{commit, 0, "web: done: "},
		{disarm, 0, "web: done: "},
	} {
		t.Run(c.phase.Name, func(t *testing.T) {
			x := x.in(t)
			before, greeting := x.State(), x.rewrite("")
			_, ended := x.begin(c.phase)
			x.killsGuard()
			x.goOn(c.phase)
			o := ended()
			if o.Status != c.status {
				t.Errorf("status %d, want %d", o.Status, c.status)
			}
			o.Says(t, c.says)
			if c.status == 0 {
				x.isNew(greeting)
			} else {
				x.is(before)
			}
		})
	}
	t.Run("while it goes back", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		// The new system lets itself through, and the old one is held up.
		x.rewrite(`system.activationScripts = { broken = "false"; a-through = "rm /run/hold-activate"; z-held = "rm /run/at-activate; touch /run/hold-activate"; };`)
		activate.Begin(x.Rehearsal)
		_, ended := x.Background("deploy", "--sudo-password-file", x.Password)
		x.until("the old system is activated", func() string {
			return x.OnTarget("sh", "-c", "! grep -q '\"rolling back\"' "+folder+"/state || ls /run/at-activate 2>/dev/null; true")
		}, "/run/at-activate")
		x.killsGuard()
		x.goOn(activate)
		if o := ended(); o.Status != 4 {
			t.Errorf("status %d", o.Status)
		}
		x.is(before)
	})
}

// TestATimerGoesBackWhereNobodyIsLeft kills ferry, its agent and the guard: the timer that was armed before anything changed
// starts the process that goes back, or forward if the new system was confirmed.
func TestATimerGoesBackWhereNobodyIsLeft(t *testing.T) {
	t.Parallel()
	for _, phase := range []site.Stage{activate, confirm, commit} {
		t.Run(phase.Name, func(t *testing.T) {
			t.Parallel()
			x := newTrial(t, "alice", lab.Options{})
			before, greeting := x.State(), x.rewrite("")
			cmd, ended := x.begin(phase, "--confirm-timeout=15s", "--activation-timeout=15s")
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			ended()
			// While it follows the switch it does not notice that ferry is gone. Later it does, and may have left by itself.
			x.OnTarget("sh", "-c", "pkill -KILL -f '^/var/lib/ferry/agent-[^ ]* serve ' || true")
			x.killsGuard()
			x.goOn(phase)
			if phase.Name == "commit" {
				x.ends("committed")
				x.isNew(greeting)
			} else {
				x.goesBack()
				x.is(before)
			}
		})
	}
}

// TestAGuardThatHangsIsReplaced stops the guard: when it should have ended long ago, the timer's process kills it and goes on.
func TestAGuardThatHangsIsReplaced(t *testing.T) {
	t.Parallel()
	for _, phase := range []site.Stage{activate, confirm, commit} {
		t.Run(phase.Name, func(t *testing.T) {
			t.Parallel()
			x := newTrial(t, "alice", lab.Options{})
			before, greeting := x.State(), x.rewrite("")
			_, ended := x.begin(phase, "--confirm-timeout=15s", "--activation-timeout=15s")
			x.signals("STOP", "job")
			x.goOn(phase)
			o := ended()
			if phase.Name == "commit" {
				o.Says(t, "web: done: ")
				x.isNew(greeting)
				return
			}
			o.Says(t, "the process that watched over the switch was killed; the target rolled back to ")
			if o.Status != 4 {
				t.Errorf("status %d", o.Status)
			}
			x.is(before)
		})
	}
}
