package safe_test

import (
	"strings"
	"testing"

	"ferry/internal/lab"
)

// TestASuccessorThatIsKilledIsStartedAgain kills ferry, its agent, the guard, and then the process that the timer starts.
func TestASuccessorThatIsKilledIsStartedAgain(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	before := x.State()
	x.rewrite("")
	cmd, ended := x.begin(activate, "--activation-timeout=10s")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended()
	x.killsAgent()
	x.killsGuard()
	// The old system is held up as the new one was.
	x.OnTarget("rm", "/run/at-activate")
	x.Await(activate)
	x.signals("KILL", "rollback")
	x.goOn(activate)
	x.goesBack()
	x.is(before)
}

// TestATargetThatCannotGoBackGoesOnTrying has an old system that cannot be activated any more: ferry is told that the target goes
// on, and it is back as soon as that is possible.
func TestATargetThatCannotGoBackGoesOnTrying(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	x.rewrite(`system.activationScripts.breaks = "[ ! -e /run/break ]";`)
	x.Deploy()
	before := x.State()
	x.rewrite(`system.activationScripts = { break = "touch /run/break"; broken = "false"; };`)
	o := x.deploys()
	o.Fails(t, 5, "web: activate: the activation script failed (exit status 2): broken; the target could not roll back, it runs nixos-system-web-",
		"ferry attach web shows how it goes", "the whole log")
	o.Says(t, "; trying again in 10s", ", and tries again in ")
	if armed := x.OnTarget("sh", "-c", "systemctl list-timers --no-legend --full 'ferry-rollback-*'; ls /var/lib/ferry"); !strings.Contains(armed, "-again-2.timer") || !strings.Contains(armed, "armed-") {
		t.Errorf("armed: %s", armed)
	}
	if said := x.Ferry("status", "--sudo-password-file", x.Password).Out; !strings.Contains(said, "it could not roll back, and keeps trying") {
		t.Errorf("ferry status says %s", said)
	}
	x.OnTarget("rm", "/run/break")
	x.OnTarget("sh", "-c", `echo '{"verdict":"back"}' >`+folder+`/verdict`)
	x.goesBack()
	x.is(before)
	x.deployed("")
}

// TestASwitchThatNobodyMindsIsSettledFirst kills everything that watches over a switch; long before the timer elapses another ferry
// comes, and the bundle's own script.
func TestASwitchThatNobodyMindsIsSettledFirst(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	before := x.State()
	orphan := func() {
		x.rewrite("")
		cmd, ended := x.begin(confirm, "--confirm-timeout=10m")
		x.dies(cmd, ended)
		x.OnTarget("sh", "-c", "pkill -KILL -f '^/var/lib/ferry/agent-[^ ]* (serve|job) '; true")
		x.goOn(confirm)
	}
	orphan()
	script := before.Bundle + "/nixos-rebuild-switch"
	if said := x.OnTarget("sh", "-c", script+" 2>&1"); !strings.Contains(said, "this system is running already") {
		t.Errorf("the script says %s", said)
	}
	if e := x.lastEntry(); e.Outcome != "rolled back" {
		t.Errorf("the journal says %+v", e)
	}
	x.is(before)
	orphan()
	y := x.other()
	greeting := y.rewrite("")
	y.Deploy()
	y.isNew(greeting)
}

// TestASwitchByHandIsLeftAsItIs has somebody else switch to a third system while a deployment waits to be confirmed.
func TestASwitchByHandIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	third := x.State()
	x.deployed("")
	before := x.State()
	for name, flags := range map[string][]string{"before the commit": nil, "before going back": {quickly}} {
		t.Run(name, func(t *testing.T) {
			x := x.in(t)
			x.rewrite("")
			_, ended := x.begin(confirm, flags...)
			x.OnTarget(third.Runs+"/bin/switch-to-configuration", "test")
			if len(flags) == 0 {
				x.goOn(confirm)
			}
			o := ended()
			if len(flags) > 0 {
				x.goOn(confirm)
			}
			if o.Status != 5 || !strings.Contains(o.Errors, "somebody else has switched the target to "+nameOf(third.Runs)) {
				t.Errorf("status %d", o.Status)
			}
			x.isSettled()
			now := x.State()
			want := before
			want.Runs, want.Greeting, want.Greeter = third.Runs, third.Greeting, now.Greeter
			x.Want(now, want)
			x.OnTarget(before.Runs+"/bin/switch-to-configuration", "test")
		})
	}
	x.deployed("")
}

// nameOf is a store path's name.
func nameOf(path string) string { _, name, _ := strings.Cut(path, "-"); return name }
