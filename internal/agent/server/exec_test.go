package server

import (
	"strings"
	"testing"

	"ferry/internal/agent"
)

// TestExecTellsHowTheCommandEnded locks the statuses, and that what the command writes comes whole and as it is.
func TestExecTellsHowTheCommandEnded(t *testing.T) {
	f := newMachine(t).connect(Options{})
	for name, c := range map[string]struct {
		argv []string
		want agent.ExecResult
		says string
	}{
		"well":            {[]string{"sh", "-c", "printf 'one\\n\\033[31mtwo' "}, agent.ExecResult{}, "one\n\x1b[31mtwo"},
		"with a status":   {[]string{"sh", "-c", "echo bad >&2; exit 7"}, agent.ExecResult{Status: 7}, "bad\n"},
		"by a signal":     {[]string{"sh", "-c", "kill -ABRT $$"}, agent.ExecResult{Status: -1, Error: "killed by signal: aborted"}, ""},
		"no program":      {[]string{"no-such-program"}, agent.ExecResult{Status: -1, Error: "there is no such program on the target"}, ""},
		"no words":        {nil, agent.ExecResult{Status: -1, Error: "command: no program to run"}, ""},
		"reading nothing": {[]string{"cat"}, agent.ExecResult{}, ""},
		"much":            {[]string{"sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done"}, agent.ExecResult{}, strings.Repeat("0123456789\n", 20000)},
	} {
		t.Run(name, func(t *testing.T) {
			r, said := f.ask(agent.Request{Method: agent.MethodExec, Argv: c.argv})
			if r.Error != nil || r.Exec == nil || *r.Exec != c.want {
				t.Errorf("got %+v, %v, want %+v", r.Exec, r.Error, c.want)
			}
			if said != c.says {
				t.Errorf("it said %d bytes, want %d", len(said), len(c.says))
			}
		})
	}
}
