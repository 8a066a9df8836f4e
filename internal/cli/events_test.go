package cli

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/action"
	"ferry/internal/fleet"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/session"
	"ferry/internal/ship"
)

// documented are the fields of each event in doc/events.md, and which of them may be missing.
func documented(t *testing.T) map[string]map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../../doc/events.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| (`[^|]*`) \\| ([^|]*) \\|")
	sections := strings.Split(string(text), "\n## ")
	fields := func(section string) map[string]bool {
		found := map[string]bool{}
		for _, m := range row.FindAllStringSubmatch(section, -1) {
			for name := range strings.SplitSeq(m[1], ", ") {
				found[strings.Trim(name, "`")] = strings.Contains(m[2], "may be missing")
			}
		}
		return found
	}
	common := fields(sections[0])
	events := map[string]map[string]bool{}
	for _, section := range sections[1:] {
		name, rest, _ := strings.Cut(section, "\n")
		events[name] = fields(rest)
		maps.Copy(events[name], common)
	}
	return events
}

// TestEventsAreAsDocumented writes one of every kind, and compares its fields with doc/events.md.
func TestEventsAreAsDocumented(t *testing.T) {
	var out strings.Builder
	w := newEvents(&out, time.Now)
	node := inventory.Node{Name: "web1"}
	failed := fleet.Outcome{Node: inventory.Node{Name: "web2"}, Status: fleet.Failed,
		Err: &session.Error{Node: "web2", Step: session.Build, State: session.Unchanged, Err: errors.New("no")}}
	w.begin(&inventory.Inventory{File: "/a/ferry.nix"}, []inventory.Node{node}, action.Switch)
	for _, e := range []session.Event{
		{Kind: session.Started, Step: session.Connect}, {Kind: session.Finished, Step: session.Connect, Text: "host"},
		{Kind: session.Building, Step: session.Build, Build: nix.BuildProgress{Done: 1}},
		{Kind: session.Line, Step: session.Build, Text: "a line"}, {Kind: session.Note, Text: "a note"},
	} {
		e.Node = "web1"
		w.observe(e)
	}
	w.observe(session.Event{Kind: session.Shipping, Node: "web2", Step: session.Ship, Ship: ship.Progress{Bytes: 1}})
	w.observe(session.Event{Kind: session.PathSent, Node: "web2", Step: session.Ship, Sent: ship.Sent{Path: "/nix/store/x", Bytes: 1}})
	w.batch(1, 2, 3)
	w.note("a note about nobody")
	w.ended(failed)
	w.ended(fleet.Outcome{Node: node, Status: fleet.Done})
	if err := w.end(3, nil, []fleet.Outcome{failed, {Node: node, Status: fleet.Done}}); err != nil {
		t.Fatal(err)
	}
	known := documented(t)
	seen := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		name, _ := event["event"].(string)
		seen[name] = true
		for field := range event {
			if _, ok := known[name][field]; !ok {
				t.Errorf("%s: the field %s is not documented", name, field)
			}
		}
		for field, optional := range known[name] {
			if _, ok := event[field]; !ok && !optional {
				t.Errorf("%s: the field %s is documented and missing in %s", name, field, line)
			}
		}
	}
	if got, want := slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(known)); !slices.Equal(got, want) {
		t.Errorf("events are %s, documented are %s", got, want)
	}
}

// TestProgressIsToldNowAndThen locks that a fast build or ship does not flood the stream, and that the end of it is not cut.
func TestProgressIsToldNowAndThen(t *testing.T) {
	var out strings.Builder
	at := time.Unix(0, 0)
	w := newEvents(&out, func() time.Time { return at })
	for range 100 {
		at = at.Add(50 * time.Millisecond)
		for _, node := range []string{"web1", "web2"} {
			w.observe(session.Event{Kind: session.Shipping, Node: node, Step: session.Ship})
		}
	}
	w.observe(session.Event{Kind: session.Finished, Node: "web1", Step: session.Ship})
	if got := strings.Count(out.String(), `"shipping"`); got != 20 {
		t.Errorf("it was told %d times in five seconds for two nodes, want 20", got)
	}
	if !strings.Contains(out.String(), `"finished"`) {
		t.Error("the end is not told")
	}
}
