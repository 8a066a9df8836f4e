package deploy_test

import (
	"strings"
	"testing"

	"ferry/internal/lab"
)

// TestASilentLinkIsNoticed lets the connection go silent in the middle of a ship and of an activation, and come back after
// ferry has noticed: by freezing what passes, and by pulling the cable.
func TestASilentLinkIsNoticed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stage  stage
		silent func(r *rehearsal)
		back   func(r *rehearsal)
	}{
		"frozen in the middle of a ship": {onWire("ship", shipped/2), func(*rehearsal) {}, func(r *rehearsal) {
			// Nothing that was on its way may still arrive: a network that forgets a connection is meant.
			r.relay.Cut()
			r.relay.Thaw()
		}},
		"unplugged in the middle of an activation": {onTarget("activate"),
			func(r *rehearsal) {
				if err := r.target.LinkDown(r.t.Context()); err != nil {
					r.t.Fatal(err)
				}
			},
			func(r *rehearsal) {
				if err := r.target.LinkUp(r.t.Context()); err != nil {
					r.t.Fatal(err)
				}
				r.onTarget("rm", "/run/hold-activate")
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRehearsal(t)
			if c.stage.changes {
				// The relay has ends that the cable knows nothing of.
				r.inventory(r.node("alice@" + r.target.Name()))
			}
			greeting := r.rewrite()
			c.stage.begin(r)
			p := r.person("deploy")
			p.sees("web: password for sudo: ")
			p.types(lab.Password + "\n")
			r.await(c.stage)
			c.silent(r)
			p.sees("web: note: connection lost (")
			p.sees("connecting again")
			c.back(r)
			o := p.ends()
			if o.status != 0 || strings.Count(o.errors, "password for sudo") != 1 {
				t.Errorf("status %d", o.status)
			}
			o.says(t, "web | activate: one\n", "web | activate: two\n", "web: done: generation 2")
			if got := r.onTarget("cat", "/etc/greeting"); got != greeting {
				t.Errorf("the target greets with %q, want %q", got, greeting)
			}
			r.nothingRuns()
		})
	}
}

// TestAPowerCutInTheMiddleOfAnActivation comes back with the system that ran before, and what was begun is not begun again.
func TestAPowerCutInTheMiddleOfAnActivation(t *testing.T) {
	t.Parallel()
	r := newRehearsal(t)
	before := r.state()
	r.rewrite()
	stage := onTarget("activate")
	stage.begin(r)
	_, ended := r.background("deploy", "--sudo-password-file", r.password)
	r.await(stage)
	if err := r.target.Kill(); err != nil {
		t.Fatal(err)
	}
	r.relay.Cut()
	if err := r.target.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended().fails(t, 1, "web: activate: the connection was lost, and the target was restarted or deployed to by someone else before it was there again; "+
		"it runs and boots what it did before", "run the same command again")
	after := r.state()
	before.greeter = after.greeter
	r.want(after, before)
	r.nothingRuns()
	r.deploy().says(t, "web: done: generation 2")
}

// TestAConnectionThatDoesNotComeBack ends after some minutes: what has begun there is not known to have worked, and the
// target keeps at it.
func TestAConnectionThatDoesNotComeBack(t *testing.T) {
	t.Parallel()
	r := newRehearsal(t)
	before, greeting := r.state(), r.rewrite()
	stage := onTarget("activate")
	stage.begin(r)
	_, ended := r.background("deploy", "--sudo-password-file", r.password)
	r.await(stage)
	r.relay.Close()
	ended().fails(t, 5, "web: activate: ssh alice@relay", "it goes on there; its log on the target: /run/ferry/",
		"back to what ran before, on the target: sudo "+before.runs+"/bin/switch-to-configuration test")
	stage.release(r)
	r.nothingRuns()
	if got := r.onTarget("cat", "/etc/greeting"); got != greeting {
		t.Errorf("the target greets with %q, want %q", got, greeting)
	}
	if after := r.state(); after.boots != before.boots || after.profile != before.profile {
		t.Errorf("something was committed: %+v", after)
	}
}
