package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/session"
	"ferry/internal/target"
)

func TestActivationErrorSaysWhatRunsNow(t *testing.T) {
	before := agent.Facts{Current: agenttest.OldSystem, Profile: agenttest.OldSystem}
	again := agent.Facts{Current: agenttest.NewSystem, Profile: agenttest.OldSystem}
	committed := agent.Facts{Current: agenttest.NewSystem, Profile: agenttest.NewSystem}
	back := "sudo " + agenttest.OldSystem + "/bin/switch-to-configuration test"
	for name, c := range map[string]struct {
		result agent.ActivateResult
		action action.Action
		before agent.Facts
		state  session.State
		says   string
		hints  string
	}{
		"refused":                 {agent.ActivateResult{Status: 1, Current: agenttest.OldSystem}, action.Switch, before, session.Unchanged, "refused (exit status 1); nothing has changed", "/log"},
		"refused, yet moved":      {agent.ActivateResult{Status: 1, Current: agenttest.NewSystem}, action.Switch, before, session.Unknown, "the new system runs, the old system is still what boots", "/log"},
		"activation script":       {agent.ActivateResult{Status: 2, Current: agenttest.NewSystem}, action.Switch, before, session.Unknown, "the new system runs in part", back},
		"no NixOS":                {agent.ActivateResult{Status: 2, Current: agenttest.OldSystem}, action.Switch, before, session.Unchanged, "nothing has changed", "/log"},
		"again in part":           {agent.ActivateResult{Status: 2, Current: agenttest.NewSystem}, action.Switch, again, session.Unknown, "runs in part", "/log"},
		"systemd":                 {agent.ActivateResult{Status: 3, Current: agenttest.NewSystem}, action.Test, before, session.Unknown, "systemd could not be reloaded", back},
		"units":                   {agent.ActivateResult{Status: 4, Current: agenttest.NewSystem, Failed: []string{"a.service", "b.service"}}, action.Switch, before, session.Unknown, "units failed: a.service, b.service; the new system runs", back},
		"units nobody knows":      {agent.ActivateResult{Status: 4, Current: agenttest.NewSystem}, action.Switch, before, session.Unknown, "units failed: see above", back},
		"units of what ran":       {agent.ActivateResult{Status: 4, Current: agenttest.NewSystem}, action.Switch, committed, session.Unknown, "units failed: see above; the new system runs", "/log"},
		"needs a reboot":          {agent.ActivateResult{Status: 100, Current: agenttest.OldSystem}, action.Switch, before, session.Unchanged, "needs a reboot (exit status 100); nothing has changed", "--action boot"},
		"would need a reboot":     {agent.ActivateResult{Status: 100, Current: agenttest.OldSystem}, action.DryActivate, before, session.Unchanged, "needs a reboot", "--action boot"},
		"a panic":                 {agent.ActivateResult{Status: 101, Current: agenttest.NewSystem}, action.Switch, before, session.Unknown, "switch-to-configuration test ended with status 101; the new system runs", back},
		"killed before it moved":  {agent.ActivateResult{Status: -1, Current: agenttest.OldSystem, Error: "it was killed"}, action.Switch, before, session.Unknown, "it was killed; the old system is still what boots", back},
		"killed without a word":   {agent.ActivateResult{Status: -1, Current: agenttest.OldSystem}, action.Switch, before, session.Unknown, "it left no status", back},
		"killed while describing": {agent.ActivateResult{Status: -1, Current: agenttest.OldSystem, Error: "it was killed"}, action.DryActivate, before, session.Unchanged, "nothing has changed", "/log"},
	} {
		t.Run(name, func(t *testing.T) {
			c.result.Log = "/log"
			err := activationError(c.result, c.action, c.before, agenttest.NewSystem)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v", err)
			}
			if got := stateAfter(c.result, c.action, c.before, agenttest.NewSystem); got != c.state {
				t.Errorf("%s", got)
			}
			if c.state == session.Unknown && strings.Contains(err.Error(), "nothing has changed") {
				t.Errorf("%s, and %v", c.state, err)
			}
			hints := (&session.Error{Err: err}).Hints()
			if len(hints) == 0 || !strings.Contains(strings.Join(hints, "\n"), c.hints) {
				t.Errorf("hints: %q", hints)
			}
		})
	}
	if err := activationError(agent.ActivateResult{Current: agenttest.NewSystem}, action.Switch, before, agenttest.NewSystem); err != nil {
		t.Errorf("status 0: %v", err)
	}
}

