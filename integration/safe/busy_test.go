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
