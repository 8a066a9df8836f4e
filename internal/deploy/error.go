package deploy

import (
	"errors"
	"fmt"
	"slices"

	"ferry/internal/run"
)

// State is what a failed deployment leaves behind.
type State string

// The states, from harmless to serious.
const (
	Unchanged  State = "unchanged"   // the node runs and boots what it did before
	RolledBack State = "rolled back" // it was changed, and runs and boots what it did before again
	Unknown    State = "unknown"     // a person has to look
)

// Error is a deployment of one node that failed.
type Error struct {
	Node  string
	Step  Step
	State State
	Err   error
	// Settled says that the node itself came to this end: a signal of the user's, if there was one, has nothing to do with it.
	Settled bool
	hints   []string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Node, e.Step, e.Err) }

// Unwrap gives what went wrong.
func (e *Error) Unwrap() error { return e.Err }

// settled marks the error of work on a node that does not end at the user's first signal.
func settled(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Settled = true
	}
	return err
}

// Hints says what the user can do, at most two things.
func (e *Error) Hints() []string {
	hints := slices.Concat(e.hints, hintsOf(e.Err))
	return hints[:min(2, len(hints))]
}

// hintsOf are the hints of an error, the outermost that has some.
func hintsOf(err error) []string {
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

// hinted is an error of this package with its hints.
type hinted struct {
	text  string
	hints []string
	err   error
}

func (e *hinted) Error() string   { return e.text }
func (e *hinted) Hints() []string { return e.hints }
func (e *hinted) Unwrap() error   { return e.err }

// hint makes an error with hints; an empty one does not count.
func hint(text string, hints ...string) error {
	return &hinted{text: text, hints: slices.DeleteFunc(hints, func(h string) bool { return h == "" })}
}
