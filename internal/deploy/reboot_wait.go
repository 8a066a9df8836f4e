package deploy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ferry/internal/agent"
)

// rebootError is a target that was told to reboot and has not come back.
type rebootError struct {
	kind rebootFailure
	err  error // why it could not be reached last, or was not rebooted; may be nil
}

type rebootFailure string

const (
	neverDown rebootFailure = "the target did not go down"
	neverUp   rebootFailure = "the target went down and did not come back in time"
)

func (e *rebootError) Error() string {
	if e.err == nil {
		return string(e.kind)
	}
	return fmt.Sprintf("%s: %v", e.kind, e.err)
}

// Unwrap gives why it could not be reached.
func (e *rebootError) Unwrap() error { return e.err }

const (
	// elevatePause is the time between two attempts when a password is refused: a system that has another one must not see it
	// tried again and again.
	elevatePause = 30 * time.Second
	// firstAttempt and longestAttempt are how long one attempt may take, at first and later: a machine that goes down while it
	// answers leaves one hanging, and one that has just come up is slow.
	firstAttempt   = 5 * time.Second
	longestAttempt = time.Minute
)

// waitForReboot connects again to a target that was told to reboot, until it is another boot than the one of bootID. Whatever
// is in the way of a login, a host key of the new system's or a user that is not there yet, may be gone when it is up, or
// when the old one is back: it counts only at the deadline. The user is not asked for a password again. A target that
// has not come back is a [*rebootError]. While it is still the same boot, same is called with each connection; an error of
// its own ends the waiting.
func (l *link) waitForReboot(ctx context.Context, bootID string, deadline time.Time, same func(*agent.Session) error) (agent.Facts, error) {
	l.current().Close()
	l.alone.Store(true)
	defer l.alone.Store(false)
	failure := &rebootError{kind: neverUp}
	for limit, seen := firstAttempt, false; ; limit = min(2*limit, longestAttempt) {
		facts, err := l.attempt(ctx, min(limit, time.Until(deadline)))
		switch {
		case ctx.Err() != nil:
			return facts, ctx.Err()
		case err != nil && seen && time.Now().After(deadline):
			// It had no time to answer: what was seen before counts.
		case err != nil:
			failure = &rebootError{kind: neverUp, err: err}
		case facts.BootID != bootID && facts.Lock != nil:
			return facts, locked(facts.Lock)
		case facts.BootID != bootID:
			return facts, nil
		default:
			if err := same(l.current()); err != nil && !agent.IsLost(err) {
				return facts, err
			}
			failure = &rebootError{kind: neverDown}
		}
		seen = true
		pause := l.rebootPause
		var elevate *agent.ElevateError
		if errors.As(err, &elevate) {
			pause = elevatePause
		}
		if time.Now().Add(pause).After(deadline) {
			return facts, failure
		}
		if err == nil {
			l.current().Close()
		}
		select {
		case <-ctx.Done():
			return facts, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// attempt makes a connection, unless that takes longer than limit.
func (l *link) attempt(ctx context.Context, limit time.Duration) (agent.Facts, error) {
	limited, stop := context.WithTimeout(ctx, limit)
	defer stop()
	facts, err := l.open(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no answer within %v", limit.Round(time.Second))
	}
	return facts, err
}
