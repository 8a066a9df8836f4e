package session

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/inventory"
)

const (
	thirdSystem = "/nix/store/44444444444444444444444444444444-third"
	ourSource   = "/nix/store/55555555555555555555555555555555-source"
	bobsCommit  = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0"
)

// bobsFacts are a target that bob deployed the old system to, from a commit, while it ran a third one.
func bobsFacts() agent.Facts {
	running := agent.JournalState{Current: agenttest.OldSystem, Profile: agenttest.OldSystem, Generation: 7, Bundle: agenttest.OldBundle}
	last := &agent.JournalEntry{
		ID: "one", Time: time.Date(2026, 5, 4, 12, 30, 0, 0, time.Local), Who: "bob@laptop", Action: "switch", Bundle: agenttest.OldBundle, Toplevel: agenttest.OldSystem,
		Revision: bobsCommit, Before: agent.JournalState{Current: thirdSystem, Profile: thirdSystem}, After: running, Outcome: agent.JournalCommitted,
	}
	return agent.Facts{
		Current: agenttest.OldSystem, Booted: agenttest.OldSystem, Profile: agenttest.OldSystem, Bundle: agenttest.OldBundle, Committed: agenttest.OldSystem, Generation: 7,
		ProfileTime: last.Time.Unix(), Deployed: agent.Manifest{Node: "pi", Revision: bobsCommit, Source: "/nix/store/66666666666666666666666666666666-source"},
		Last: last, LastCommit: last,
	}
}

