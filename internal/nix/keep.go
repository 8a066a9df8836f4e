package nix

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// keeper is a nix-store whose temporary roots keep paths for as long as it runs. Its zero value runs none yet.
type keeper struct {
	once sync.Once
	turn chan struct{} // full while somebody talks to it
	open *LocalServe   // nil: none runs
	kept map[StorePath]bool
}

// Keep keeps paths, and what they refer to, from being collected as garbage, whether they are in the store or come there later, until
// [Client.Release] or the end of this program, however that ends. valid tells whether all of them are in the store, whole and
// registered: what is then is kept with all that it needs.
func (c *Client) Keep(ctx context.Context, paths ...StorePath) (valid bool, err error) {
	found, err := c.KeepValid(ctx, paths...)
	return err == nil && len(found) == len(setOf(paths)), err
}

// KeepValid is [Client.Keep] that tells which of paths are in the store.
func (c *Client) KeepValid(ctx context.Context, paths ...StorePath) (valid []StorePath, err error) {
	k := &c.keeper
	k.once.Do(func() { k.turn = make(chan struct{}, 1) })
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("keep paths in the store: %w", context.Cause(ctx))
	}
	type answer struct {
		valid []StorePath
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() { <-k.turn }()
		valid, err := c.keepValid(context.WithoutCancel(ctx), paths)
		answered <- answer{valid, err}
	}()
	// A collection that goes on may hold the answer up.
	select {
	case a := <-answered:
		if a.err != nil {
			return nil, fmt.Errorf("keep paths in the store: %w", a.err)
		}
		return a.valid, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("keep paths in the store: %w", context.Cause(ctx))
	}
}

// keepValid is KeepValid for the one whose turn it is.
func (c *Client) keepValid(ctx context.Context, paths []StorePath) ([]StorePath, error) {
	k := &c.keeper
	if k.open != nil {
		valid, err := k.open.ValidPaths(paths, true, false)
		if err == nil {
			k.add(paths)
			return valid, nil
		}
		// It was killed. What it has kept may still be there.
		_ = k.open.Close()
		k.open = nil
	}
	open, err := c.openServe(ctx, true)
	if err != nil {
		return nil, storeAccess(err)
	}
	if again := slices.Collect(maps.Keys(k.kept)); len(again) > 0 {
		_, err = open.ValidPaths(again, true, false)
	}
	var valid []StorePath
	if err == nil {
		valid, err = open.ValidPaths(paths, true, false)
	}
	if err != nil {
		if ended := open.Close(); ended != nil {
			err = ended // says why
		}
		return nil, storeAccess(err)
	}
	k.open = open
	k.add(paths)
	return valid, nil
}

// add remembers paths.
func (k *keeper) add(paths []StorePath) {
	if k.kept == nil {
		k.kept = map[StorePath]bool{}
	}
	for _, p := range paths {
		k.kept[p] = true
	}
}

// Release ends what [Client.Keep] has begun.
func (c *Client) Release() {
	k := &c.keeper
	k.once.Do(func() { k.turn = make(chan struct{}, 1) })
	k.turn <- struct{}{}
	defer func() { <-k.turn }()
	k.kept = nil
	if k.open != nil {
		_ = k.open.Close()
		k.open = nil
	}
}
