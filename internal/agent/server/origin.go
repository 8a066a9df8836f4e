package server

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ferry/internal/agent"
)

// addOrigin adds to facts where what the target runs and boots is from: the bundle's manifest, the generation, the journal.
func (r root) addOrigin(facts *agent.Facts) {
	p := r.readProfile()
	facts.Generation = p.generation
	facts.ProfileTime = r.modified(generationPath(p.generation))
	facts.Version = r.nixosVersion(facts.Current)
	facts.Deployed = r.manifest(facts.Bundle)
	if pending := r.storePath(filepath.Join(gcRoots, "pending")); pending != "" {
		facts.Pending = r.storePath(pending + "/profile")
	}
	if facts.Current != "" && facts.Current != facts.Profile {
		facts.CurrentGeneration = r.generationOf(facts.Current)
		facts.Specialisation = r.specialisation(facts.Profile, facts.Current)
	}
	r.addJournal(facts)
	if facts.Previous == nil {
		// A reboot may empty /var/log, and not /nix.
		facts.Previous = r.previous()
	} else {
		facts.Previous.Bundle = r.madeOf(*facts.Previous)
	}
}

// madeOf is the bundle whose system ran in a state, or "". It is the one that was committed last, or another one if what ran had
// only been tried.
func (r root) madeOf(state agent.JournalState) string {
	isIts := func(bundle string) bool {
		profile := r.storePath(bundle + "/profile")
		return bundle != "" && profile != "" && (profile == state.Current || r.specialisation(profile, state.Current) != "")
	}
	if state.Current == "" {
		return ""
	}
	if isIts(state.Bundle) {
		return state.Bundle
	}
	seen := 0
	for e := range r.journal() {
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
func (r root) addJournal(facts *agent.Facts) {
	seen := 0
	for e := range r.journal() {
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

// state is what the machine runs and boots now, for the journal.
func (r root) state() agent.JournalState {
	p := r.readProfile()
	return agent.JournalState{
		Current: r.storePath("/run/current-system"), Profile: p.toplevel, Generation: p.generation, Bundle: r.currentBundle(),
	}
}

// manifest is what a bundle's ferry.json says; the zero value if there is none.
func (r root) manifest(bundle string) agent.Manifest {
	var m agent.Manifest
	if bundle == "" || json.Unmarshal(r.head(bundle+"/ferry.json"), &m) != nil {
		return agent.Manifest{}
	}
	m.Clean()
	return m
}

// nixosVersion is the version that a toplevel says it is.
func (r root) nixosVersion(toplevel string) string {
	if toplevel == "" {
		return ""
	}
	line, _, _ := strings.Cut(string(r.head(toplevel+"/nixos-version")), "\n")
	return strings.TrimSpace(line)
}

// head is the beginning of a small file.
func (r root) head(name string) []byte { return r.beginning(name, 64<<10) }

// beginning is at most limit bytes of a file.
func (r root) beginning(name string, limit int64) []byte {
	file, err := os.Open(r.path(name))
	if err != nil {
		return nil
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, limit))
	if err != nil {
		return nil
	}
	return text
}

// specialisation is the name of the one of a toplevel's specialisations that is system, or "".
func (r root) specialisation(toplevel, system string) string {
	if toplevel == "" {
		return ""
	}
	// The second is their name before 20.09.
	for _, folder := range []string{toplevel + "/specialisation", toplevel + "/fine-tune"} {
		entries, err := os.ReadDir(r.path(folder))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if r.storePath(filepath.Join(folder, e.Name())) == system {
				return e.Name()
			}
		}
	}
	return ""
}

// generationPath is the link that keeps a generation of the system profile.
func generationPath(number int) string { return systemProfile + "-" + strconv.Itoa(number) + "-link" }

// modified is when a link was made, in seconds since 1970; 0 if there is none.
func (r root) modified(link string) int64 {
	info, err := os.Lstat(r.path(link))
	if err != nil {
		return 0
	}
	return info.ModTime().Unix()
}