// TestSurprise goes through what may be on a target that the new system is to be deployed to.
func TestSurprise(t *testing.T) {
	changed := func(f *agent.Facts, change func(*agent.JournalEntry)) {
		e := *f.Last
		change(&e)
		f.Last = &e
	}
	const goOn = "to replace it all the same: --replace-unknown"
	const byBob = "old (0000000…), deployed by bob@laptop on 2026-05-04 12:30 from revision b0b0b0b0b0b0"
	for name, c := range map[string]struct {
		target  func(*agent.Facts)
		project func(*Known)
		lineage inventory.Lineage // of bob's commit
		says    string            // "": no surprise
		hint    string
	}{
		"what bob deployed from a commit that is known": {lineage: inventory.Ancestor},
		"from one that is not": {lineage: inventory.UnknownCommit, says: "the target runs " + byBob + ", which is not in this checkout's history",
			hint: "git pull, then run this again"},
		"from another branch": {lineage: inventory.Divergent, says: "the target runs " + byBob + ", which is not", hint: "git merge b0b0b0b0b0b0 takes it in"},
		"in a shallow copy":   {lineage: inventory.Shallow, says: "the target runs " + byBob + ", which is not", hint: "git fetch --unshallow"},
		"from uncommitted changes": {target: func(f *agent.Facts) { f.Deployed.Dirty = true }, lineage: inventory.UnknownCommit,
			says: byBob + " with uncommitted changes, which is not", hint: "git pull"},
		"from one that is not, by whom is not known": {target: func(f *agent.Facts) { f.LastCommit = nil }, lineage: inventory.UnknownCommit,
			says: "the target runs old (0000000…), deployed from revision b0b0b0b0b0b0, which is not", hint: "git pull"},
		"from outside of git":     {target: func(f *agent.Facts) { f.Deployed.Revision = "" }, lineage: inventory.UnknownCommit},
		"we are outside of git":   {lineage: inventory.NotComparable},
		"deployed last from here": {project: func(p *Known) { p.deployed = []string{agenttest.OldBundle} }, lineage: inventory.UnknownCommit},
		"from our source":         {target: func(f *agent.Facts) { f.Deployed.Source = ourSource }, lineage: inventory.UnknownCommit},
		"the same system again":   {project: func(p *Known) { p.toplevel = agenttest.OldSystem }, lineage: inventory.UnknownCommit},
		"no deployment yet": {target: func(f *agent.Facts) {
			*f = agent.Facts{Current: agenttest.OldSystem, Profile: agenttest.OldSystem, Generation: 3}
		}, lineage: inventory.UnknownCommit},
		"nothing there":            {target: func(f *agent.Facts) { *f = agent.Facts{} }},
		"deployed before journals": {target: func(f *agent.Facts) { f.Last, f.LastCommit = nil, nil }, lineage: inventory.Ancestor},
		"nixos-rebuild switch": {target: func(f *agent.Facts) { f.Current, f.Profile, f.Generation = thirdSystem, thirdSystem, 8 }, lineage: inventory.Ancestor,
			says: "the target runs third (4444444…), which no deployment of ferry's left there: generation 8 of 2026-05-04 12:30; " +
				"the last deployment was by bob@laptop on 2026-05-04 12:30, of old (0000000…)", hint: "ferry generations pi shows what it has"},
		"nixos-rebuild switch to ours": {target: func(f *agent.Facts) { f.Current, f.Profile = agenttest.NewSystem, agenttest.NewSystem }, lineage: inventory.Ancestor},
		"nixos-rebuild boot": {target: func(f *agent.Facts) { f.Profile, f.Generation = thirdSystem, 8 }, lineage: inventory.Ancestor,
			says: "the target boots third (4444444…), which no deployment of ferry's left there: generation 8 of"},
		"nixos-rebuild test": {target: func(f *agent.Facts) { f.Current = thirdSystem }, lineage: inventory.Ancestor,
			says: "the target runs third (4444444…), which no deployment of ferry's left there, and which is none of its generations; the last"},
		"an older generation from the boot menu": {
			target:  func(f *agent.Facts) { f.Current, f.Booted, f.CurrentGeneration = thirdSystem, thirdSystem, 6 },
			lineage: inventory.Ancestor, says: "left there: generation 6, while generation 7 is what boots; the last"},
		"that menu, without a journal": {
			target:  func(f *agent.Facts) { f.Current, f.Profile, f.Last, f.LastCommit = thirdSystem, thirdSystem, nil, nil },
			lineage: inventory.Ancestor, says: "left there: generation 7 of 2026-05-04 12:30"},
		"a specialisation":                 {target: func(f *agent.Facts) { f.Current, f.Specialisation = thirdSystem, "quiet" }, lineage: inventory.Ancestor},
		"a specialisation of someone else": {target: func(f *agent.Facts) { f.Current, f.Profile, f.Specialisation = thirdSystem, thirdSystem, "quiet" }, lineage: inventory.Ancestor, says: "the target boots third"},
		"tested by bob, from a commit that is not known": {
			target: func(f *agent.Facts) {
				f.Current = thirdSystem
				changed(f, func(e *agent.JournalEntry) {
					e.Toplevel, e.After.Current, e.Revision = thirdSystem, thirdSystem, bobsCommit
				})
				f.Deployed.Revision = ""
			},
			lineage: inventory.UnknownCommit, says: "the target runs third (4444444…), deployed by bob@laptop", hint: "git pull"},
		"tested, and restarted since": {target: func(f *agent.Facts) {
			changed(f, func(e *agent.JournalEntry) { e.Toplevel, e.After.Current, e.Revision = thirdSystem, thirdSystem, "" })
		}, lineage: inventory.Ancestor},
		"installed, and not restarted yet": {target: func(f *agent.Facts) {
			f.Current, f.Booted = thirdSystem, thirdSystem
			changed(f, func(e *agent.JournalEntry) { e.After.Current = thirdSystem })
		}, lineage: inventory.Ancestor},
		"installed without the agent, and not restarted yet": {
			target: func(f *agent.Facts) { f.Current, f.Booted, f.Last, f.LastCommit = thirdSystem, thirdSystem, nil, nil }, lineage: inventory.Ancestor},
		"nixos-rebuild test, without a journal": {
			target:  func(f *agent.Facts) { f.Current, f.Last, f.LastCommit = thirdSystem, nil, nil },
			lineage: inventory.Ancestor, says: "the target runs third (4444444…), which no deployment of ferry's left there, and which is none of its generations"},
		"returned to without a bundle, from a commit that is not known": {
			target: func(f *agent.Facts) {
				f.Current, f.Profile, f.Bundle, f.Committed = thirdSystem, thirdSystem, "", ""
				changed(f, func(e *agent.JournalEntry) {
					e.Toplevel, e.Bundle, e.After = thirdSystem, "", agent.JournalState{Current: thirdSystem, Profile: thirdSystem}
				})
			},
			lineage: inventory.UnknownCommit, says: "the target runs third (4444444…), deployed by bob@laptop", hint: "git pull"},
		"rolled back to someone else's": {target: func(f *agent.Facts) {
			f.Current, f.Profile = thirdSystem, thirdSystem
			changed(f, func(e *agent.JournalEntry) { e.Outcome, e.After = agent.JournalRolledBack, e.Before })
		}, lineage: inventory.UnknownCommit},
		"a deployment that a power cut ended": {target: func(f *agent.Facts) { f.Current, f.Profile, f.Pending = thirdSystem, thirdSystem, thirdSystem }, lineage: inventory.Ancestor},
		"no profile":                          {target: func(f *agent.Facts) { f.Profile, f.Generation = "", 0 }, lineage: inventory.Ancestor},
	} {
		t.Run(name, func(t *testing.T) {
			facts := bobsFacts()
			if c.target != nil {
				c.target(&facts)
			}
			p := Known{node: "pi", toplevel: agenttest.NewSystem, source: ourSource, lineage: func(revision string) (inventory.Lineage, error) {
				if revision != bobsCommit {
					t.Errorf("asked about %s", revision)
				}
				return c.lineage, nil
			}}
			if c.project != nil {
				c.project(&p)
			}
			err := Surprise(facts, p)
			if c.says == "" {
				if err != nil {
					t.Errorf("a surprise: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got  %v\nwant %s", err, c.says)
			}
			hints := (&Error{Err: err}).Hints()
			if len(hints) != 2 || !strings.Contains(hints[0], c.hint) || hints[1] != goOn {
				t.Errorf("hints: %q", hints)
			}
		})
	}
}

// TestASurpriseThatCannotBeRuledOutIsAnError has a git that does not work.
func TestASurpriseThatCannotBeRuledOutIsAnError(t *testing.T) {
	broken := errors.New("git is not installed")
	p := Known{lineage: func(string) (inventory.Lineage, error) { return "", broken }}
	if err := Surprise(bobsFacts(), p); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// TestTheProjectKnowsWhatItDeployedLast reads the link that a commit leaves here.
func TestTheProjectKnowsWhatItDeployedLast(t *testing.T) {
	roots := Roots{Dir: t.TempDir()}
	v := Session{Roots: roots}.At(&inventory.Inventory{File: "/p/ferry.nix", Source: inventory.Source{Path: ourSource}}, inventory.Node{Name: "pi"})
	if p := v.Known(context.Background(), agenttest.NewSystem); len(p.deployed) > 0 || p.source != ourSource || p.toplevel != agenttest.NewSystem || p.node != "pi" {
		t.Errorf("%+v", p)
	}
	for link, bundle := range map[string]string{roots.Deployed("/p/ferry.nix", "pi"): agenttest.OldBundle, roots.Tried("/p/ferry.nix", "pi"): agenttest.NewBundle} {
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(bundle, link); err != nil {
			t.Fatal(err)
		}
	}
	p := v.Known(context.Background(), agenttest.NewSystem)
	if !slices.Equal(p.deployed, []string{agenttest.OldBundle, agenttest.NewBundle}) {
		t.Errorf("deployed %q", p.deployed)
	}
	if lineage, err := p.lineage(bobsCommit); err != nil || lineage != inventory.NotComparable {
		t.Errorf("%s, %v", lineage, err)
	}
}
