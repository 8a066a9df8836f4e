package safe_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// other is the same person in another folder, with another configuration, and the same target.
func (x *trial) other() *trial {
	s := *x.Site
	s.Project += "-other"
	s.Inventory(s.Node(x.login + "@" + s.Target.Name()))
	return &trial{&site.Rehearsal{Site: &s, Relay: x.Relay}, x.login, x.turn}
}

// TestTwoDeploymentsAtOnceAreOne starts two at the same moment: one is done, the other told of it.
func TestTwoDeploymentsAtOnceAreOne(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	y := x.other()
	greetings := map[int]string{}
	greetings[0] = x.rewrite("")
	greetings[1] = y.rewrite("")
	_, first := x.Background("deploy", "--sudo-password-file", x.Password)
	_, second := y.Background("deploy", "--sudo-password-file", y.Password)
	done := -1
	for i, o := range []site.Outcome{first(), second()} {
		switch o.Status {
		case 0:
			if done >= 0 {
				// One was over before the other had connected.
				t.Log("one after the other")
			}
			done = i
		case 1:
			o.Fails(t, 1, "web: connect: root@", "wait until that is done, then run this again")
		default:
			t.Errorf("status %d", o.Status)
		}
	}
	if done < 0 {
		t.Fatal("neither is done")
	}
	x.isSettled()
	if got := x.State(); got.Greeting != greetings[0] && got.Greeting != greetings[1] || got.Boots != got.Runs || got.Profile != got.Runs {
		t.Errorf("the target is left as %+v", got)
	}
}

// TestATargetThatWaitsForSomeoneElseIsNotDeployedTo has a ferry that was killed and a target that waits for it: that counts as
// a deployment, until it has gone back.
func TestATargetThatWaitsForSomeoneElseIsNotDeployedTo(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	before := x.State()
	x.rewrite("")
	cmd, ended := x.begin(activate, "--confirm-timeout=30s")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended()
	x.goOn(activate)
	x.Await(confirm)
	y := x.other()
	greeting := y.rewrite("")
	y.deploys().Fails(t, 1, "web: connect: root@", "wait until that is done, then run this again")
	x.goesBack()
	x.is(before)
	y.Deploy()
	y.isNew(greeting)
}

// TestSomeoneElsesSwitchIsWaitedFor holds the lock that NixOS's own switch-to-configuration takes: for a moment, and for long.
func TestSomeoneElsesSwitchIsWaitedFor(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	before, greeting := x.State(), x.rewrite("")
	x.OnTarget("sh", "-c", "/usr/bin/setsid -f flock /run/nixos/switch-to-configuration.lock sleep 60 >/dev/null 2>&1")
	x.deploys().Fails(t, 1, "web: activate: another switch-to-configuration is at work on the target: process ", "the whole log is on the target")
	x.is(before)
	_, ended := x.Background("deploy", "--sudo-password-file", x.Password)
	x.until("the switch waits", func() string { return state(x.Rehearsal) }, `"phase":"arming"`)
	x.OnTarget("sh", "-c", "pkill -x flock; pkill -f 'sleep 60$'; true")
	if o := ended(); o.Status != 0 || !strings.Contains(o.Errors, "web: done: ") {
		t.Errorf("status %d", o.Status)
	}
	x.isNew(greeting)
}

// locks holds NixOS's lock for a moment.
func (x *trial) locks() {
	x.T.Helper()
	x.OnTarget("sh", "-c", `rm -f /run/held; /usr/bin/setsid -f flock /run/nixos/switch-to-configuration.lock sh -c 'touch /run/held; sleep 4' >/dev/null 2>&1
until [ -e /run/held ]; do sleep 0.05; done`)
}

// TestASwitchByHandForAMomentIsWaitedFor holds that lock where nobody looks at it any more: after the timer is armed, before the
// commit, and by the bundle's own script. The switch-to-configuration of today does not wait for it.
func TestASwitchByHandForAMomentIsWaitedFor(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	for _, phase := range []site.Stage{armed, confirm} {
		t.Run(phase.Name, func(t *testing.T) {
			x := x.in(t)
			greeting := x.rewrite("")
			_, ended := x.begin(phase)
			x.locks()
			x.goOn(phase)
			o := ended()
			if o.Status != 0 {
				t.Errorf("status %d", o.Status)
			}
			o.Says(t, "ferry: waiting for another switch-to-configuration: ")
			x.isNew(greeting)
		})
	}
	x.locks()
	if said := x.OnTarget("sh", "-c", x.Bundle()+"/nixos-rebuild-switch boot 2>&1"); !strings.Contains(said, "another switch may be under way") {
		t.Errorf("the script says %s", said)
	}
}
