package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ferry/internal/agent"
)

// BootError is a target that was told to reboot and has not come back.
type BootError struct {
	Kind BootFailure
	Err  error // why it could not be reached last, or was not rebooted; may be nil
}

// BootFailure is in which way a target has not come back.
type BootFailure string

// The ways.
const (
	NeverDown BootFailure = "the target did not go down"
	NeverUp   BootFailure = "the target went down and did not come back in time"
)

func (e *BootError) Error() string {
	if e.Err == nil {
		return string(e.Kind)
	}
	return fmt.Sprintf("%s: %v", e.Kind, e.Err)
}

// Unwrap gives why it could not be reached.
func (e *BootError) Unwrap() error { return e.Err }

const (
	// elevatePause is the time between two attempts when a password is refused: a system that has another one must not see it
	// tried again and again.
	elevatePause = 30 * time.Second
	// firstAttempt and longestAttempt are how long one attempt may take, at first and later: a machine that goes down while it
	// answers leaves one hanging, and one that has just come up is slow.
	firstAttempt   = 5 * time.Second
	longestAttempt = time.Minute
)

// AwaitBoot connects again to a target that was told to reboot, until it is another boot than the one of bootID. Whatever
// is in the way of a login, a host key of the new system's or a user that is not there yet, may be gone when it is up, or
// when the old one is back: it counts only at the deadline. The user is not asked for a password again. A target that
// has not come back is a [*BootError]. While it is still the same boot, same is called with each connection; an error of
// its own ends the waiting.
func (l *Link) AwaitBoot(ctx context.Context, bootID string, deadline time.Time, same func(*agent.Session) error) (agent.Facts, error) {
	l.Agent().Close()
	l.alone.Store(true)
	defer l.alone.Store(false)
	failure := &BootError{Kind: NeverUp}
	for limit, seen := firstAttempt, false; ; limit = min(2*limit, longestAttempt) {
		facts, err := l.attempt(ctx, min(limit, time.Until(deadline)))
		switch {
		case ctx.Err() != nil:
			return facts, ctx.Err()
		case err != nil && seen && time.Now().After(deadline):
			// It had no time to answer: what was seen before counts.
		case err != nil:
			failure = &BootError{Kind: NeverUp, Err: err}
		case facts.BootID != bootID && facts.Lock != nil:
			return facts, Locked(facts.Lock)
		case facts.BootID != bootID:
			return facts, nil
		default:
			if err := same(l.Agent()); err != nil && !agent.IsLost(err) {
				return facts, err
			}
			failure = &BootError{Kind: NeverDown}
		}
		seen = true
		pause := l.RebootPause
		var elevate *agent.ElevateError
		if errors.As(err, &elevate) {
			pause = elevatePause
		}
		if time.Now().Add(pause).After(deadline) {
			return facts, failure
		}
		if err == nil {
			l.Agent().Close()
		}
		select {
		case <-ctx.Done():
			return facts, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// attempt makes a connection, unless that takes longer than limit.
func (l *Link) attempt(ctx context.Context, limit time.Duration) (agent.Facts, error) {
	limited, stop := context.WithTimeout(ctx, limit)
	defer stop()
	facts, err := l.Open(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no answer within %v", limit.Round(time.Second))
	}
	return facts, err
}
