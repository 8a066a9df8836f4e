package chaos_test

import (
	"encoding/json"
	"slices"
	"strings"
)

// journalEntry is a line of the target's journal, as doc/journal.md describes it.
type journalEntry struct {
	Node, Action, Toplevel, Outcome, Reason string
	Before, After                           struct{ Current, Profile, Bundle string }
}

// journalOf reads the lines that a look has found.
func journalOf(lines []string) (entries []journalEntry, torn int) {
	for _, line := range lines {
		var e journalEntry
		if json.Unmarshal([]byte(line), &e) != nil || e.Outcome == "" {
			torn++
			continue
		}
		entries = append(entries, e)
	}
	return entries, torn
}

// means tells what is wrong with an entry by itself; "" if nothing.
func (e journalEntry) means() string {
	is := map[string]bool{
		"committed":   e.After.Current == e.Toplevel && e.After.Profile == e.Toplevel,
		"activated":   e.After.Current == e.Toplevel && e.After.Profile == e.Before.Profile && e.Action == "test",
		"installed":   e.After.Profile == e.Toplevel,
		"rolled back": e.After.Current == e.Before.Current && e.After.Profile == e.Before.Profile,
		"unchanged":   e.After.Current == e.Before.Current && e.After.Profile == e.Before.Profile,
		"failed":      true,
	}
	if !is[e.Outcome] {
		return "what was there before and after is not that"
	}
	return ""
}

// outcomes are how a deployment may be in the journal, by what its ferry said.
var outcomes = map[int][]string{
	0:   {"committed", "activated", "installed"},
	1:   {"unchanged", "failed"},
	4:   {"rolled back", "failed"},
	130: {"unchanged"},
}

// judgeJournal compares what the target has written down with what it is, and with what ferry said.
func (r *round) judgeJournal(after look, all []deployed) {
	restarted := r.plan.any(func(f fault) bool { return f.restart })
	entries, torn := journalOf(after.journal)
	if torn > 0 && !restarted {
		r.violates("%d lines of the journal are no entries", torn)
	}
	for _, e := range entries {
		if wrong := e.means(); wrong != "" {
			r.violates("the journal says that %s is %s: %s (%s runs and %s boots, before %s and %s)", r.nameOf(e.Toplevel), e.Outcome, wrong,
				r.nameOf(e.After.Current), r.nameOf(e.After.Profile), r.nameOf(e.Before.Current), r.nameOf(e.Before.Profile))
		}
	}
	if last := len(entries) - 1; last >= 0 && !restarted && !r.plan.restarts() {
		e := entries[last]
		if e.After.Current != after.runs || e.After.Profile != after.profile {
			r.violates("the journal ends with %s running and %s booting, and it is %s and %s",
				r.nameOf(e.After.Current), r.nameOf(e.After.Profile), r.nameOf(after.runs), r.nameOf(after.profile))
		}
	}
	// A disk that takes no more keeps nobody from deploying.
	if restarted || r.plan.any(func(f fault) bool { return strings.HasPrefix(f.name, "/var ") }) {
		return
	}
	for _, d := range all {
		want, told := outcomes[d.status]
		if !told {
			continue
		}
		var said []string
		for _, e := range entries {
			if e.Toplevel == r.toplevels[d.system] {
				said = append(said, e.Outcome)
			}
		}
		switch {
		case len(said) == 0 && (d.status == 0 || d.status == 4) && d.action != doReboot:
			r.violates("ferry for %s ended with status %d, and the journal has nothing of it", d.system, d.status)
		case len(said) > 0 && !slices.Contains(want, said[len(said)-1]):
			r.violates("ferry for %s ended with status %d, and the journal says %s", d.system, d.status, strings.Join(said, ", then "))
		}
	}
}
