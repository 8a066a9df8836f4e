package action

import (
	"slices"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
)

func TestParseAction(t *testing.T) {
	for s, commits := range map[string]bool{"switch": true, "boot": true, "test": false, "dry-activate": false} {
		a, err := Parse(s)
		if err != nil || a.Commits() != commits || (a.Activates() == "") != (s == "boot") {
			t.Errorf("%s: %v, %v", s, a, err)
		}
	}
	for _, s := range []string{"", "Switch", "switch ", "rollback"} {
		if a, err := Parse(s); err == nil {
			t.Errorf("%q is %q", s, a)
		}
	}
}

// A target that cannot go back by itself is said to be one before anything is shipped, unless the user wants that.

func TestIsDoneOnlyWhenEverythingIsAsAsked(t *testing.T) {
	all := agent.Facts{Current: agenttest.NewSystem, Profile: agenttest.NewSystem, Bundle: agenttest.NewBundle, Committed: agenttest.NewSystem}
	for name, c := range map[string]struct {
		change func(*agent.Facts)
		same   []Action // the system needs nothing
		done   []Action // nor does the bundle
	}{
		"as asked":               {func(*agent.Facts) {}, []Action{Switch, Boot, Test}, []Action{Switch, Boot, Test}},
		"another bundle":         {func(f *agent.Facts) { f.Bundle = agenttest.OldBundle }, []Action{Switch, Boot, Test}, []Action{Test}},
		"runs another":           {func(f *agent.Facts) { f.Current = agenttest.OldSystem }, []Action{Boot}, []Action{Boot}},
		"boots another":          {func(f *agent.Facts) { f.Profile = agenttest.OldSystem }, []Action{Test}, []Action{Test}},
		"never committed":        {func(f *agent.Facts) { f.Committed, f.Bundle = "", "" }, nil, nil},
		"committed another":      {func(f *agent.Facts) { f.Committed, f.Bundle = agenttest.OldSystem, agenttest.OldBundle }, nil, nil},
		"nothing is known of it": {func(f *agent.Facts) { *f = agent.Facts{} }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			facts := all
			c.change(&facts)
			for _, action := range []Action{Switch, Boot, Test, DryActivate} {
				if got := action.HasSystem(facts, agenttest.NewSystem, false); got != slices.Contains(c.same, action) {
					t.Errorf("%s: the same system: %v", action, got)
				}
				if got := action.IsDone(facts, agenttest.NewBundle, agenttest.NewSystem, false); got != slices.Contains(c.done, action) {
					t.Errorf("%s: done: %v", action, got)
				}
			}
		})
	}
}
