package server

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// origin are the facts that say where the system is from.
func (m *fakeMachine) origin() agent.Facts {
	m.T.Helper()
	facts := agent.Facts{
		Current: m.StorePath("/run/current-system"), Profile: m.StorePath(systemProfile), Bundle: m.StorePath(currentConfiguration),
	}
	addOrigin(m.Root, &facts)
	return facts
}

// again replaces a link.
func (m *fakeMachine) again(to, name string) {
	m.T.Helper()
	_ = os.Remove(m.Path(name))
	m.Link(to, name)
}

// TestFactsSayWhereTheSystemIsFrom reads manifest, version, generation and journal of a target.
func TestFactsSayWhereTheSystemIsFrom(t *testing.T) {
	m := newMachine(t)
	m.Write(string(oldBundle)+"/ferry.json", `{"node": "pi", "revision": "0123456789abcdef", "dirty": true, "format": 1,
  "source": "`+string(newSystem)+`", "nixpkgsVersion": "24.05"}`)
	m.Write(string(oldSystem)+"/nixos-version", "24.05.1234\n")
	made := time.Unix(1_700_000_000, 0)
	mustAppend(t, m.Root, entryOf("only"))
	facts := m.origin()
	if want := (agent.Manifest{Node: "pi", Revision: "0123456789abcdef", Dirty: true, Source: string(newSystem), Version: "24.05"}); facts.Deployed != want {
		t.Errorf("the manifest: %+v", facts.Deployed)
	}
	if facts.Version != "24.05.1234" || facts.Generation != 1 || facts.ProfileTime < made.Unix() {
		t.Errorf("%+v", facts)
	}
	if facts.Last == nil || facts.Last.ID != "only" || facts.LastCommit != nil || facts.Previous == nil || facts.Previous.Current != string(oldSystem) {
		t.Errorf("the journal: %+v, %+v, %+v", facts.Last, facts.LastCommit, facts.Previous)
	}
	if facts.CurrentGeneration != 0 || facts.Specialisation != "" || facts.Pending != "" {
		t.Errorf("%+v", facts)
	}
}

// TestWhatRanBeforeIsNamedByItsOwnBundle has systems before the last deployment that were committed, only tried, a specialisation, or nobody's.
func TestWhatRanBeforeIsNamedByItsOwnBundle(t *testing.T) {
	third, thirdBundle := "/nix/store/44444444444444444444444444444444-third", "/nix/store/55555555555555555555555555555555-ferry-third"
	tried := entryOf("tried")
	tried.Action, tried.Bundle, tried.Toplevel = "test", thirdBundle, third
	for name, c := range map[string]struct {
		ran     string
		entries []agent.JournalEntry
		want    string
	}{
		"committed":             {string(oldSystem), []agent.JournalEntry{tried}, string(oldBundle)},
		"tried":                 {third, []agent.JournalEntry{tried}, thirdBundle},
		"tried, then forgotten": {third, nil, ""},
		"a specialisation":      {"/nix/store/66666666666666666666666666666666-special", []agent.JournalEntry{tried}, string(oldBundle)},
		"somebody else's":       {"/nix/store/77777777777777777777777777777777-other", []agent.JournalEntry{tried}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Write(thirdBundle+"/.keep", "")
			m.Write(third+"/.keep", "")
			m.Link(third, thirdBundle+"/profile")
			m.Write("/nix/store/66666666666666666666666666666666-special/.keep", "")
			m.Link("/nix/store/66666666666666666666666666666666-special", string(oldSystem)+"/specialisation/special")
			last := entryOf("last")
			last.Before = agent.JournalState{Current: c.ran, Profile: string(oldSystem), Bundle: string(oldBundle)}
			for _, e := range append(c.entries, last) {
				mustAppend(t, m.Root, e)
			}
			if facts := m.origin(); facts.Previous == nil || facts.Previous.Current != c.ran || facts.Previous.Bundle != c.want {
				t.Errorf("%+v", facts.Previous)
			}
			keepPrevious(m.Root, last.Before, Job{Toplevel: newSystem, Bundle: newBundle})
			if got := m.StorePath(machine.GCRoots + "/" + previousBundle); got != c.want {
				t.Errorf("it keeps %q", got)
			}
		})
	}
}

