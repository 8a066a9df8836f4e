package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/target"
)

// unasked is the session that asks no person anything.
func (s Session) unasked() Session {
	dialer := *s.Dialer
	dialer.Terminal = nil
	s.Dialer, s.Password = &dialer, s.Unasked
	return s
}

const (
	// atOnce is how many nodes are asked at the same time, and againAtOnce how many of those that were turned away: an sshd, such
	// as that of a jump host of them all, drops logins when too many begin at once (MaxStartups).
	atOnce      = 32
	againAtOnce = 4
	// answerLimit is how long one of several nodes may take to answer when no person is asked anything.
	answerLimit = time.Minute
)

// Each asks all nodes at once, again those whose connection was dropped, and then, where there is a terminal, one after another
// those that want a password or a passphrase of a person. ask is given the session to do it with. Each gives an error for every node, or nil.
func (s Session) Each(ctx context.Context, nodes []inventory.Node, ask func(ctx context.Context, s Session, i int) error) []error {
	errs := make([]error, len(nodes))
	if len(nodes) == 1 {
		errs[0] = ask(ctx, s, 0)
		return errs
	}
	alone := s.unasked()
	round := func(most int, is func(error) bool) {
		var group sync.WaitGroup
		slots := make(chan struct{}, most)
		for i := range nodes {
			if !is(errs[i]) {
				continue
			}
			group.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				limited, stop := context.WithTimeout(ctx, answerLimit)
				defer stop()
				errs[i] = ask(limited, alone, i)
				if errors.Is(errs[i], context.DeadlineExceeded) {
					errs[i] = Hint(fmt.Sprintf("no answer within %v", answerLimit), "look at this node alone, with -v")
				}
			})
		}
		group.Wait()
	}
	round(atOnce, func(error) bool { return true })
	round(againAtOnce, isDropped)
	if s.Dialer.Terminal == nil {
		return errs
	}
	for i := range nodes {
		if ctx.Err() == nil && wantsPerson(errs[i]) {
			errs[i] = ask(ctx, s, i)
			if errors.Is(errs[i], context.Canceled) && ctx.Err() == nil {
				errs[i] = errors.New("nobody gave a password")
			}
		}
	}
	return errs
}

// isDropped tells whether a connection was there and was not wanted.
func isDropped(err error) bool {
	var connect *target.Error
	return errors.As(err, &connect) && connect.Kind == target.Lost
}

// wantsPerson tells whether it may have failed only because nobody was asked.
func wantsPerson(err error) bool {
	var connect *target.Error
	var elevate *agent.ElevateError
	switch {
	case errors.As(err, &connect):
		return connect.Kind == target.Denied || connect.Kind == target.Unknown || connect.Kind == target.Lost
	case errors.As(err, &elevate):
		return elevate.Kind == agent.PasswordNeeded
	}
	return false
}
