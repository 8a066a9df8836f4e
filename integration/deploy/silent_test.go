package deploy_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestASilentLinkIsNoticed lets the connection go silent in the middle of a ship and of an activation, and come back after
// ferry has noticed: by freezing what passes, and by pulling the cable.
func TestASilentLinkIsNoticed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stage  site.Stage
		silent func(r *site.Rehearsal)
		back   func(r *site.Rehearsal)
	}{
		"frozen in the middle of a ship": {site.OnWire("ship", site.Shipped/2), func(*site.Rehearsal) {}, func(r *site.Rehearsal) {
			// Nothing that was on its way may still arrive: a network that forgets a connection is meant.
			r.Relay.Cut()
			r.Relay.Thaw()
		}},
		"unplugged in the middle of an activation": {site.OnTarget("activate"),
			func(r *site.Rehearsal) {
				if err := r.Target.LinkDown(r.T.Context()); err != nil {
					r.T.Fatal(err)
				}
			},
			func(r *site.Rehearsal) {
				if err := r.Target.LinkUp(r.T.Context()); err != nil {
					r.T.Fatal(err)
				}
				r.OnTarget("rm", "/run/hold-activate")
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := site.NewRehearsal(t)
			if c.stage.Changes {
				// The relay has ends that the cable knows nothing of.
				r.Inventory(r.Node("alice@" + r.Target.Name()))
			}
			greeting := r.Rewrite()
			c.stage.Begin(r)
			p := r.Person("deploy")
			p.Sees("web: password for sudo: ")
			p.Types(lab.Password + "\n")
			r.Await(c.stage)
			c.silent(r)
			p.Sees("web: note: connection lost (")
			p.Sees("connecting again")
			c.back(r)
			o := p.Ends()
			if o.Status != 0 || strings.Count(o.Errors, "password for sudo") != 1 {
				t.Errorf("status %d", o.Status)
			}
			o.Says(t, "web | activate: one\n", "web | activate: two\n", "web: done: generation 2")
			if got := r.OnTarget("cat", "/etc/greeting"); got != greeting {
				t.Errorf("the target greets with %q, want %q", got, greeting)
			}
			r.NothingRuns()
		})
	}
}

// TestAPowerCutInTheMiddleOfAnActivation comes back with the system that ran before, and what was begun is not begun again.
func TestAPowerCutInTheMiddleOfAnActivation(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	before := r.State()
	r.Rewrite()
	stage := site.OnTarget("activate")
	stage.Begin(r)
	_, ended := r.Background("deploy", "--sudo-password-file", r.Password)
	r.Await(stage)
	if err := r.Target.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Relay.Cut()
	if err := r.Target.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended().Fails(t, 4, "web: activate: the target was restarted in the middle; it runs and boots what it did before", "run the same command again")
	after := r.State()
	before.Greeter = after.Greeter
	r.Want(after, before)
	r.NothingRuns()
	r.Deploy().Says(t, "web: done: generation 2")
}

// TestAConnectionThatDoesNotComeBack ends after some minutes: what has become of the target is not known here, and the target
// itself goes back.
func TestAConnectionThatDoesNotComeBack(t *testing.T) {
	t.Parallel()
	r := site.NewRehearsal(t)
	before := r.State()
	r.Rewrite()
	stage := site.OnTarget("activate")
	stage.Begin(r)
	_, ended := r.Background("deploy", "--sudo-password-file", r.Password, "--confirm-timeout", "3s")
	r.Await(stage)
	r.Relay.Close()
	ended().Fails(t, 5, "web: activate: ssh alice@relay", "it rolls back by itself unless it is confirmed in time: ferry attach web follows it again",
		"its log on the target: /run/ferry/")
	stage.Release(r)
	r.NothingRuns()
	after := r.State()
	before.Greeter = after.Greeter
	r.Want(after, before)
}
