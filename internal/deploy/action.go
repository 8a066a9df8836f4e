package deploy

import "fmt"

// Action is what to do with a system on a target, in NixOS's own words.
type Action string

// The actions.
const (
	Switch      Action = "switch"       // run it now and boot it from now on
	Boot        Action = "boot"         // boot it from now on
	Test        Action = "test"         // run it now; the next boot brings the old one back
	DryActivate Action = "dry-activate" // say what would change
)

// ParseAction reads an action as a user writes it.
func ParseAction(s string) (Action, error) {
	switch a := Action(s); a {
	case Switch, Boot, Test, DryActivate:
		return a, nil
	}
	return "", fmt.Errorf("unknown action %q: expected switch, boot, test or dry-activate", s)
}

// activates is what switch-to-configuration is called with before anything is committed, or "".
func (a Action) activates() string {
	switch a {
	case Switch, Test:
		return "test"
	case DryActivate:
		return "dry-activate"
	}
	return ""
}

// commits tells whether the system becomes the boot default.
func (a Action) commits() bool { return a == Switch || a == Boot }
