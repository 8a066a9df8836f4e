package deploy

import (
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/health"
	"ferry/internal/inventory"
	"ferry/internal/session"
)

// The target may say once more that it waits, before it has seen what became of the checks.
func TestTheStepsOfASwitchDoNotGoBackwards(t *testing.T) {
	server := httptest.NewServer(nil)
	t.Cleanup(server.Close)
	for name, c := range map[string]struct {
		status int
		want   []session.Step
		failed bool
	}{
		"checks that pass":      {404, []session.Step{session.Activate, session.Confirm, session.Check, session.Commit}, false},
		"a check that does not": {200, []session.Step{session.Activate, session.Confirm, session.Check}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var steps []session.Step
			v, err := session.Session{Observe: func(e session.Event) {
				if e.Kind == session.Started {
					steps = append(steps, e.Step)
				}
			}}.Visit(nil, inventory.Node{Target: "local"}, session.Exclusive)
			if err != nil {
				t.Fatal(err)
			}
			d := &deployment{Visit: v}
			s := d.newSwitching("job", agenttest.NewSystem, agent.Facts{})
			s.checks = health.Checks{HTTP: []health.HTTP{{URL: server.URL, Status: c.status, From: health.Here, Timeout: 1}}}
			s.enter(session.Activate)
			s.phase(agent.Waiting)
			verdict, _ := s.check(t.Context(), agent.Waiting, time.Minute)
			s.phase(agent.Waiting)
			if !c.failed {
				s.phase(agent.Committing)
			}
			if !slices.Equal(steps, c.want) || (verdict == agent.VerdictBack) != c.failed || c.failed && s.step != session.Check {
				t.Errorf("the steps are %q, the verdict is %q in the step %q", steps, verdict, s.step)
			}
		})
	}
}
