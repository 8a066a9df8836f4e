package cli

import (
	"context"
	"fmt"
	"runtime"

	"ferry/internal/fleet"
	"ferry/internal/inventory"
	"ferry/internal/prose"
	"ferry/internal/session"
)

// eachNode does what changes no target for several nodes at once. What fails is told as it does; the error is about all of them.
// errs has an error for each, or nil.
func (a *app) eachNode(ctx context.Context, inv *inventory.Inventory, nodes []inventory.Node, do func(ctx context.Context, i int, turn session.Turn) error) (errs []error, err error) {
	if len(nodes) == 1 {
		err = do(ctx, 0, nil)
		return []error{err}, err
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	a.printer.Several(names)
	errs = fleet.Each(ctx, inv, nodes, runtime.NumCPU(), func(ctx context.Context, i int, turn session.Turn) error {
		err := do(ctx, i, turn)
		a.printer.Ended(nodes[i].Name, err != nil)
		if err != nil && !interrupted(ctx, err) {
			for _, line := range explanation(err) {
				a.printer.Print(line)
			}
		}
		return err
	})
	failed := 0
	for _, e := range errs {
		if e != nil {
			failed++
			err = e
		}
	}
	switch {
	case failed == 0:
		return errs, nil
	case interrupted(ctx, err):
		return errs, err
	}
	a.printer.Print(fmt.Sprintf("ferry: %s: %d done, %d failed", prose.Count(len(nodes), "node"), len(nodes)-failed, failed))
	if failed < len(nodes) {
		return errs, &reportedError{exitPartly}
	}
	return errs, &reportedError{exitFailed}
}
