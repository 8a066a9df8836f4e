package ui

import (
	"bytes"
	"testing"
)

// TestColoursAreForTerminalsThatWantThem only, and say nothing that the words do not.
func TestColoursAreForTerminalsThatWantThem(t *testing.T) {
	env := func(pairs map[string]string) func(string) string {
		return func(name string) string { return pairs[name] }
	}
	tty := newTerminal(t, 80)
	for name, c := range map[string]struct {
		env  map[string]string
		want string
	}{
		"a terminal":      {map[string]string{"TERM": "xterm"}, "\x1b[31mno\x1b[0m"},
		"one without":     {map[string]string{"TERM": "dumb"}, "no"},
		"an unknown one":  {nil, "no"},
		"nobody wants it": {map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, "no"},
	} {
		if got := NewPaint(tty, env(c.env)).Red("no"); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := NewPaint(new(bytes.Buffer), env(map[string]string{"TERM": "xterm"})).Yellow("no"); got != "no" {
		t.Errorf("not a terminal: %q", got)
	}
	if got := (Paint{true}).Green(""); got != "" {
		t.Errorf("nothing: %q", got)
	}
}
