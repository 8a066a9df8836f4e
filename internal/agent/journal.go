package agent

import (
	"time"
)

// JournalEntry is one deployment in the record that a target keeps: who brought what when, and how it ended. doc/journal.md
// describes the file.
type JournalEntry struct {
	ID       string    `json:"id" is:"short"`             // the deployment's, as in /run/ferry/ID
	Time     time.Time `json:"time"`                      // when it ended, by the target's clock: UTC, whole seconds
	Who      string    `json:"who" is:"short"`            // user@machine, as that ferry said
	From     string    `json:"from,omitempty" is:"short"` // the client's address; "": none, or not known
	Action   string    `json:"action" is:"short"`         // switch, test, boot, rollback, …
	Node     string    `json:"node" is:"short"`
	Bundle   string    `json:"bundle" is:"path"`
	Toplevel string    `json:"toplevel" is:"path"`
	Revision string    `json:"revision,omitempty" is:"revision"` // git revision of the bundle; "": it is not from git
	Dirty    bool      `json:"dirty,omitempty"`                  // the source differed from Revision
	Version  string    `json:"version,omitempty" is:"short"`     // NixOS's version of Toplevel

	Before  JournalState   `json:"before"`
	After   JournalState   `json:"after"`
	Outcome JournalOutcome `json:"outcome" is:"short"`
	Reason  string         `json:"reason,omitempty"` // why it failed or was rolled back
	// UserUnits is [SwitchResult]'s.
	UserUnits []string `json:"user_units,omitempty" is:"short"`
}

// JournalState is what a target runs and boots.
type JournalState struct {
	Current    string `json:"current" is:"path"` // toplevel that runs
	Profile    string `json:"profile" is:"path"` // toplevel of the system profile
	Generation int    `json:"generation"`        // number of the system profile; 0: none
	Bundle     string `json:"bundle" is:"path"`  // bundle that was committed last
}

// JournalOutcome is how a deployment ended.
type JournalOutcome string

// The outcomes.
const (
	JournalCommitted  JournalOutcome = "committed"   // it runs and boots
	JournalActivated  JournalOutcome = "activated"   // it runs, and is not what boots
	JournalInstalled  JournalOutcome = "installed"   // it boots, and does not run yet
	JournalRolledBack JournalOutcome = "rolled back" // what ran before runs again
	JournalFailed     JournalOutcome = "failed"      // see Before, After and Reason
	JournalUnchanged  JournalOutcome = "unchanged"   // it ended before anything was changed
)

// ActionRollback is the action of an entry that is no deployment of something new but a rollback by hand.
const ActionRollback = "rollback"

// Changes tells whether after the deployment the target ran or booted something else than before.
func (e *JournalEntry) Changes() bool {
	return e.Before.Current != e.After.Current || e.Before.Profile != e.After.Profile
}

// Manifest is what a bundle's ferry.json says of where it is from.
type Manifest struct {
	Node     string `json:"node" is:"short"`
	Revision string `json:"revision" is:"revision"` // git revision that Source is based on; "": it is not from git
	Dirty    bool   `json:"dirty"`                  // Source differs from Revision
	Source   string `json:"source" is:"path"`       // the snapshot
	Version  string `json:"nixpkgsVersion" is:"short"`
	// Attribute is the configuration of a flake that it is; "" for what is no flake's.
	Attribute string `json:"attribute" is:"short"`
}
