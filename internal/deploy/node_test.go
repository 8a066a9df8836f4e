package deploy

import (
	"context"
	"strconv"
	"testing"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/target"
)

// TestMain lets this test program act as ssh.
func TestMain(m *testing.M) {
	over := func(act func(dir string, wire *agent.Wire)) agenttest.Act {
		return func(dir string, wire *agent.Wire, _ []string) (int, bool) {
			act(dir, wire)
			return 0, false
		}
	}
	agenttest.Main(m, map[string]agenttest.Act{
		"answers": func(dir string, wire *agent.Wire, words []string) (int, bool) {
			return fakeAnswers(dir, wire, words), true
		},
		"lacks": over(fakeDisk), "switches": over(fakeSwitch), "checks": over(fakeCheck),
	}, fakeDial)
}

// fakeNode is a deployment to a target that goes through a plan.
type fakeNode struct {
	*deployment
	*agenttest.Target
	asked  int
	events []string
}

func newFakeNode(t *testing.T, act action.Action, plan ...string) *fakeNode {
	t.Helper()
	n := &fakeNode{Target: agenttest.New(t, plan...)}
	runner := new(run.Runner)
	v, err := session.Session{
		Nix: &nix.Client{Runner: runner}, Dialer: &target.Dialer{Runner: runner}, Roots: session.Roots{Dir: t.TempDir()},
		Password: func(_ context.Context, _, _ string, attempt int) ([]byte, error) {
			n.asked++
			return []byte("secret" + strconv.Itoa(attempt)), nil
		},
		Observe: func(e session.Event) {
			if e.Kind == session.Line || e.Kind == session.Note {
				n.events = append(n.events, string(e.Kind)+" "+e.Text)
			}
		},
	}.Visit(&inventory.Inventory{File: "/ferry.nix"}, inventory.Node{Name: "pi", Target: "alice@pi"}, session.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	v.Job = "job12345"
	n.deployment = &deployment{Visit: v, opts: Options{Action: act}}
	t.Cleanup(v.Close)
	return n
}

var ready = session.Built{Bundle: agenttest.NewBundle, Toplevel: agenttest.NewSystem}
