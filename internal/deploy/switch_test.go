package deploy

import (
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/health"
	"ferry/internal/target"
)

// The target may say once more that it waits, before it has seen what became of the checks.
func TestTheStepsOfASwitchDoNotGoBackwards(t *testing.T) {
	server := httptest.NewServer(nil)
	t.Cleanup(server.Close)
	for name, c := range map[string]struct {
		status int
		want   []Step
		failed bool
	}{
		"checks that pass":      {404, []Step{Activate, Confirm, Check, Commit}, false},
		"a check that does not": {200, []Step{Activate, Confirm, Check}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var steps []Step
			d := &deployment{Visit: &Visit{Session: Session{Observe: func(e Event) {
				if e.Kind == Started {
					steps = append(steps, e.Step)
				}
			}}}}
			local, err := target.ParseAddress("local")
			if err != nil {
				t.Fatal(err)
			}
			d.Link = newLink(nil, []target.Address{local}, agent.Options{}, func(string) {})
			s := d.newSwitching("job", agenttest.NewSystem, agent.Facts{})
			s.checks = health.Checks{HTTP: []health.HTTP{{URL: server.URL, Status: c.status, From: health.Here, Timeout: 1}}}
			s.enter(Activate)
			s.phase(agent.Waiting)
			verdict, _ := s.check(t.Context(), agent.Waiting, time.Minute)
			s.phase(agent.Waiting)
			if !c.failed {
				s.phase(agent.Committing)
			}
			if !slices.Equal(steps, c.want) || (verdict == agent.VerdictBack) != c.failed || c.failed && s.step != Check {
				t.Errorf("the steps are %q, the verdict is %q in the step %q", steps, verdict, s.step)
			}
		})
	}
}
