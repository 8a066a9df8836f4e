package nix

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// validity is what is asked of [Client.Valid].
type validity struct {
	mu   sync.Mutex
	next *validityCheck // what is asked while a process answers what was asked before; nil: nothing
	busy chan struct{}  // full while a process runs
}

// validityCheck is what one process is asked. Who asked first runs it.
type validityCheck struct {
	paths []StorePath
	done  chan struct{} // closed when the rest is known

	invalid map[StorePath]bool
	err     error
	left    bool // who was to run it did not stay
}

// maxChecked keeps a command line below what Linux lets one be.
const maxChecked = 5000

// Valid tells whether all paths are in the store, whole and registered. What is asked while a process of Nix answers others is
// answered by one more for all.
func (c *Client) Valid(ctx context.Context, paths ...StorePath) (bool, error) {
	for {
		check, first := c.validity.join(paths)
		if first {
			c.check(ctx, check)
		}
		select {
		case <-check.done:
		case <-ctx.Done():
		}
		switch {
		case ctx.Err() != nil:
			return false, fmt.Errorf("look for paths in the store: %w", ctx.Err())
		case check.left:
			continue
		case check.err != nil:
			return false, fmt.Errorf("look for paths in the store: %w", check.err)
		}
		return !slices.ContainsFunc(paths, func(p StorePath) bool { return check.invalid[p] }), nil
	}
}

// join adds paths to the next check; first tells that the caller has to run it.
func (v *validity) join(paths []StorePath) (check *validityCheck, first bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.busy == nil {
		v.busy = make(chan struct{}, 1)
	}
	if v.next == nil {
		v.next, first = &validityCheck{done: make(chan struct{}), invalid: map[StorePath]bool{}}, true
	}
	v.next.paths = append(v.next.paths, paths...)
	return v.next, first
}

// check waits until no other check runs, and runs this one for all who have joined it by then.
func (c *Client) check(ctx context.Context, check *validityCheck) {
	v := &c.validity
	defer close(check.done)
	ran := false
	select {
	case v.busy <- struct{}{}:
		defer func() { <-v.busy }()
		ran = true
	case <-ctx.Done():
	}
	v.mu.Lock()
	v.next = nil
	v.mu.Unlock()
	if ran {
		check.err = c.findInvalid(ctx, check)
	}
	check.left = ctx.Err() != nil
}

// NotBuilt are those of paths that no derivation known here has made: sources, as a rule.
func (c *Client) NotBuilt(ctx context.Context, paths []StorePath) ([]StorePath, error) {
	var found []StorePath
	for some := range slices.Chunk(paths, maxChecked) {
		cmd := c.command("nix-store", "--query", "--deriver")
		for _, p := range some {
			cmd.Argv = append(cmd.Argv, string(p))
		}
		out, err := c.output(ctx, cmd)
		if err != nil {
			return nil, fmt.Errorf("query what has made paths: %w", err)
		}
		lines := strings.Split(out, "\n")
		if len(lines) != len(some) {
			return nil, fmt.Errorf("query what has made paths: %d answers for %d", len(lines), len(some))
		}
		for i, line := range lines {
			if line == "unknown-deriver" {
				found = append(found, some[i])
			}
		}
	}
	return found, nil
}

func (c *Client) findInvalid(ctx context.Context, check *validityCheck) error {
	for paths := range slices.Chunk(check.paths, maxChecked) {
		cmd := c.command("nix-store", "--check-validity", "--print-invalid")
		for _, p := range paths {
			cmd.Argv = append(cmd.Argv, string(p))
		}
		out, err := c.output(ctx, cmd)
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			check.invalid[StorePath(strings.TrimSpace(line))] = true
		}
	}
	return nil
}
