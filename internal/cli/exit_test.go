package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"ferry/internal/session"
)

// A signal ends most things, and whatever fails then was interrupted. A target that is being changed goes on: how that ended
// is told, and is the exit status.
func TestOnlyWhatASignalHasEndedIsInterrupted(t *testing.T) {
	refused := func(state session.State, settled bool) error {
		return &session.Error{Node: "web", Step: session.Activate, State: state, Settled: settled, Err: errors.New("it refused")}
	}
	for name, c := range map[string]struct {
		err    error
		signal bool
		status int
		says   string
	}{
		"refused":                               {refused(session.Unchanged, true), false, 1, "ferry: error: web: activate: it refused\n"},
		"refused after a signal":                {refused(session.Unchanged, true), true, 1, "ferry: error: web: activate: it refused\n"},
		"gone back after a signal":              {refused(session.RolledBack, true), true, 4, "ferry: error: web: activate: it refused\n"},
		"broken off by a signal":                {refused(session.Unchanged, false), true, 130, "ferry: interrupted; no node was changed\n"},
		"a program that got the signal as well": {errors.New("nix-build: signal: terminated"), true, 130, "ferry: interrupted; no node was changed\n"},
		"left while it changes":                 {refused(session.Unknown, true), true, 5, "ferry: error: web: activate: it refused\n"},
		"done after a signal":                   {nil, true, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			if c.signal {
				stop()
			}
			var said bytes.Buffer
			a := &app{Env: Env{Err: &said}, started: true}
			if got := a.report(ctx, c.err); got != c.status || !strings.HasPrefix(said.String(), c.says) || c.says == "" && said.Len() > 0 {
				t.Errorf("status %d, want %d; it says %q", got, c.status, said.String())
			}
		})
	}
}
