package deploy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/target"
)

// link is the connection to a node's agent. A lost one is made again without asking the user again.
type link struct {
	dialer   *target.Dialer
	address  target.Address
	options  agent.Options
	note     func(string)
	mu       sync.Mutex
	session  *agent.Session
	password []byte
}

// retryFor is how long a lost connection is tried again before ferry gives up: a router restarts within it.
const retryFor = 2 * time.Minute

func newLink(dialer *target.Dialer, address target.Address, options agent.Options, note func(string)) *link {
	l := &link{dialer: dialer, address: address, note: note}
	ask := options.Password
	options.Password = func(ctx context.Context, attempt int) ([]byte, error) {
		if attempt == 1 && l.password != nil {
			return l.password, nil
		}
		if ask == nil {
			return nil, &agent.ElevateError{Command: "sudo", Kind: agent.PasswordNeeded, Text: "sudo asks for a password, and there is nobody to ask"}
		}
		password, err := ask(ctx, attempt)
		if err == nil {
			l.password = append([]byte(nil), password...)
		}
		return password, err
	}
	l.options = options
	return l
}

// open makes the first connection. It does not try twice: a wrong name or a machine that is off should be said at once.
func (l *link) open(ctx context.Context) (agent.Facts, error) {
	session, err := agent.Open(ctx, l.dialer, l.address, l.options)
	if err != nil {
		return agent.Facts{}, err
	}
	l.mu.Lock()
	l.session = session
	l.mu.Unlock()
	return session.Hello.Facts, nil
}

// do runs f with the agent, again with a new connection when the old one is lost. f must be safe to repeat.
func (l *link) do(ctx context.Context, f func(*agent.Session) error) error {
	deadline := time.Now().Add(retryFor)
	for pause := time.Second; ; pause = min(2*pause, 15*time.Second) {
		err := f(l.current())
		if err == nil || !agent.IsLost(err) || ctx.Err() != nil {
			return err
		}
		if l.address.Local() {
			return err
		}
		l.note(fmt.Sprintf("connection lost (%v); connecting again", err))
		for {
			if again := l.reopen(ctx); again == nil {
				break
			} else if !agent.IsLost(again) || time.Now().After(deadline) {
				return fmt.Errorf("%w; connecting again: %w", err, again)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
			pause = min(2*pause, 15*time.Second)
		}
	}
}

func (l *link) current() *agent.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session
}

func (l *link) reopen(ctx context.Context) error {
	l.current().Close()
	_, err := l.open(ctx)
	return err
}

// close ends the connection and forgets the password.
func (l *link) close() {
	if s := l.current(); s != nil {
		s.Close()
	}
	clear(l.password)
	l.password = nil
}
