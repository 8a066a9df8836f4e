package fleet

import (
	"context"
	"sync"

	"ferry/internal/inventory"
	"ferry/internal/session"
)

// Each does for each of nodes what changes no target, all at the same time: do is given what shares this machine's cores and
// memory out. The errors are in the order of the nodes.
func Each(ctx context.Context, inv *inventory.Inventory, nodes []inventory.Node, cores int, do func(ctx context.Context, i int, turn session.Turn) error) []error {
	f := newFleet(session.Session{}, inv, nodes, Options{Cores: cores})
	errs := make([]error, len(nodes))
	var group sync.WaitGroup
	for i := range nodes {
		group.Go(func() { errs[i] = do(ctx, i, f.turn) })
	}
	group.Wait()
	return errs
}
