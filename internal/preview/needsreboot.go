package preview

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
)

// NeedsReboot tells why the toplevel, which is in this machine's store, can only be booted on a target that runs what the
// facts say, or "" if nothing is known to be in the way of switching to it. It makes the comparisons that the toplevel's own
// switch-to-configuration and its check of switch inhibitors would make, both with /run/current-system.
func NeedsReboot(facts agent.Facts, toplevel nix.StorePath) string {
	if facts.Current == "" || facts.Current == string(toplevel) {
		return ""
	}
	init, err := session.SystemFile(toplevel, "init-interface-version")
	if err != nil {
		return ""
	}
	if reason := initReason(string(facts.InitInterface), init); reason != "" {
		return reason
	}
	inhibitors, err := session.SystemFile(toplevel, "switch-inhibitors")
	if err != nil {
		return ""
	}
	return inhibitorReason(string(facts.Inhibitors), inhibitors)
}

// initReason compares two init-interface-version. A running system without one counts as another one, as in NixOS.
func initReason(running, new string) string {
	if new == "" || running == new {
		return ""
	}
	return fmt.Sprintf("its init is of another kind than the one that runs (%s, not %s)",
		cmp.Or(run.Clean(strings.TrimSpace(new)), "none"), cmp.Or(run.Clean(strings.TrimSpace(running)), "none"))
}

// inhibitorReason compares two switch-inhibitors: an object of JSON whose values must not change where both have the name,
// or (in the first days of NixOS 26.05) store paths, one a line, that must not change at all. An empty side, or one of each
// kind, inhibits nothing.
func inhibitorReason(running, new string) string {
	was, wasObject := parseInhibitors(running)
	is, isObject := parseInhibitors(new)
	switch {
	case wasObject && isObject:
		return changedInhibitors(was, is)
	case wasObject || isObject, strings.TrimSpace(running) == "", strings.TrimSpace(new) == "":
		return ""
	}
	return changedPaths(strings.Fields(running), strings.Fields(new))
}

// parseInhibitors reads the form with names.
func parseInhibitors(text string) (map[string]string, bool) {
	var raw map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &raw) != nil || raw == nil {
		return nil, false
	}
	values := make(map[string]string, len(raw))
	for name, value := range raw {
		var s string
		if json.Unmarshal(value, &s) != nil {
			s = string(value)
		}
		values[name] = s
	}
	return values, true
}

func changedInhibitors(was, is map[string]string) string {
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(was)) {
		value, both := is[name]
		if !both || value == was[name] {
			continue
		}
		change := name + " would change"
		// A value may be a store path, whose hash says nothing to a person.
		if from, to := inhibitorName(was[name]), inhibitorName(value); from != to {
			change += fmt.Sprintf(" from %s to %s", cmp.Or(from, "none"), cmp.Or(to, "none"))
		}
		changes = append(changes, change)
	}
	return joinChanges(changes)
}

func changedPaths(was, is []string) string {
	var changes []string
	for _, p := range is {
		if !slices.Contains(was, p) {
			changes = append(changes, inhibitorName(p)+" would come")
		}
	}
	for _, p := range was {
		if !slices.Contains(is, p) {
			changes = append(changes, inhibitorName(p)+" would go")
		}
	}
	return joinChanges(changes)
}

// maxChanges is how many changes are named.
const maxChanges = 5

func joinChanges(changes []string) string {
	if n := len(changes); n > maxChanges {
		changes = append(changes[:maxChanges:maxChanges], fmt.Sprintf("%d more", n-maxChanges))
	}
	for i := range changes {
		changes[i] = run.Clean(changes[i])
	}
	return strings.Join(changes, ", ")
}

func inhibitorName(value string) string {
	if p, err := nix.ParseStorePath(value); err == nil {
		return p.Name()
	}
	return value
}
