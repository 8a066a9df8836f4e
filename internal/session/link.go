package session

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

// Link is the connection to a node's agent. A lost one is made again without asking the user again.
type Link struct {
	dialer  *target.Dialer
	options agent.Options
	note    func(string)
	// patience is how long a lost connection is tried again before ferry gives up, counted from its loss.
	patience time.Duration
	// alone says that the user is not asked for a password again.
	alone atomic.Bool
	// RebootPause is the time between two attempts to reach a target that reboots.
	RebootPause time.Duration
	mu          sync.Mutex
	addresses   []target.Address // the one that it was reached at first
	conn        *agent.Session
	password    []byte
}

// retryFor is a link's patience at first: a router restarts within it.
const retryFor = 2 * time.Minute

func newLink(dialer *target.Dialer, addresses []target.Address, options agent.Options, note func(string)) *Link {
	l := &Link{dialer: dialer, addresses: addresses, note: note, patience: retryFor, RebootPause: 2 * time.Second}
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

// BearWith has a lost connection tried again for so much longer than at first.
func (l *Link) BearWith(longer time.Duration) { l.patience = retryFor + longer }

// Open makes the first connection. It does not try twice: a wrong name or a machine that is off should be said at once.
func (l *Link) Open(ctx context.Context) (agent.Facts, error) {
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

// Do runs f with the agent, again with a new connection when the old one is lost. f must be safe to repeat.
func (l *Link) Do(ctx context.Context, f func(*agent.Session) error) error {
	for quick, silent := 0, 0; ; {
		begin := time.Now()
		err := f(l.Agent())
		if err == nil || !agent.IsLost(err) || ctx.Err() != nil || l.Address().Local() {
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

// Follow is Do for work that goes on there by itself: f, run again, goes on with what it began. That ends when the target
// has forgotten it.
func (l *Link) Follow(ctx context.Context, f func(*agent.Session) error) error {
	begun := false
	return l.Do(ctx, func(conn *agent.Session) error {
		if begun && !conn.Hello.Resumed {
			return &ForgottenError{Facts: conn.Hello.Facts}
		}
		begun = true
		return f(conn)
	})
}

// ForgottenError says that a target does not know any more what was begun there: it was restarted, or another deployment has
// run since.
type ForgottenError struct{ Facts agent.Facts }

func (e *ForgottenError) Error() string {
	return "the connection was lost, and the target was restarted or deployed to by someone else before it was there again"
}

// reconnect makes a lost connection again.
func (l *Link) reconnect(ctx context.Context, lost error) error {
	l.note(fmt.Sprintf("connection lost (%v); connecting again", lost))
	l.Agent().Close()
	deadline := time.Now().Add(l.patience)
	for pause := time.Second; ; pause = min(2*pause, 15*time.Second) {
		facts, err := l.Open(ctx)
		if err == nil && facts.Lock != nil {
			return Locked(facts.Lock)
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

// Agent is the agent at the end of the connection that was made last; nil before the first.
func (l *Link) Agent() *agent.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// Address is where the node was reached last.
func (l *Link) Address() target.Address {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addresses[0]
}

// Interactive tells whether the connection was made with the help of a person.
func (l *Link) Interactive() bool { return l.Agent().Interactive() }

// Facts is what the agent said of the target last.
func (l *Link) Facts() agent.Facts { return l.Agent().Hello.Facts }

// Close ends the connection and forgets the password.
func (l *Link) Close() {
	if s := l.Agent(); s != nil {
		s.Close()
	}
	clear(l.password)
	l.password = nil
}
