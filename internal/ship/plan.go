// Package ship brings a closure from this machine's store to a target's: it finds out what is missing there in one
// exchange, and sends that as one compressed stream without waiting for an answer per path.
package ship

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"ferry/internal/agent"
	"ferry/internal/delta"
	"ferry/internal/nix"
)

// Store is what shipping needs to know of this machine's store; nix.Serve is one.
type Store interface {
	Closure(paths []nix.StorePath) ([]nix.StorePath, error)
	PathInfos(paths []nix.StorePath) ([]nix.PathInfo, error)
}

// Target is what shipping needs of the other side; agent.Session is one.
type Target interface {
	Missing(ctx context.Context, paths []nix.StorePath, substitute bool) ([]nix.StorePath, error)
}

// Plan is what is to be sent.
type Plan struct {
	Root    nix.StorePath  // what is shipped; everything else is in its closure
	Paths   int            // paths in the closure
	Missing []nix.PathInfo // what the target lacks, references before what refers to them
	Bytes   uint64         // the NARs of Missing together
	// Known is what the target has and this machine too: what differences are made from.
	Known []nix.PathInfo
	// Signed are old paths that only the target has, by their signatures; see Plan.Sign.
	Signed map[nix.StorePath]*delta.Signature
	// Whole are paths that are not to be sent as differences.
	Whole map[nix.StorePath]bool
	// Memory, if set, has differences that were made for other nodes.
	Memory *Memory
	// Parked is the first of Missing, if the target has a part of it and waits for the rest.
	Parked *agent.Parked
	// OneChannel sends everything over the connection's first channel.
	OneChannel bool

	pairs *pairs // of Signed
}

// Options say how to make a plan.
type Options struct {
	// Substitute lets the target first fetch what it can from its own caches.
	Substitute bool
	// Known are paths that the target says it has and keeps, with their closures: what runs there and what was deployed. Those that
	// this machine does not have are of no use, and may be among them.
	Known []nix.StorePath
	// AskAll asks about the whole closure, also what has to be there by Known.
	AskAll bool
	// NoDelta sends every path as a whole; Whole those in it.
	NoDelta bool
	Whole   map[nix.StorePath]bool
	Memory  *Memory
	// OneChannel uses no other channel of the connection than the first.
	OneChannel bool
	// Parked is what the target has of a path that was broken off; nil: nothing.
	Parked *agent.Parked
}

// MakePlan finds out what of root's closure the target lacks. What has to be there, because it is in the closure of a path that
// the target has and this machine too, is not asked about; if that is everything, nothing is.
func MakePlan(ctx context.Context, store Store, to Target, root nix.StorePath, o Options) (*Plan, error) {
	closure, err := closureOf(store, root)
	if err != nil {
		return nil, err
	}
	known, err := closureOfKnown(store, o.Known)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Root: root, Paths: len(closure), Whole: o.Whole, Memory: o.Memory, OneChannel: o.OneChannel}
	unknown := closure
	if !o.AskAll {
		unknown = slices.DeleteFunc(slices.Clone(closure), func(p nix.StorePath) bool { return known[p] })
	}
	if len(unknown) == 0 {
		return plan, nil
	}
	missing, err := to.Missing(ctx, unknown, o.Substitute)
	if err != nil {
		return nil, fmt.Errorf("ask what is missing: %w", err)
	}
	if len(missing) == 0 {
		return plan, nil
	}
	infos, err := store.PathInfos(missing)
	if err != nil {
		return nil, fmt.Errorf("look up the missing paths: %w", err)
	}
	if len(infos) != len(missing) {
		return nil, &VanishedError{Path: firstWithout(missing, infos)}
	}
	if plan.Missing, err = sortByReferences(infos); err != nil {
		return nil, err
	}
	plan.goOn(o)
	for _, info := range infos {
		plan.Bytes += info.NarSize
		// In spite of what it said, the target has not got it.
		delete(known, info.Path)
	}
	if !o.NoDelta && len(known) > 0 {
		if plan.Known, err = store.PathInfos(slices.Sorted(maps.Keys(known))); err != nil {
			return nil, fmt.Errorf("look up what the target has: %w", err)
		}
	}
	return plan, nil
}

