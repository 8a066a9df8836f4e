package deploy

import (
	"fmt"
	"strings"

	"ferry/internal/agent"
)

// activationError tells what an exit status of switch-to-configuration means; nil for one that is a success. The meanings
// are those of NixOS's own switch-to-configuration, old and new.
func activationError(r agent.ActivateResult, action Action, before agent.Facts, toplevel string) error {
	back := backTo(before)
	stays := "the old system is still what boots"
	see := "the whole log is on the target: " + r.Log
	switch r.Status {
	case 0:
		return nil
	case 1:
		return hint("switch-to-configuration refused: exit status 1, nothing has changed", see)
	case 2:
		return hint("the activation script failed (exit status 2); the new system runs in part, "+stays, back, see)
	case 3:
		return hint("systemd could not be reloaded (exit status 3); the new system runs, "+stays, back, see)
	case 4:
		units := strings.Join(r.Failed, ", ")
		if units == "" {
			units = "see above"
		}
		return hint("units failed: "+units+"; the new system runs, "+stays, back, see)
	case 100:
		return hint("this change needs a reboot (exit status 100), nothing has been switched", "deploy it with --action boot, then reboot the target")
	case -1:
		return hint("it is not known how the activation ended: "+orUnknown(r.Error)+runsNow(r, toplevel), back, see)
	}
	return hint(fmt.Sprintf("switch-to-configuration %s ended with status %d%s; %s", action.activates(), r.Status, runsNow(r, toplevel), stays), back, see)
}

// backTo is what brings back what ran before.
func backTo(before agent.Facts) string {
	if before.Current == "" {
		return ""
	}
	return "back to what ran before, on the target: sudo " + before.Current + "/bin/switch-to-configuration test"
}

func runsNow(r agent.ActivateResult, toplevel string) string {
	if r.Current == toplevel {
		return "; the new system runs"
	}
	return ""
}

// commitError tells what a commit that did not work means.
func commitError(r agent.CommitResult) error {
	switch {
	case r.Status == 0 && r.Error == "":
		return nil
	case r.Status > 0:
		text := fmt.Sprintf("the boot loader could not be written (exit status %d); the new system may run, the old one is still what boots", r.Status)
		if r.Error != "" {
			text += "; " + r.Error
		}
		return hint(text, "is /boot full or read-only on the target: df /boot", "the whole log is on the target: "+r.Log)
	}
	return hint("the commit failed: "+orUnknown(r.Error), "the whole log is on the target: "+r.Log)
}
