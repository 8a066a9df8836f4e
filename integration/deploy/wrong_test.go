package deploy_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// visible is text that a terminal shows as it is.
var visible = regexp.MustCompile(`^[^\x00-\x1f\x7f-\x9f]*$`)

// fails checks that a ferry command failed as DESIGN's "Messages" and "Exit codes" say: with status, one line "ferry: error:
// text…", as many hints as hints and each with its text, nothing on standard output, and nothing that moves a cursor.
func (o outcome) fails(t *testing.T, status int, text string, hints ...string) {
	t.Helper()
	if o.status != status {
		t.Errorf("status %d, want %d", o.status, status)
	}
	if o.out != "" {
		t.Errorf("on standard output: %q", o.out)
	}
	var errors, given []string
	for line := range strings.Lines(o.errors) {
		line = strings.TrimSuffix(line, "\n")
		if !visible.MatchString(line) {
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