// goOn puts the path that the target has a part of first, if it is missing and is the same here.
func (p *Plan) goOn(o Options) {
	// Where the target looks for paths itself, it does not wait.
	if o.Parked == nil || o.Substitute {
		return
	}
	missing := map[nix.StorePath]bool{}
	at := -1
	for i, info := range p.Missing {
		missing[info.Path] = true
		if k := o.Parked; info.Path == k.Path && info.NarHash == k.NarHash && info.NarSize == k.NarSize && k.Offset > 0 && k.Offset < k.NarSize {
			at = i
		}
	}
	if at < 0 {
		return
	}
	info := p.Missing[at]
	for _, reference := range info.References {
		if missing[reference] && reference != info.Path {
			return
		}
	}
	p.Parked = o.Parked
	p.Missing = slices.Insert(slices.Delete(p.Missing, at, at+1), 0, info)
}

// Rest is how many bytes of NARs are to be sent.
func (p *Plan) Rest() uint64 {
	if p.Parked == nil {
		return p.Bytes
	}
	return p.Bytes - p.Parked.Offset
}

func closureOf(store Store, root nix.StorePath) ([]nix.StorePath, error) {
	// Asked for the closure of a path that is not valid, Nix only ends.
	if infos, err := store.PathInfos([]nix.StorePath{root}); err != nil {
		return nil, fmt.Errorf("look up %s: %w", root, err)
	} else if len(infos) == 0 {
		return nil, &VanishedError{Path: root}
	}
	closure, err := store.Closure([]nix.StorePath{root})
	if err != nil {
		return nil, fmt.Errorf("closure of %s: %w", root, err)
	}
	return closure, nil
}

// closureOfKnown is the closure of those of paths that this machine has.
func closureOfKnown(store Store, paths []nix.StorePath) (map[nix.StorePath]bool, error) {
	known := map[nix.StorePath]bool{}
	if len(paths) == 0 {
		return known, nil
	}
	infos, err := store.PathInfos(paths)
	if err != nil {
		return nil, fmt.Errorf("look up what the target has: %w", err)
	}
	if len(infos) == 0 {
		return known, nil
	}
	var here []nix.StorePath
	for _, info := range infos {
		here = append(here, info.Path)
	}
	closure, err := store.Closure(here)
	if err != nil {
		return nil, fmt.Errorf("closure of what the target has: %w", err)
	}
	for _, p := range closure {
		known[p] = true
	}
	return known, nil
}

// VanishedError is a path that was in this machine's store and is not any more.
type VanishedError struct {
	Path nix.StorePath
	Err  error
}

func (e *VanishedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s cannot be read: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s is not in this machine's store any more", e.Path)
}

// Unwrap gives the error of reading it.
func (e *VanishedError) Unwrap() error { return e.Err }

// Hints says what the user can do about it.
func (e *VanishedError) Hints() []string {
	return []string{
		"run the same command again: what is missing here is built again",
		fmt.Sprintf("if it stays so, repair the store: nix-store --verify-path %s", e.Path),
	}
}

func firstWithout(paths []nix.StorePath, infos []nix.PathInfo) nix.StorePath {
	known := make(map[nix.StorePath]bool, len(infos))
	for _, info := range infos {
		known[info.Path] = true
	}
	for _, p := range paths {
		if !known[p] {
			return p
		}
	}
	return ""
}

// sortByReferences puts every path after those it refers to, as a store that registers one by one needs it.
func sortByReferences(infos []nix.PathInfo) ([]nix.PathInfo, error) {
	index := make(map[nix.StorePath]int, len(infos))
	for i, info := range infos {
		index[info.Path] = i
	}
	const (
		unseen = iota
		open
		done
	)
	state := make([]int, len(infos))
	sorted := make([]nix.PathInfo, 0, len(infos))
	// An explicit stack: a closure may be deeper than is comfortable for a recursion.
	type visit struct{ node, next int }
	for start := range infos {
		stack := []visit{{start, 0}}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if state[top.node] == done {
				stack = stack[:len(stack)-1]
				continue
			}
			state[top.node] = open
			references := infos[top.node].References
			if top.next == len(references) {
				state[top.node] = done
				sorted = append(sorted, infos[top.node])
				stack = stack[:len(stack)-1]
				continue
			}
			reference := references[top.next]
			top.next++
			i, missing := index[reference]
			if !missing || i == top.node || state[i] == done {
				continue
			}
			if state[i] == open {
				return nil, fmt.Errorf("%s and %s refer to each other", infos[top.node].Path, reference)
			}
			stack = append(stack, visit{i, 0})
		}
	}
	return sorted, nil
}

var (
	_ Store  = (*nix.Serve)(nil)
	_ Target = (*agent.Session)(nil)
)
