package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/agent"
	"ferry/internal/target"
)

// link is the connection to a node's agent. A lost one is made again without asking the user again.
type link struct {
	dialer  *target.Dialer
	options agent.Options
	note    func(string)
	// patience is how long a lost connection is tried again before ferry gives up, counted from its loss.
	patience time.Duration
	// alone says that the user is not asked for a password again.
	alone atomic.Bool
	// rebootPause is the time between two attempts to reach a target that reboots.
	rebootPause time.Duration
	mu          sync.Mutex
	addresses   []target.Address // the one that it was reached at first
	conn        *agent.Session
	password    []byte
}

// retryFor is a link's patience at first: a router restarts within it.
const retryFor = 2 * time.Minute

func newLink(dialer *target.Dialer, addresses []target.Address, options agent.Options, note func(string)) *link {
	l := &link{dialer: dialer, addresses: addresses, note: note, patience: retryFor, rebootPause: 2 * time.Second}
	ask := options.Password
	options.Password = func(ctx context.Context, command string, attempt int) ([]byte, error) {
		if attempt == 1 && l.password != nil {
			return bytes.Clone(l.password), nil
		}
		if l.alone.Load() && attempt > 1 {
			return nil, &agent.ElevateError{Command: "sudo", Kind: agent.WrongPassword, Text: "sudo does not take the password any more"}
		}
		if ask == nil {
			return nil, &agent.ElevateError{Command: command, Kind: agent.PasswordNeeded, Text: command + " asks for a password, and there is nobody to ask"}
		}
		password, err := ask(ctx, command, attempt)
		if err == nil {
			clear(l.password)
			l.password = bytes.Clone(password)
		}
		return password, err
	}
	l.options = options
	return l
}

// bearWith has a lost connection tried again for so much longer than at first.
func (l *link) bearWith(longer time.Duration) { l.patience = retryFor + longer }

// open makes the first connection. It does not try twice: a wrong name or a machine that is off should be said at once.
func (l *link) open(ctx context.Context) (agent.Facts, error) {
	l.mu.Lock()
	addresses := slices.Clone(l.addresses)
	l.mu.Unlock()
	conn, at, err := openAny(ctx, l.dialer, addresses, l.options, l.note)
	if err != nil {
		return agent.Facts{}, err
	}
	reached := addresses[at]
	addresses = slices.Insert(slices.Delete(addresses, at, at+1), 0, reached)
	l.mu.Lock()
	l.conn, l.addresses = conn, addresses
	l.mu.Unlock()
	return conn.Hello.Facts, nil
}

// A connection that is lost within quickLoss of its beginning for the quickLosses-th time in a row will be lost again: the
// agent itself does not survive there, or the line is of no use.
const (
	quickLoss   = 10 * time.Second
	quickLosses = 4
	// silences is how often an agent may not answer what it is asked.
	silences = 2
)

// do runs f with the agent, again with a new connection when the old one is lost. f must be safe to repeat.
func (l *link) do(ctx context.Context, f func(*agent.Session) error) error {
	for quick, silent := 0, 0; ; {
		begin := time.Now()
		err := f(l.current())
		if err == nil || !agent.IsLost(err) || ctx.Err() != nil || l.address().Local() {
			return err
		}
		if quick++; time.Since(begin) > quickLoss {
			quick = 0
		}
		if quick == quickLosses {
			return fmt.Errorf("the connection is lost again and again: %w", err)
		}
		var silence *agent.SilentError
		if errors.As(err, &silence) {
			if silent++; silent == silences {
				return err
			}
		}
		if err := l.reconnect(ctx, err); err != nil {
			return err
		}
	}
}

// follow is do for work that goes on there by itself: f, run again, goes on with what it began. That ends when the target
// has forgotten it.
func (l *link) follow(ctx context.Context, f func(*agent.Session) error) error {
	begun := false
	return l.do(ctx, func(conn *agent.Session) error {
		if begun && !conn.Hello.Resumed {
			return &forgottenError{facts: conn.Hello.Facts}
		}
		begun = true
		return f(conn)
	})
}

// forgottenError says that a target does not know any more what was begun there: it was restarted, or another deployment has
// run since.
type forgottenError struct{ facts agent.Facts }

func (e *forgottenError) Error() string {
	return "the connection was lost, and the target was restarted or deployed to by someone else before it was there again"
}

// reconnect makes a lost connection again.
func (l *link) reconnect(ctx context.Context, lost error) error {
	l.note(fmt.Sprintf("connection lost (%v); connecting again", lost))
	l.current().Close()
	deadline := time.Now().Add(l.patience)
	for pause := time.Second; ; pause = min(2*pause, 15*time.Second) {
		facts, err := l.open(ctx)
		if err == nil && facts.Lock != nil {
			return locked(facts.Lock)
		}
		if err == nil {
			l.note("connected again")
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !mayComeBack(err) || time.Now().After(deadline) {
			return fmt.Errorf("%w; connecting again: %w", lost, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// mayComeBack tells whether it makes sense to try again after err. A machine whose own network is down knows no host.
func mayComeBack(err error) bool {
	var connect *target.Error
	return agent.IsLost(err) || errors.As(err, &connect) && connect.Kind == target.HostUnknown
}

func (l *link) current() *agent.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// address is where the node was reached last.
func (l *link) address() target.Address {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addresses[0]
}

// interactive tells whether the connection was made with the help of a person.
func (l *link) interactive() bool { return l.current().Interactive() }

// facts is what the agent said of the target last.
func (l *link) facts() agent.Facts { return l.current().Hello.Facts }

// close ends the connection and forgets the password.
func (l *link) close() {
	if s := l.current(); s != nil {
		s.Close()
	}
	clear(l.password)
	l.password = nil
}
