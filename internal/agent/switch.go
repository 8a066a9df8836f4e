package agent

import (
	"ferry/internal/nix"
)

// Phase is how far a guarded switch is on its target.
type Phase string

// The phases, in their order. A switch that goes wrong leaves the order for Undoing, RollingBack and Stranded.
const (
	Arming      Phase = "arming"
	Activating  Phase = "activating"
	Waiting     Phase = "waiting"   // the new system runs, and waits to be confirmed
	Confirmed   Phase = "confirmed" // ferry has come back over a new connection; its verdict on the checks is awaited
	Committing  Phase = "committing"
	Undoing     Phase = "undoing" // a commit that failed is undone, before the rest rolls back
	RollingBack Phase = "rolling back"
	// Stranded is a target that could not roll back: it tries again, with growing pauses, until it has, or a person decides.
	Stranded Phase = "stranded"
	Ended    Phase = "ended"
)

// SwitchOutcome is what became of a guarded switch.
type SwitchOutcome string

// The outcomes.
const (
	SwitchCommitted  SwitchOutcome = "committed"   // it runs and is what boots
	SwitchActivated  SwitchOutcome = "activated"   // it runs, as action test asks
	SwitchRefused    SwitchOutcome = "refused"     // nothing was changed
	SwitchRolledBack SwitchOutcome = "rolled back" // what ran before runs and boots again
	SwitchStranded   SwitchOutcome = "stranded"    // neither the new nor the old system runs as it should
	SwitchOvertaken  SwitchOutcome = "overtaken"   // somebody else has switched meanwhile: that was left as it is
)

// Limits are the times of a guarded switch, in seconds.
type Limits struct {
	Activation int `json:"activation"` // how long switch-to-configuration may take
	Confirm    int `json:"confirm"`    // from its end until ferry must have come back
	Checks     int `json:"checks"`     // from then until ferry must have told its verdict; 0: none is awaited
}

// Units says which failed units make a switch roll back: "no-new", "none" (may have failed) or "ignore".
type Units string

// Token is what ferry proves by, over a new connection as the login user, that it has come back: a file that it writes on
// the target.
type Token struct {
	Name string `json:"name"` // of the file, below ConfirmFolder; random
	Hash string `json:"hash"` // sha256 of what it must contain, base 16
}

// ConfirmFolder is where the token of a switch is written on the target. It is the login user's, who knows its path and sees
// nothing else of the switch.
func ConfirmFolder(job string) string { return "/run/ferry/" + job + "-switch/confirm" }

// GuardOptions are those of a guarded switch: the new system is activated, and stays only if it is confirmed. The target itself rolls back
// otherwise.
type GuardOptions struct {
	Limits Limits `json:"limits"`
	Units  Units  `json:"units,omitempty"`
	// Awaits names the checks that ferry makes, by a hash, for whoever attaches to the switch later: that ferry makes those that it
	// knows itself, and has to know whether they are the same.
	Awaits string `json:"awaits,omitempty"`
	// Unsafe goes on where no rollback can be armed: without systemd, or without a system that could be returned to.
	Unsafe bool `json:"unsafe,omitempty"`
}

// Record is what the target's journal says of a deployment besides what the target knows itself.
type Record struct {
	Node   string `json:"node,omitempty"`
	Action string `json:"action,omitempty"` // as the user said it: switch, boot, test, rollback
}

// SwitchResult is how far a guarded switch is, or how it ended.
type SwitchResult struct {
	Job    string `json:"job" is:"short"`
	Phase  Phase  `json:"phase"`
	Status int    `json:"status"` // of switch-to-configuration test; -1: it is not known
	// Outcome is set when Phase is Ended, and Reason then says why it is not the one that was asked for. It is set to SwitchStranded
	// as well while the target, in the phase of that name, goes on trying.
	Outcome SwitchOutcome `json:"outcome,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	// From is the phase that it rolled back from, which may have been over too soon to be seen; "" if it did not.
	From Phase `json:"from,omitempty"`
	// Trouble is what went wrong besides: an old system whose units fail again, a timer that could not be stopped.
	Trouble string   `json:"trouble,omitempty"`
	Failed  []string `json:"failed,omitempty"` // units that are in the failed state and were not before
	// UserUnits are failed units of local users that have no say in the outcome, each behind its user's name.
	UserUnits  []string `json:"user_units,omitempty" is:"short"`
	Generation int      `json:"generation,omitempty"`
	Current    string   `json:"current" is:"path"` // toplevel that runs now
	Log        string   `json:"log"`               // where the whole log is on the target

	// What the switch is about, for who attaches to it.
	Toplevel nix.StorePath `json:"toplevel"`
	Bundle   nix.StorePath `json:"bundle,omitempty"`
	Action   string        `json:"action"`
	Who      string        `json:"who"`
	Before   string        `json:"before" is:"path"` // toplevel that ran before
	// Awaits is [Switch.Awaits]; "": the switch is committed without checks.
	Awaits Verbatim `json:"awaits,omitempty"`
	// Left is how many seconds there are until the target rolls back by itself, in the phases Waiting and Confirmed, or tries it
	// again, in the phase Stranded.
	Left int `json:"left,omitempty"`
}
