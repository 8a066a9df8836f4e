package server

import (
	"testing"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

// TestInspectAnswers locks the request, and that it needs no lock.
func TestInspectAnswers(t *testing.T) {
	m := newMachine(t)
	f := m.connect(Options{Who: "alice@here"})
	for name, c := range map[string]struct {
		toplevel nix.StorePath
		kind     agent.ErrorKind
		fails    bool
	}{
		"what runs":       {oldSystem, "", false},
		"another":         {newSystem, "", false},
		"no store path":   {"/etc", agent.KindInvalid, true},
		"one that is not": {newSystem + "-gone", agent.KindInvalid, true},
	} {
		r, _ := f.ask(agent.Request{Method: agent.MethodInspect, Toplevel: c.toplevel})
		if (r.Error != nil) != c.fails || r.Error != nil && r.Error.Kind != c.kind {
			t.Errorf("%s: %+v", name, r.Error)
		}
		if len(r.Risks) > 0 {
			t.Errorf("%s: %+v", name, r.Risks)
		}
	}
}
