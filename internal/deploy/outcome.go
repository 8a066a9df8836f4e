package deploy

import (
	"cmp"
	"fmt"
	"strings"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/session"
)

// wholeLog says where the log of a job is. Only root may read it there: it has in it whatever the system's own scripts print.
func wholeLog(file string) string { return "the whole log is on the target: " + file + ", for root" }

// activationError tells what an exit status of switch-to-configuration means; nil for one that is a success. The meanings
// are those of NixOS's own switch-to-configuration, old and new.
func activationError(r agent.ActivateResult, act action.Action, before agent.Facts, toplevel string) error {
	back := rollBackByHand(before)
	if act == action.DryActivate {
		// There is nothing to come back from.
		back = ""
	}
	now := runsNow(r, act, before, toplevel)
	see := wholeLog(r.Log)
	if r.Refused != "" {
		return session.Hint(r.Refused+now, see)
	}
	switch r.Status {
	case 0:
		return nil
	case 1:
		return session.Hint("switch-to-configuration refused (exit status 1)"+now, see)
	case 2:
		return session.Hint("the activation script failed (exit status 2)"+now, back, see)
	case 3:
		return session.Hint("systemd could not be reloaded (exit status 3)"+now, back, see)
	case 4:
		units := strings.Join(r.Failed, ", ")
		if units == "" {
			units = "see above"
		}
		return session.Hint("units failed: "+units+now, back, see)
	case 100:
		return session.Hint("this change needs a reboot (exit status 100)"+now, "deploy it with --action boot, then reboot the target")
	case -1:
		return session.Hint("it is not known how the activation ended: "+cmp.Or(r.Error, "it left no status")+now, back, see)
	}
	return session.Hint(fmt.Sprintf("switch-to-configuration %s ended with status %d%s", act.Activates(), r.Status, now), back, see)
}

// runsNow says what runs after an activation that failed.
func runsNow(r agent.ActivateResult, act action.Action, before agent.Facts, toplevel string) string {
	const stays = "the old system is still what boots"
	switch {
	case stateAfter(r, act, before, toplevel) == session.Unchanged:
		return "; nothing has changed"
	case r.Current == toplevel && r.Status == 2:
		return "; the new system runs in part, " + stays
	case r.Current == toplevel && before.Profile != toplevel:
		return "; the new system runs, " + stays
	case r.Current == toplevel:
		return "; the new system runs"
	}
	return "; " + stays
}

// stateAfter is the state that an activation that failed leaves. switch-to-configuration stops units before it activates, so
// only the statuses that it gives before that mean that nothing has changed.
func stateAfter(r agent.ActivateResult, act action.Action, before agent.Facts, toplevel string) session.State {
	switch {
	case act == action.DryActivate:
		return session.Unchanged
	case r.Current != before.Current:
		return session.Unknown
	case r.Status == 1, r.Status == 100:
		return session.Unchanged
	case r.Status == 2 && r.Current != toplevel:
		// Not the activation script, which would have moved it: "this is not a NixOS installation".
		return session.Unchanged
	}
	return session.Unknown
}

// rollBackByHand is what brings back what ran before.
func rollBackByHand(before agent.Facts) string {
	if before.Current == "" {
		return ""
	}
	return "back to what ran before, on the target: sudo " + before.Current + "/bin/switch-to-configuration test"
}

// commitError tells what a commit that did not work means; runs says that the system runs already.
func commitError(r agent.CommitResult, runs bool) error {
	see := wholeLog(r.Log)
	var text string
	var hints []string
	switch {
	case r.Status == 0 && r.Error == "":
		return nil
	case r.Refused != "":
		text = "the commit failed: " + r.Refused
		if r.Error != "" {
			text += "; " + r.Error
		}
	case r.Status > 0:
		text = fmt.Sprintf("the boot loader could not be written (exit status %d)", r.Status)
		if r.Error != "" {
			text += "; " + r.Error
		}
		hints = []string{"is /boot full or read-only on the target: df /boot"}
	default:
		text = "the commit failed: " + cmp.Or(r.Error, "it left no status")
	}
	switch {
	case r.Unclean:
	case runs:
		text += "; the new system runs, the old one is still what boots"
	default:
		text += "; nothing has changed"
	}
	return session.Hint(text, append(hints, see)...)
}
