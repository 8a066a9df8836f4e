package agent

import (
	"strings"
	"time"

	"ferry/internal/run"
)

// JournalEntry is one deployment in the record that a target keeps: who brought what when, and how it ended. doc/journal.md
// describes the file.
type JournalEntry struct {
	ID       string    `json:"id"`             // the deployment's, as in /run/ferry/ID
	Time     time.Time `json:"time"`           // when it ended, by the target's clock: UTC, whole seconds
	Who      string    `json:"who"`            // user@machine, as that ferry said
	From     string    `json:"from,omitempty"` // the client's address; "": none, or not known
	Action   string    `json:"action"`         // switch, test, boot, rollback, …
	Node     string    `json:"node"`
	Bundle   string    `json:"bundle"`
	Toplevel string    `json:"toplevel"`
	Revision string    `json:"revision,omitempty"` // git revision of the bundle; "": it is not from git
	Dirty    bool      `json:"dirty,omitempty"`    // the source differed from Revision
	Version  string    `json:"version,omitempty"`  // NixOS's version of Toplevel

	Before  JournalState   `json:"before"`
	After   JournalState   `json:"after"`
	Outcome JournalOutcome `json:"outcome"`
	Reason  string         `json:"reason,omitempty"` // why it failed or was rolled back
}

// JournalState is what a target runs and boots.
type JournalState struct {
	Current    string `json:"current"`    // toplevel that runs
	Profile    string `json:"profile"`    // toplevel of the system profile
	Generation int    `json:"generation"` // number of the system profile; 0: none
	Bundle     string `json:"bundle"`     // bundle that was committed last
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

// ActionRollback is the action of an entry that is no deployment of something new but a way back by hand.
const ActionRollback = "rollback"

// Changes tells whether after the deployment the target ran or booted something else than before.
func (e *JournalEntry) Changes() bool {
	return e.Before.Current != e.After.Current || e.Before.Profile != e.After.Profile
}

// Clean makes an entry from anywhere safe to show and to write: what is no store path, revision or time is emptied, a long
// text is cut.
func (e *JournalEntry) Clean() {
	outcome := string(e.Outcome)
	cleanShort(&e.ID, &e.Who, &e.From, &e.Action, &e.Node, &e.Version, &outcome)
	e.Outcome = JournalOutcome(outcome)
	cleanText(&e.Reason)
	cleanRevision(&e.Revision)
	cleanPath(&e.Bundle, &e.Toplevel)
	e.Before.clean()
	e.After.clean()
	e.Time = e.Time.UTC().Truncate(time.Second)
	// Only these can be written as JSON again.
	if year := e.Time.Year(); year < 1970 || year > 9999 {
		e.Time = time.Time{}
	}
}

func (s *JournalState) clean() {
	cleanPath(&s.Current, &s.Profile, &s.Bundle)
	s.Generation = max(0, s.Generation)
}

// Manifest is what a bundle's ferry.json says of where it is from.
type Manifest struct {
	Node     string `json:"node"`
	Revision string `json:"revision"` // git revision that Source is based on; "": it is not from git
	Dirty    bool   `json:"dirty"`    // Source differs from Revision
	Source   string `json:"source"`   // the snapshot
	Version  string `json:"nixpkgsVersion"`
}

// Clean makes a manifest from anywhere safe to show.
func (m *Manifest) Clean() {
	cleanShort(&m.Node, &m.Version)
	cleanRevision(&m.Revision)
	cleanPath(&m.Source)
}

// maxShort is how long a name, an address or a version may be, in bytes.
const maxShort = 200

func cleanShort(texts ...*string) {
	for _, t := range texts {
		*t = run.Clean(*t)
		if len(*t) > maxShort {
			*t = strings.ToValidUTF8((*t)[:maxShort], "")
		}
	}
}

// cleanRevision empties what is no git commit: it becomes an argument of git's.
func cleanRevision(revision *string) {
	r := *revision
	if len(r) < 7 || len(r) > 64 || strings.Trim(r, "0123456789abcdef") != "" {
		*revision = ""
	}
}
