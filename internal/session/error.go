package session

import (
	"errors"
	"fmt"
	"slices"

	"ferry/internal/agent"
	"ferry/internal/run"
)

// State is what failed work leaves of a node.
type State string

// The states, from harmless to serious.
const (
	Unchanged  State = "unchanged"   // the node runs and boots what it did before
	RolledBack State = "rolled back" // it was changed, and runs and boots what it did before again
	Unknown    State = "unknown"     // a person has to look
)

// Error is work on one node that failed.
type Error struct {
	Node  string
	Step  Step
	State State
	Err   error
	// Settled says that the node itself came to this end: a signal of the user's, if there was one, has nothing to do with it.
	Settled bool
	// Advice is what the user can do, besides what Err itself advises.
	Advice []string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Node, e.Step, e.Err) }

// Unwrap gives what went wrong.
func (e *Error) Unwrap() error { return e.Err }

// Settled marks the error of work on a node that does not end at the user's first signal.
func Settled(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Settled = true
	}
	return err
}

// Hints says what the user can do, at most two things.
func (e *Error) Hints() []string {
	hints := slices.Concat(e.Advice, HintsOf(e.Err))
	return hints[:min(2, len(hints))]
}

// HintsOf are the hints of an error, the outermost that has some.
func HintsOf(err error) []string {
	var with interface{ Hints() []string }
	if !errors.As(err, &with) {
		return nil
	}
	return slices.Clone(with.Hints())
}

// Output is the last lines of what the program that failed wrote, if there are any.
func (e *Error) Output() []string { return Output(e.Err) }

// Output is the last lines of what the program that failed with err wrote: as the error itself gives them, which may be none
// because it says it better, else the end of standard error.
func Output(err error) []string {
	var with interface{ Output() []string }
	if errors.As(err, &with) {
		return with.Output()
	}
	var failed *run.Error
	if errors.As(err, &failed) {
		return run.LastLines(failed.Stderr, 20)
	}
	return nil
}

// Advised is an error that says itself what the user can do.
type Advised struct {
	Text   string
	Advice []string
	Err    error // what it comes from; may be nil
}

func (e *Advised) Error() string { return e.Text }

// Hints says what the user can do.
func (e *Advised) Hints() []string { return e.Advice }

// Unwrap gives what it comes from.
func (e *Advised) Unwrap() error { return e.Err }

// Hint makes an error with hints; an empty one does not count.
func Hint(text string, hints ...string) error {
	return &Advised{Text: text, Advice: slices.DeleteFunc(hints, func(h string) bool { return h == "" })}
}

// FullDisk says what to do where err is that the target's disk is full.
func FullDisk(err error) error {
	var response *agent.ResponseError
	if errors.As(err, &response) && response.Kind == agent.KindDiskFull {
		return &Advised{Text: "the target's disk is full: " + response.Text, Err: err, Advice: []string{
			"on the target: sudo nix-collect-garbage --delete-older-than 30d; then run this again, what has arrived is kept",
		}}
	}
	return err
}