// A hint that cannot be followed is worse than none.
func TestNoWayBackIsShownWhereNoneIsKnown(t *testing.T) {
	err := activationError(agent.ActivateResult{Status: 4, Current: agenttest.NewSystem, Log: "/log"}, action.Switch, agent.Facts{}, agenttest.NewSystem)
	for _, hint := range (&session.Error{Err: err}).Hints() {
		if hint == "" || strings.Contains(hint, "switch-to-configuration") {
			t.Errorf("hint %q", hint)
		}
	}
}

func TestCommitError(t *testing.T) {
	for name, c := range map[string]struct {
		result agent.CommitResult
		runs   bool
		says   string
	}{
		"boot loader":              {agent.CommitResult{Status: 1}, true, "could not be written (exit status 1); the new system runs, the old one is still what boots"},
		"boot loader, boot":        {agent.CommitResult{Status: 1}, false, "could not be written (exit status 1); nothing has changed"},
		"boot loader and way back": {agent.CommitResult{Status: 1, Error: "the system profile could not be put back: x", Unclean: true}, false, "(exit status 1); the system profile could not be put back: x"},
		"profile":                  {agent.CommitResult{Status: -1, Error: "nix-env: exit status 1"}, false, "the commit failed: nix-env: exit status 1; nothing has changed"},
		"killed":                   {agent.CommitResult{Status: -1, Unclean: true}, true, "the commit failed: it left no status"},
		"root":                     {agent.CommitResult{Status: 0, Error: "file exists"}, false, "the commit failed: file exists"},
	} {
		if err := commitError(c.result, c.runs); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := commitError(agent.CommitResult{Generation: 3}, false); err != nil {
		t.Error(err)
	}
}

func TestInterruptedTellsWhatIsKnown(t *testing.T) {
	before := agent.Facts{Current: agenttest.OldSystem, Profile: agenttest.OldSystem, Bundle: agenttest.OldBundle}
	changed := before
	changed.Current = agenttest.NewSystem
	for name, c := range map[string]struct {
		action   action.Action
		step     session.Step
		err      error
		harmless bool
		state    session.State
		hint     string
	}{
		"lost":                         {action.Switch, session.Activate, &agent.LostError{}, false, session.Unknown, "/run/ferry/job-activate/log"},
		"lost by ssh":                  {action.Switch, session.Commit, &target.Error{Kind: target.Lost}, false, session.Unknown, "/run/ferry/job-commit/log"},
		"Ctrl-C":                       {action.Switch, session.Activate, context.Canceled, false, session.Unknown, agenttest.OldSystem + "/bin/switch-to-configuration test"},
		"Ctrl-C while describing":      {action.DryActivate, session.Activate, context.Canceled, true, session.Unchanged, ""},
		"refused by the agent":         {action.Switch, session.Activate, &agent.ResponseError{Kind: agent.KindLocked}, false, session.Unchanged, ""},
		"refused after the activation": {action.Switch, session.Commit, &agent.ResponseError{Kind: agent.KindLocked}, false, session.Unknown, ""},
		"refused to commit":            {action.Boot, session.Commit, &agent.ResponseError{Kind: agent.KindLocked}, false, session.Unchanged, ""},
		"restarted":                    {action.Switch, session.Activate, &session.ForgottenError{Facts: before}, false, session.Unchanged, "run the same command again"},
		"restarted into another":       {action.Switch, session.Activate, &session.ForgottenError{Facts: changed}, false, session.Unknown, ""},
		"something else":               {action.Switch, session.Activate, errors.New("x"), false, session.Unknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := &deployment{Visit: &session.Visit{Job: "job"}, opts: Options{Action: c.action}}
			var e *session.Error
			if err := d.interrupted(c.step, fmt.Errorf("wrapped: %w", c.err), before, c.harmless); !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.State != c.state || e.Step != c.step {
				t.Errorf("%s in %s", e.State, e.Step)
			}
			if !strings.Contains(strings.Join(e.Hints(), "\n"), c.hint) {
				t.Errorf("hints: %q", e.Hints())
			}
		})
	}
}
