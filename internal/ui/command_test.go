package ui

import (
	"strings"
	"testing"
	"time"
)

// TestVerboseShowsCommandsInOneShortLine keeps a Nix expression of many lines from filling the screen.
func TestVerboseShowsCommandsInOneShortLine(t *testing.T) {
	var out strings.Builder
	p := New(&out, nil, true, time.Now)
	p.Command([]string{"nix-instantiate", "-E", "let\n  it's = 1;" + strings.Repeat("é", 1000)})
	p.Command([]string{"ssh", "--", "alice@pi", "id -u"})
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	if !strings.HasPrefix(lines[0], `$ nix-instantiate -E 'let   it'"'"'s = 1;é`) || !strings.HasSuffix(lines[0], "é'… (2015 bytes)") {
		t.Errorf("the expression is shown as %s", lines[0])
	}
	if len(lines[0]) > 400 {
		t.Errorf("the line has %d bytes", len(lines[0]))
	}
	if want := "$ ssh -- alice@pi 'id -u'"; lines[1] != want {
		t.Errorf("got %s, want %s", lines[1], want)
	}
}