// TestFactsFindTheDeploymentsThatMatter goes through journals: who committed the bundle, and what there was before the last
// change.
func TestFactsFindTheDeploymentsThatMatter(t *testing.T) {
	third := "/nix/store/44444444444444444444444444444444-third"
	of := func(id string, change func(*agent.JournalEntry)) agent.JournalEntry {
		e := entryOf(id)
		change(&e)
		return e
	}
	// The target keeps the old bundle.
	kept := of("kept", func(e *agent.JournalEntry) {
		e.Bundle, e.Toplevel = string(oldBundle), string(oldSystem)
		e.Before = agent.JournalState{Current: third, Profile: third}
		e.After = agent.JournalState{Current: string(oldSystem), Profile: string(oldSystem), Generation: 1, Bundle: string(oldBundle)}
	})
	rolledBack := of("rolled-back", func(e *agent.JournalEntry) { e.After, e.Outcome = e.Before, agent.JournalRolledBack })
	tested := of("tested", func(e *agent.JournalEntry) {
		e.Action, e.After.Profile, e.After.Bundle, e.Outcome = "test", string(oldSystem), string(oldBundle), agent.JournalActivated
	})
	byHand := of("by-hand", func(e *agent.JournalEntry) {
		e.Action, e.Before, e.After = agent.ActionRollback, agent.JournalState{Current: string(newSystem)}, kept.After
	})
	for name, c := range map[string]struct {
		entries  []agent.JournalEntry
		commit   string
		previous string // what ran
	}{
		"none":                   {nil, "", ""},
		"one":                    {[]agent.JournalEntry{kept}, "kept", third},
		"rolled back since":      {[]agent.JournalEntry{kept, rolledBack}, "kept", third},
		"tested since":           {[]agent.JournalEntry{kept, tested}, "kept", string(oldSystem)},
		"tested and rolled back": {[]agent.JournalEntry{kept, tested, byHand}, "kept", string(oldSystem)},
		"only a roll-back":       {[]agent.JournalEntry{byHand}, "", ""},
		"another bundle's":       {[]agent.JournalEntry{entryOf("other")}, "", string(oldSystem)},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			for _, e := range c.entries {
				mustAppend(t, m.Root, e)
			}
			facts := m.origin()
			last, commit, previous := "", "", ""
			if facts.Last != nil {
				last = facts.Last.ID
			}
			if facts.LastCommit != nil {
				commit = facts.LastCommit.ID
			}
			if facts.Previous != nil {
				previous = facts.Previous.Current
			}
			want := ""
			if n := len(c.entries); n > 0 {
				want = c.entries[n-1].ID
			}
			if last != want || commit != c.commit || previous != c.previous {
				t.Errorf("last %q, commit %q, previous %q; want %q, %q, %q", last, commit, previous, want, c.commit, c.previous)
			}
		})
	}
}

// TestFactsNameASystemThatIsNotTheProfiles finds an older generation, a specialisation and a cut off deployment.
func TestFactsNameASystemThatIsNotTheProfiles(t *testing.T) {
	m := newMachine(t)
	m.Link(string(newSystem), systemProfile+"-7-link")
	m.again("system-7-link", systemProfile)
	m.Link(string(newBundle), machine.GCRoots+"/pending")
	facts := m.origin()
	if facts.Generation != 7 || facts.CurrentGeneration != 1 || facts.Specialisation != "" || facts.Pending != string(newSystem) {
		t.Errorf("%+v", facts)
	}
	for _, folder := range []string{"/specialisation/quiet", "/fine-tune/quiet"} {
		m.again(string(oldSystem), string(newSystem)+folder)
		if got := m.origin().Specialisation; got != "quiet" {
			t.Errorf("%s: %q", folder, got)
		}
		if err := os.Remove(m.Path(string(newSystem) + folder)); err != nil {
			t.Fatal(err)
		}
	}
	m.again("elsewhere", systemProfile)
	if facts := m.origin(); facts.Generation != 0 || facts.ProfileTime != 0 {
		t.Errorf("without a generation: %+v", facts)
	}
}

// TestAManifestOfAnotherKindIsNone reads what is no ferry.json of ferry's, and far too much.
func TestAManifestOfAnotherKindIsNone(t *testing.T) {
	m := newMachine(t)
	for name, text := range map[string]string{
		"empty": "", "no JSON": "node=pi", "a list": "[]", "another type": `{"node": 3}`, "endless": `{"node": "` + strings.Repeat("x", 1<<20) + `"}`,
		"an option as revision": `{"revision": "--output=/etc/passwd"}`,
	} {
		m.Write(string(oldBundle)+"/ferry.json", text)
		if got := readManifest(m.Root, string(oldBundle)); got != (agent.Manifest{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestTheHelloDoesNotReadAWholeJournal has one without anything that is looked for.
func TestTheHelloDoesNotReadAWholeJournal(t *testing.T) {
	m := newMachine(t)
	e := entryOf("x")
	e.After = e.Before
	for i := range maxLookBack + 10 {
		e.ID = fmt.Sprint(i)
		if i == 5 {
			mustAppend(t, m.Root, entryOf("changed"))
		}
		mustAppend(t, m.Root, e)
	}
	if facts := m.origin(); facts.Previous != nil || facts.Last == nil {
		t.Errorf("%+v", facts.Previous)
	}
}
