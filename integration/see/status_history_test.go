package see_test

import (
	"encoding/json"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/agent"
)

// historyOf is what ferry history --json prints.
func historyOf(s *site.Site, args ...string) (entries []agent.JournalEntry, older bool) {
	s.T.Helper()
	o := s.Ferry(append([]string{"history", "--json"}, args...)...)
	var h struct {
		Node        string
		Older       bool
		Deployments []agent.JournalEntry
	}
	if err := json.Unmarshal([]byte(o.Out), &h); o.Status != 0 || err != nil || h.Node != "web" {
		s.T.Fatalf("status %d, %v", o.Status, err)
	}
	return h.Deployments, h.Older
}

// TestHistoryTellsWhatWasDone after deployments, one that went back, and a roll-back by hand, and reads the rotated file.
func TestHistoryTellsWhatWasDone(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	git(s, "init", "--quiet")
	git(s, "add", ".")
	git(s, "commit", "--quiet", "--message=first")
	revision := git(s, "rev-parse", "HEAD")
	if entries, older := historyOf(s, "--sudo-password-file", s.Password); len(entries) != 0 || older {
		t.Errorf("%+v, %v", entries, older)
	}
	o := s.Ferry("history")
	o.Says(t, "ferry: note: web: the journal of its target is empty")
	if o.Status != 0 || o.Out != "" {
		t.Errorf("status %d, %q", o.Status, o.Out)
	}

	s.Deploy()
	first := s.State()
	s.Write("web/configuration.nix", site.Configuration("second"))
	s.Deploy("--action", "test")
	s.Write("web/configuration.nix", site.With(site.Configuration("third"), `system.activationScripts.broken = "false";`))
	if o := s.Ferry("deploy", "--sudo-password-file", s.Password); o.Status != 4 {
		t.Errorf("status %d", o.Status)
	}
	s.OnTarget("mv", "/var/log/ferry/deployments.jsonl", "/var/log/ferry/deployments.jsonl.1")
	if o := s.Ferry("rollback", "--sudo-password-file", s.Password); o.Status != 0 {
		t.Fatalf("status %d", o.Status)
	}

	before := s.Counts()
	entries, older := historyOf(s)
	if got, want := s.Counts().Minus(before), (site.Counts{Logins: 1}); got != want {
		t.Errorf("to read it: %v, want %v", got, want)
	}
	var told []string
	for _, e := range entries {
		told = append(told, e.Action+": "+string(e.Outcome))
	}
	if got, want := strings.Join(told, ", "), "switch: committed, test: activated, switch: rolled back, rollback: committed"; got != want || older {
		t.Fatalf("%s; want %s", got, want)
	}
	if e := entries[0]; e.Revision != revision || e.Dirty || e.Toplevel != first.Runs || e.Bundle != first.Bundle || !strings.Contains(e.Who, "@") || e.Reason != "" {
		t.Errorf("%+v", e)
	}
	if e := entries[2]; !e.Dirty || e.Reason == "" || e.Before != e.After {
		t.Errorf("%+v", e)
	}

	o = s.Ferry("history", "--limit", "2", "web")
	o.Says(t, "ferry: note: web: there are older ones")
	fitsTerminal(t, o.Out)
	lines := strings.Split(o.Out, "\n")
	if o.Status != 0 || len(lines) < 4 || !strings.HasPrefix(lines[0], "ENDED ") || !strings.Contains(lines[1], "  switch    rolled back  ") ||
		!strings.Contains(lines[1], "  "+revision[:7]+"+  ") || !strings.HasPrefix(lines[2], "  ") || !strings.Contains(o.Out, "  rollback  committed  ") {
		t.Errorf("status %d, the table is\n%s", o.Status, o.Out)
	}
}
