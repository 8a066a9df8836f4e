package logs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/session"
)

// clock is a time that goes on by a second whenever it is looked at.
func clock() func() time.Time {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return func() time.Time {
		at = at.Add(time.Second)
		return at
	}
}

// TestARunIsKeptByNode locks what is in the files, and that nobody else can read them.
func TestARunIsKeptByNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	r, err := Begin(dir, About{Command: "deploy", Nodes: []string{"a", "b"}}, clock())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []session.Event{
		{Kind: session.Started, Node: "a", Step: session.Build},
		{Kind: session.Line, Node: "a", Step: session.Build, Text: "compiling\x1b[2J"},
		{Kind: session.Building, Node: "a", Step: session.Build},
		{Kind: session.Finished, Node: "a", Step: session.Build, Text: "1 derivation", Duration: 1500 * time.Millisecond},
		{Kind: session.Note, Node: "b", Text: "beware"},
	} {
		r.Observe(e)
	}
	if entries, err := List(dir); err != nil || len(entries) != 1 || !entries[0].Ended.IsZero() {
		t.Errorf("while it goes on: %+v, %v", entries, err)
	}
	if err := r.Close(3); err != nil {
		t.Fatal(err)
	}
	entries, err := List(dir)
	if err != nil || len(entries) != 1 || entries[0].Exit != 3 || entries[0].Command != "deploy" {
		t.Fatalf("%+v, %v", entries, err)
	}
	text, err := os.ReadFile(entries[0].Log("a"))
	if err != nil {
		t.Fatal(err)
	}
	want := "03:04:07.000 build: begins\n03:04:08.000 build | compiling\n03:04:09.000 build: done in 1.5 s: 1 derivation\n"
	if string(text) != want {
		t.Errorf("got %q\nwant %q", text, want)
	}
	for _, path := range []string{dir, entries[0].Log("b"), filepath.Join(dir, entries[0].Name)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// TestOldRunsAreRemoved locks that there are never too many, and that what is no run stays.
func TestOldRunsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, other := range []string{"mine", "20260102T030405.000Z.txt"} {
		if err := os.WriteFile(filepath.Join(dir, other), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := clock()
	for range keptRuns + 3 {
		r, err := Begin(dir, About{}, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(0); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := List(dir)
	if err != nil || len(entries) != keptRuns {
		t.Fatalf("%d runs are kept, %v", len(entries), err)
	}
	// Three more than there may be: the oldest three are gone.
	if first := entries[0].Began; first.Minute() != 4 || first.Second() != 12 {
		t.Errorf("the oldest that is left began at %v", first)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine")); err != nil {
		t.Error(err)
	}
}

// TestALogHasAnEnd locks that a node's file does not fill the disk.
func TestALogHasAnEnd(t *testing.T) {
	r, err := Begin(t.TempDir(), About{}, clock())
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 1<<20)
	for range nodeBytes>>20 + 5 {
		r.Write("a", line)
	}
	if err := r.Close(0); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(r.dir, "a.log"))
	if err != nil || info.Size() > nodeBytes+1000 {
		t.Errorf("it has %d bytes, %v", info.Size(), err)
	}
}

// TestTwoRunsAtTheSameTime locks that they do not get in each other's way.
func TestTwoRunsAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	now := func() time.Time { return time.Unix(1, 0) }
	for range 3 {
		if _, err := Begin(dir, About{}, now); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := List(dir); err != nil || len(entries) != 3 {
		t.Errorf("%d runs, %v", len(entries), err)
	}
}
