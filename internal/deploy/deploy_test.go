package deploy

import (
	"strings"
	"testing"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
)

func TestATargetThatCannotGoBackIsRefused(t *testing.T) {
	good := agent.Facts{Systemd: 252, Current: agenttest.OldSystem}
	for name, c := range map[string]struct {
		change func(*agent.Facts, *Options)
		says   string
	}{
		"all well":             {func(*agent.Facts, *Options) {}, ""},
		"no systemd":           {func(f *agent.Facts, _ *Options) { f.Systemd = 0 }, "PID 1 is not systemd there"},
		"an old one":           {func(f *agent.Facts, _ *Options) { f.Systemd = 229 }, "its systemd 229 is older than 232"},
		"nothing to return to": {func(f *agent.Facts, _ *Options) { f.Current = "" }, "no /run/current-system"},
		"and so it shall be":   {func(f *agent.Facts, o *Options) { *f, o.Unsafe = agent.Facts{}, true }, ""},
		"a test":               {func(f *agent.Facts, o *Options) { *f, o.Action = agent.Facts{}, action.Test }, "PID 1 is not systemd there"},
		"nothing is activated": {func(f *agent.Facts, o *Options) { *f, o.Action = agent.Facts{}, action.Boot }, ""},
		"nothing is changed":   {func(f *agent.Facts, o *Options) { *f, o.Action = agent.Facts{}, action.DryActivate }, ""},
	} {
		facts, opts := good, Options{Action: action.Switch}
		c.change(&facts, &opts)
		err := opts.unguarded(facts)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
