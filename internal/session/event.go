package session

import (
	"time"

	"ferry/internal/nix"
	"ferry/internal/ship"
)

// Step is a part of the work on a node.
type Step string

// The steps, in the order in which they begin. Connect goes on beside evaluate and build; of compare there are no events.
const (
	Connect  Step = "connect"
	Evaluate Step = "evaluate"
	Build    Step = "build"
	Compare  Step = "compare"
	Ship     Step = "ship"
	Activate Step = "activate"
	Confirm  Step = "confirm"
	Check    Step = "check"
	Commit   Step = "commit"
	RollBack Step = "roll back"
	Reboot   Step = "reboot"
)

// Event is something that happened to a node. Which fields are set follows from Kind.
type Event struct {
	Kind EventKind
	Node string
	Step Step

	Text     string            // Finished: the outcome in a few words; Note, Line: the text, cleaned
	Duration time.Duration     // Finished
	Build    nix.BuildProgress // Building
	Ship     ship.Progress     // Shipping
	Sent     ship.Sent         // PathSent
}

// EventKind is what an Event tells.
type EventKind string

// The kinds of events.
const (
	Started  EventKind = "started"   // a step has begun
	Finished EventKind = "finished"  // a step is over and went well
	Building EventKind = "building"  // how far the build is
	Shipping EventKind = "shipping"  // how far the ship is
	PathSent EventKind = "path sent" // how a path was sent
	Line     EventKind = "line"      // a line that a program wrote: evaluation, build log, activation
	Note     EventKind = "note"      // something that the user should know, and no error
)
