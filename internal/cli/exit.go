package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/target"
)

// The exit statuses. 2 is the Go runtime's. An unknown one means failure: there may be more some day.
const (
	exitOK          = 0
	exitFailed      = 1
	exitPartly      = 3
	exitRolledBack  = 4
	exitUnknown     = 5
	exitUsage       = 10
	exitInterrupted = 130
)

const exitStatusHelp = `  0    every selected node has what was asked for
  1    failed, and no node was changed
  3    some nodes have what was asked for; the others failed and are unchanged
  4    a node was changed and rolled back; every node is in a known state
  5    a node is in an unknown state and needs a person
  10   wrong usage, or a wrong inventory
  130  interrupted, and no node was changed
`

// usageError is a command line that cannot be understood.
type usageError struct {
	err   error
	hints []string
}

func (e *usageError) Error() string   { return e.err.Error() }
func (e *usageError) Unwrap() error   { return e.err }
func (e *usageError) Hints() []string { return e.hints }

func usagef(hint, format string, args ...any) error {
	e := &usageError{err: fmt.Errorf(format, args...)}
	if hint != "" {
		e.hints = []string{hint}
	}
	return e
}

// reportedError is an exit status whose reasons have been printed already.
type reportedError struct{ status int }

func (e *reportedError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// exitStatus is the one place where an error becomes a number. The most serious wins.
func exitStatus(ctx context.Context, err error) int {
	var usage interface{ Usage() bool }
	var mine *usageError
	var failed *session.Error
	var reported *reportedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &reported):
		return reported.status
	case errors.As(err, &failed) && failed.State == session.Unknown:
		return exitUnknown
	case errors.As(err, &failed) && failed.State == session.RolledBack:
		return exitRolledBack
	case interrupted(ctx, err) && !(failed != nil && failed.Settled):
		return exitInterrupted
	case errors.As(err, &mine), errors.As(err, &usage) && usage.Usage():
		return exitUsage
	}
	return exitFailed
}

// interrupted tells whether the user has asked for an end. Programs that ran here may have got the same signal, and failed in
// any way.
func interrupted(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, target.ErrInterrupted) || ctx.Err() != nil
}

// report prints err and gives the exit status. The rules for messages: lower case, no full stop; node, step, what happened,
// and the command if one failed; then what the program that failed wrote; then at most two hints, each something to do.
func (a *app) report(ctx context.Context, err error) int {
	status := exitStatus(ctx, err)
	var reported *reportedError
	if err == nil || errors.As(err, &reported) {
		return status
	}
	if status == exitInterrupted {
		fmt.Fprintln(a.Err, "ferry: interrupted; no node was changed")
		return status
	}
	if !a.started {
		var wrong *usageError
		if !errors.As(err, &wrong) || len(wrong.hints) == 0 {
			err = &usageError{err: err, hints: []string{"ferry help shows how it is used"}}
		}
		status = exitUsage
	}
	for _, line := range explanation(err) {
		fmt.Fprintln(a.Err, line)
	}
	return status
}

// explanation is what is printed of an error.
func explanation(err error) []string {
	var lines []string
	for _, line := range output(err) {
		lines = append(lines, "  "+run.Printable(line))
	}
	lines = append(lines, "ferry: error: "+message(err))
	var with interface{ Hints() []string }
	if errors.As(err, &with) {
		hints := with.Hints()
		for _, hint := range hints[:min(2, len(hints))] {
			lines = append(lines, "ferry: hint: "+oneLine(hint))
		}
	}
	return lines
}

// output is what the program that failed wrote last, unless that is one line that the message has already.
func output(err error) []string {
	lines := session.Output(err)
	if len(lines) == 1 && strings.Contains(message(err), strings.TrimSpace(lines[0])) {
		return nil
	}
	return lines
}

func message(err error) string { return oneLine(err.Error()) }

// oneLine joins the lines of a message that another program wrote. Nothing in it moves a cursor.
func oneLine(s string) string {
	var b strings.Builder
	for line := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		switch {
		case b.Len() == 0:
		case strings.ContainsRune(".,:;", rune(b.String()[b.Len()-1])):
			b.WriteByte(' ')
		default:
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return run.Printable(b.String())
}
