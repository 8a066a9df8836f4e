package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"ferry/internal/run"
	"ferry/internal/target"
)

// StartError is an agent that could not be started on a target that could be reached.
type StartError struct {
	Text   string
	Stderr []string // what the target said last, cleaned
}

func (e *StartError) Error() string { return e.Text }

// Output is what the target said last.
func (e *StartError) Output() []string { return e.Stderr }

// ElevateKind is why root could not be had.
type ElevateKind string

// What sudo and its like refuse for.
const (
	WrongPassword  ElevateKind = "wrong password"
	PasswordNeeded ElevateKind = "password needed"
	NotAllowed     ElevateKind = "not allowed"
	NeedsTerminal  ElevateKind = "needs a terminal"
	NotFound       ElevateKind = "not found"
)

// ElevateError says that the login works but root could not be had on the target.
type ElevateError struct {
	Command string // sudo, doas, …
	Kind    ElevateKind
	Text    string
}

func (e *ElevateError) Error() string { return e.Text }

// Hints says what the user can do about it.
func (e *ElevateError) Hints() []string {
	switch e.Kind {
	case PasswordNeeded:
		return []string{"run ferry in a terminal, or use --sudo-password-file or --sudo-password-command"}
	case NotAllowed:
		return []string{
			"on the target's configuration: users.users.NAME.extraGroups = [ \"wheel\" ]; or log in as a user that may",
		}
	case NeedsTerminal:
		if e.Command == "sudo" {
			return []string{"on the target: take `Defaults requiretty` out of sudoers; or use --method plain, which gives sudo a terminal"}
		}
		return []string{"its sshd gives no terminal (PermitTTY): allow this user without a password (nopass)"}
	case NotFound:
		return []string{"set `elevate` of the node to what makes root there, such as \"doas\", or log in as root"}
	}
	return nil
}

// LostError is a connection that ended while the agent was at work, without ssh saying why.
type LostError struct {
	Address target.Address
	Stderr  []string
}

func (e *LostError) Error() string {
	if len(e.Stderr) > 0 {
		return fmt.Sprintf("the agent on %s ended: %s", e.Address, e.Stderr[len(e.Stderr)-1])
	}
	return fmt.Sprintf("the agent on %s ended", e.Address)
}

// IsLost tells whether err is a connection that was there and is lost, so that trying again makes sense.
func IsLost(err error) bool {
	var connect *target.Error
	if errors.As(err, &connect) {
		switch connect.Kind {
		case target.Lost, target.TimedOut, target.Refused, target.NoRoute:
			return true
		}
	}
	var lost *LostError
	var silent *SilentError
	return errors.As(err, &lost) || errors.As(err, &silent)
}

// cannotExecute is the status of a shell that may not run a program which is there.
const cannotExecute = 126

func isPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// startError finds out why the agent did not start, from how the connection ended and from what sudo said.
func (s *Session) startError(ctx context.Context, err, ended error, opts Options) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(ended, target.ErrInterrupted) {
		return ended
	}
	if !errors.Is(err, errEnded) {
		return err
	}
	var connect *target.Error
	if errors.As(ended, &connect) {
		return connect
	}
	command := elevateCommand(opts.Elevate)
	// What doas says of a wrong password, and when it finds no terminal to ask on.
	failed, why := NeedsTerminal, command+" wants to ask for a password on a terminal"
	if s.talk != nil && s.talk.answered {
		failed, why = WrongPassword, "the password was wrong"
	}
	all := s.watch.tail.String()
	for _, c := range []struct {
		text string
		kind ElevateKind
		say  string
	}{
		{"incorrect password attempt", WrongPassword, "the password was wrong"},
		{"not in the sudoers", NotAllowed, "the user may not use sudo there"},
		{"is not allowed to", NotAllowed, "the user may not run commands as root there"},
		{"may not run sudo", NotAllowed, "the user may not use sudo there"},
		{command + ": Operation not permitted", NotAllowed, command + " does not let this user in"},
		{command + ": Authentication failed", failed, why},
		{"you must have a tty", NeedsTerminal, "sudo insists on a terminal there"},
		{"a tty is required", NeedsTerminal, command + " wants to ask for a password on a terminal"},
		{"a terminal is required", NeedsTerminal, command + " wants to ask for a password on a terminal"},
		{"password is required", PasswordNeeded, "a password is needed"},
		{command + ": not found", NotFound, command + " is not there"},
		{command + ": command not found", NotFound, command + " is not there"},
		{command + ": No such file", NotFound, command + " is not there"},
	} {
		if strings.Contains(all, c.text) {
			return &ElevateError{Command: command, Kind: c.kind, Text: command + ": " + c.say}
		}
	}
	var status *run.Error
	if errors.As(ended, &status) && status.Status == cannotExecute && strings.Contains(all, Folder) {
		// A shell that does not ask the file system finds out late.
		return &FolderError{Folder: Folder, NoExec: true}
	}
	e := &StartError{Text: "the agent did not start", Stderr: s.stderr()}
	if n := len(e.Stderr); n > 0 {
		e.Text += ": " + e.Stderr[n-1]
	} else if ended != nil {
		e.Text += ": " + ended.Error()
	}
	return e
}

// promptWatch passes standard error on and notices sudo's question for a password in it.
type promptWatch struct {
	marker string
	asked  chan struct{}
	// flooded is closed when there was more than maxGreeting.
	flooded chan struct{}
	tail    *run.Tail
	trace   io.Writer

	mu    sync.Mutex
	held  []byte // an end of the stream that may be the beginning of the marker
	total int    // bytes written, until there are more than maxGreeting
}

func (w *promptWatch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.total <= maxGreeting {
		if w.total += len(p); w.total > maxGreeting {
			close(w.flooded)
		}
	}
	w.held = append(w.held, p...)
	for {
		before, after, found := bytes.Cut(w.held, []byte(w.marker))
		if !found {
			break
		}
		w.pass(before)
		w.held = append([]byte(nil), after...)
		select {
		case w.asked <- struct{}{}:
		default:
		}
	}
	keep := overlap(w.held, w.marker)
	w.pass(w.held[:len(w.held)-keep])
	w.held = append([]byte(nil), w.held[len(w.held)-keep:]...)
	return len(p), nil
}

// String is the end of what was written, without the questions.
func (w *promptWatch) String() string { return w.tail.String() }

func (w *promptWatch) pass(p []byte) {
	_, _ = w.tail.Write(p)
	if w.trace != nil {
		_, _ = w.trace.Write(p)
	}
}

// overlap is how many bytes at the end of p are a beginning of marker.
func overlap(p []byte, marker string) int {
	for n := min(len(p), len(marker)-1); n > 0; n-- {
		if string(p[len(p)-n:]) == marker[:n] {
			return n
		}
	}
	return 0
}
