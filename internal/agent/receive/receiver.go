package receive

import (
	"cmp"
	"context"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// Options are what a receiver works with.
type Options struct {
	Root    machine.Root
	Runner  *run.Runner
	Wire    *agent.Wire // to ferry
	Program string      // the path that this agent was started as
	// Locked says that the agent holds the lock: without it nothing is changed.
	Locked bool
	// Used says that the store will be, so that it is opened at once.
	Used bool
	// Busy, when set, is held while a stream is received: whoever ends the agent waits for it.
	Busy sync.Locker
	// LoginUID gives the number of the login user; less than 0: it is not known.
	LoginUID func() int
	// Opening is how long nix-store may take before it answers at all, and Halted how long it may be stopped; 0: the usual.
	Opening, Halted time.Duration
}

// Receiver has the target's store for one agent.
type Receiver struct {
	opts  Options
	store *store
	// parked is the nix-store that the last agent has left in the middle of a path, and resumed that one once this agent has gone on with
	// it; nil: none.
	parked  *parked
	resumed *store
	// lacking are the paths that ferry was told last to be missing, and expected those that are written down to come in this ship.
	lacking  []nix.StorePath
	expected map[nix.StorePath]bool
}

// New looks for what the last agent has left, and begins to open the store. It lives until ctx ends, or it is closed.
func New(ctx context.Context, opts Options) *Receiver {
	s := &Receiver{opts: opts}
	if opts.Locked {
		s.parked = findParked(opts.Root, opts.Program)
	}
	s.store = openStore(ctx, opts.Runner, opts.Used, cmp.Or(opts.Opening, openLimit), cmp.Or(opts.Halted, haltedLimit))
	return s
}

// Parked is the path in the middle of which the last agent has left a nix-store; nil: none.
func (s *Receiver) Parked() *agent.Parked {
	if s.parked == nil {
		return nil
	}
	return &s.parked.state.Parked
}

// Close ends what the receiver has of its own, and leaves to others what is parked and not used.
func (s *Receiver) Close() {
	for _, st := range []*store{s.store, s.resumed} {
		if st != nil {
			st.close()
		}
	}
	if s.parked != nil {
		s.parked.drop()
	}
}
