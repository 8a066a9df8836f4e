// Package action is what is asked of a target: in which way it is to have a system, and whether it has it so already.
package action

import (
	"fmt"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

// Action is what to do with a system on a target, in NixOS's own words.
type Action string

// The actions.
const (
	Switch      Action = "switch"       // run it now and boot it from now on
	Boot        Action = "boot"         // boot it from now on
	Test        Action = "test"         // run it now; the next boot brings the old one back
	DryActivate Action = "dry-activate" // say what would change
)

// Parse reads an action as a user writes it.
func Parse(s string) (Action, error) {
	switch a := Action(s); a {
	case Switch, Boot, Test, DryActivate:
		return a, nil
	}
	return "", fmt.Errorf("unknown action %q: expected switch, boot, test or dry-activate", s)
}

// Activates is what switch-to-configuration is called with before anything is committed, or "".
func (a Action) Activates() string {
	switch a {
	case Switch, Test:
		return "test"
	case DryActivate:
		return "dry-activate"
	}
	return ""
}

// Commits tells whether the system becomes the boot default.
func (a Action) Commits() bool { return a == Switch || a == Boot }

// IsDone tells whether a target is as the action asks already, bundle and all; see [Action.HasSystem].
func (a Action) IsDone(facts agent.Facts, bundle, toplevel nix.StorePath, reboot bool) bool {
	if facts.Bundle != string(bundle) && a.Commits() {
		return false
	}
	return a.HasSystem(facts, toplevel, reboot)
}

// HasSystem tells whether a target runs and boots what the action asks already; with reboot it has to have booted it as well. A
// system that was not committed to the end counts as another one: its activation may have failed in the middle, and its boot
// loader may not be written.
func (a Action) HasSystem(facts agent.Facts, toplevel nix.StorePath, reboot bool) bool {
	if facts.Committed != string(toplevel) {
		return false
	}
	runs, boots := facts.Current == string(toplevel), facts.Profile == string(toplevel)
	switch a {
	case Switch:
		return runs && boots
	case Boot:
		if reboot {
			return runs && boots && facts.Booted == string(toplevel)
		}
		return boots
	case Test:
		return runs
	}
	return false
}
