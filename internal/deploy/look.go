package deploy

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

// Look is how to look at targets that are not to be changed.
type Look struct {
	Dialer *target.Dialer
	// Password gives the password that sudo asks for, if root has to be had; see agent.Options.
	Password func(ctx context.Context, node, command string, attempt int) ([]byte, error)
	// Unasked is Password where no person may be asked; nil: then there is none. Nodes that are looked at all at once are
	// tried with it first.
	Unasked func(ctx context.Context, node, command string, attempt int) ([]byte, error)
	Who     string
}

// open starts the agent on a node without the lock: with asUser as the login user, if it is installed there.
func (l Look) open(ctx context.Context, node inventory.Node, asUser bool) (*agent.Session, error) {
	options := agent.Options{AsUser: asUser, Elevate: elevation(node), Who: l.Who, Session: "look"}
	if l.Password != nil {
		options.Password = func(ctx context.Context, command string, attempt int) ([]byte, error) {
			return l.Password(ctx, node.Name, command, attempt)
		}
	}
	return OpenAgent(ctx, node, l.Dialer, options, func(string) {})
}

// unasked is the look that asks no person anything.
func (l Look) unasked() Look {
	dialer := *l.Dialer
	dialer.Terminal = nil
	l.Dialer, l.Password = &dialer, l.Unasked
	return l
}

const (
	// looksAtOnce is how many nodes are looked at at the same time, and againAtOnce how many of those that were turned away: an
	// sshd, such as that of a jump host of them all, drops logins when too many begin at once (MaxStartups).
	looksAtOnce = 32
	againAtOnce = 4
	// lookLimit is how long one of several nodes may take to answer when nobody is asked anything.
	lookLimit = time.Minute
)

// eachNode looks at all nodes at once, again at those whose connection was dropped, and then, where there is a terminal, one
// after another at those that want a password or a passphrase of a person. It gives an error for each node, or nil.
func (l Look) eachNode(ctx context.Context, nodes []inventory.Node, look func(ctx context.Context, l Look, i int) error) []error {
	errs := make([]error, len(nodes))
	if len(nodes) == 1 {
		errs[0] = look(ctx, l, 0)
		return errs
	}
	alone := l.unasked()
	round := func(atOnce int, is func(error) bool) {
		var group sync.WaitGroup
		slots := make(chan struct{}, atOnce)
		for i := range nodes {
			if !is(errs[i]) {
				continue
			}
			group.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				limited, stop := context.WithTimeout(ctx, lookLimit)
				defer stop()
				errs[i] = look(limited, alone, i)
				if errors.Is(errs[i], context.DeadlineExceeded) {
					errs[i] = hint(fmt.Sprintf("no answer within %v", lookLimit), "look at this node alone, with -v")
				}
			})
		}
		group.Wait()
	}
	round(looksAtOnce, func(error) bool { return true })
	round(againAtOnce, isDropped)
	if l.Dialer.Terminal == nil {
		return errs
	}
	for i := range nodes {
		if ctx.Err() == nil && wantsPerson(errs[i]) {
			errs[i] = look(ctx, l, i)
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

// wantsPerson tells whether a look may have failed only because nobody was asked.
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

// History asks a node for the newest deployments that its target remembers, at most limit of them. Root is needed only where
// the agent has to be installed.
func History(ctx context.Context, node inventory.Node, limit int, look Look) (agent.HistoryResult, error) {
	var result agent.HistoryResult
	err := look.ask(ctx, node, func(conn *agent.Session) error {
		var err error
		result, err = conn.History(ctx, limit)
		return err
	})
	return result, err
}

// Generations asks a node for the generations of its system profile. Root is needed only where the agent has to be installed.
func Generations(ctx context.Context, node inventory.Node, look Look) (agent.GenerationsResult, error) {
	var result agent.GenerationsResult
	err := look.ask(ctx, node, func(conn *agent.Session) error {
		var err error
		result, err = conn.Generations(ctx)
		return err
	})
	return result, err
}

// ask lets f ask the agent on one node.
func (l Look) ask(ctx context.Context, node inventory.Node, f func(conn *agent.Session) error) error {
	conn, err := l.open(ctx, node, true)
	if err == nil {
		defer conn.Close()
		err = f(conn)
	}
	if err != nil {
		return &Error{Node: node.Name, Step: Connect, State: Unchanged, Err: err}
	}
	return nil
}
