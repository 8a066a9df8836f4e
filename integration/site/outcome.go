package site

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Outcome is how a ferry command ended.
type Outcome struct {
	Status      int
	Out, Errors string
}

// Says fails the test unless a ferry command's messages contain each of the texts.
func (o Outcome) Says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(o.Errors, text) {
			t.Errorf("ferry does not say %q:\n%s", text, o.Errors)
		}
	}
}

// Visible is text that a terminal shows as it is.
var Visible = regexp.MustCompile(`^[^\x00-\x1f\x7f-\x9f]*$`)

// Fails checks that a ferry command failed as DESIGN's "Messages" and "Exit codes" say: with status, one line "ferry: error:
// text…", as many hints as hints and each with its text, nothing on standard output, and nothing that moves a cursor.
func (o Outcome) Fails(t *testing.T, status int, text string, hints ...string) {
	t.Helper()
	if o.Status != status {
		t.Errorf("status %d, want %d", o.Status, status)
	}
	if o.Out != "" {
		t.Errorf("on standard output: %q", o.Out)
	}
	var errors, given []string
	for line := range strings.Lines(o.Errors) {
		line = strings.TrimSuffix(line, "\n")
		if !Visible.MatchString(line) {
			t.Errorf("a line with control characters: %q", line)
		}
		if message, ok := strings.CutPrefix(line, "ferry: error: "); ok {
			errors = append(errors, message)
		}
		if hint, ok := strings.CutPrefix(line, "ferry: hint: "); ok {
			given = append(given, hint)
		}
	}
	if len(errors) != 1 || !strings.HasPrefix(errors[0], text) || strings.HasSuffix(errors[0], ".") {
		t.Errorf("the errors are %q, want one that starts with %q and has no full stop", errors, text)
	}
	if len(given) != len(hints) || len(given) > 2 {
		t.Errorf("the hints are %q, want %d", given, len(hints))
	}
	for _, want := range hints {
		if !slices.ContainsFunc(given, func(hint string) bool { return strings.Contains(hint, want) }) {
			t.Errorf("no hint says %q: %q", want, given)
		}
	}
}
