package deploy

import (
	"slices"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/inventory"
)

func TestIsDoneOnlyWhenEverythingIsAsAsked(t *testing.T) {
	all := agent.Facts{Current: newSystem, Profile: newSystem, Bundle: newBundle, Committed: newSystem}
	for name, c := range map[string]struct {
		change func(*agent.Facts)
		same   []Action // the system needs nothing
		done   []Action // nor does the bundle
	}{
		"as asked":               {func(*agent.Facts) {}, []Action{Switch, Boot, Test}, []Action{Switch, Boot, Test}},
		"another bundle":         {func(f *agent.Facts) { f.Bundle = oldBundle }, []Action{Switch, Boot, Test}, []Action{Test}},
		"runs another":           {func(f *agent.Facts) { f.Current = oldSystem }, []Action{Boot}, []Action{Boot}},
		"boots another":          {func(f *agent.Facts) { f.Profile = oldSystem }, []Action{Test}, []Action{Test}},
		"never committed":        {func(f *agent.Facts) { f.Committed, f.Bundle = "", "" }, nil, nil},
		"committed another":      {func(f *agent.Facts) { f.Committed, f.Bundle = oldSystem, oldBundle }, nil, nil},
		"nothing is known of it": {func(f *agent.Facts) { *f = agent.Facts{} }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			facts := all
			c.change(&facts)
			for _, action := range []Action{Switch, Boot, Test, DryActivate} {
				if got := action.HasSystem(facts, newSystem, false); got != slices.Contains(c.same, action) {
					t.Errorf("%s: the same system: %v", action, got)
				}
				if got := action.IsDone(facts, newBundle, newSystem, false); got != slices.Contains(c.done, action) {
					t.Errorf("%s: done: %v", action, got)
				}
			}
		})
	}
}

func TestElevation(t *testing.T) {
	if got := elevation(inventory.Node{}); !slices.Equal(got, []string{"sudo"}) {
		t.Errorf("%q", got)
	}
	node := inventory.Node{Elevate: []string{"doas", "-u", "root"}}
	if got := elevation(node); !slices.Equal(got, node.Elevate) {
		t.Errorf("%q", got)
	}
}
