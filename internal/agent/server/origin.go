package server

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// addOrigin adds to facts where what the target runs and boots is from: the bundle's manifest, the generation, the journal.
func addOrigin(r machine.Root, facts *agent.Facts) {
	p := readProfile(r)
	facts.Generation = p.generation
	facts.ProfileTime = r.Modified(generationPath(p.generation))
	facts.Version = nixosVersion(r, facts.Current)
	facts.Deployed = readManifest(r, facts.Bundle)
	if pending := r.StorePath(filepath.Join(machine.GCRoots, "pending")); pending != "" {
		facts.Pending = r.StorePath(pending + "/profile")
	}
	if facts.Current != "" && facts.Current != facts.Profile {
		facts.CurrentGeneration = generationOf(r, facts.Current)
		facts.Specialisation = specialisationOf(r, facts.Profile, facts.Current)
	}
	addJournal(r, facts)
	if facts.Previous == nil {
		// A reboot may empty /var/log, and not /nix.
		facts.Previous = previousState(r)
	} else {
		facts.Previous.Bundle = madeOf(r, *facts.Previous)
	}
}

// madeOf is the bundle whose system ran in a state, or "". It is the one that was committed last, or another one if what ran had
// only been tried.
func madeOf(r machine.Root, state agent.JournalState) string {
	isIts := func(bundle string) bool {
		profile := r.StorePath(bundle + "/profile")
		return bundle != "" && profile != "" && (profile == state.Current || specialisationOf(r, profile, state.Current) != "")
	}
	if state.Current == "" {
		return ""
	}
	if isIts(state.Bundle) {
		return state.Bundle
	}
	seen := 0
	for e := range journalEntries(r) {
		if e.Toplevel == state.Current && isIts(e.Bundle) {
			return e.Bundle
		}
		if seen++; seen == maxLookBack {
			break
		}
	}
	return ""
}

// addJournal adds what the journal has.
func addJournal(r machine.Root, facts *agent.Facts) {
	seen := 0
	for e := range journalEntries(r) {
		if facts.Last == nil {
			facts.Last = &e
		}
		if facts.LastCommit == nil && e.Bundle == facts.Bundle && e.After.Bundle == e.Bundle {
			facts.LastCommit = &e
		}
		if facts.Previous == nil && e.Changes() && e.Action != agent.ActionRollback {
			facts.Previous = &e.Before
		}
		if seen++; facts.Previous != nil && (facts.LastCommit != nil || facts.Bundle == "") || seen == maxLookBack {
			return
		}
	}
}

// maxLookBack is how many deployments ferry's hello may wait for.
const maxLookBack = 256

// currentState is what the machine runs and boots now, for the journal.
func currentState(r machine.Root) agent.JournalState {
	p := readProfile(r)
	return agent.JournalState{
		Current: r.StorePath("/run/current-system"), Profile: p.toplevel, Generation: p.generation, Bundle: currentBundle(r),
	}
}

// readManifest is what a bundle's ferry.json says; the zero value if there is none.
func readManifest(r machine.Root, bundle string) agent.Manifest {
	var m agent.Manifest
	if bundle == "" || json.Unmarshal(r.Head(bundle+"/ferry.json"), &m) != nil {
		return agent.Manifest{}
	}
	m.Clean()
	return m
}

// nixosVersion is the version that a toplevel says it is.
func nixosVersion(r machine.Root, toplevel string) string {
	if toplevel == "" {
		return ""
	}
	line, _, _ := strings.Cut(string(r.Head(toplevel+"/nixos-version")), "\n")
	return strings.TrimSpace(line)
}

// specialisationOf is the name of the one of a toplevel's specialisations that is system, or "".
func specialisationOf(r machine.Root, toplevel, system string) string {
	if toplevel == "" {
		return ""
	}
	// The second is their name before 20.09.
	for _, folder := range []string{toplevel + "/specialisation", toplevel + "/fine-tune"} {
		entries, err := os.ReadDir(r.Path(folder))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if r.StorePath(filepath.Join(folder, e.Name())) == system {
				return e.Name()
			}
		}
	}
	return ""
}

// generationPath is the link that keeps a generation of the system profile.
func generationPath(number int) string { return systemProfile + "-" + strconv.Itoa(number) + "-link" }
