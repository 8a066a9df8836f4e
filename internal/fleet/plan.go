package fleet

import (
	"context"
	"sync"
	"time"

	"ferry/internal/inventory"
	"ferry/internal/preview"
	"ferry/internal/session"
)

// PlanOptions say how to plan several nodes.
type PlanOptions struct {
	// Preview is for each of them.
	Preview preview.Options
	// Parallel, Cores and Ended are as in [Options].
	Parallel, Cores int
	Ended           func(Outcome)
}

// Plan plans nodes side by side, as many at once as a deployment would take, and tells what became of each, in their order. show,
// too, is called in that order: with a node's plan, or why there is none, as soon as those before it are there. Nothing is
// changed on the targets.
func Plan(ctx context.Context, with session.Session, inv *inventory.Inventory, nodes []inventory.Node, opts PlanOptions, show func(inventory.Node, *preview.Planned, error)) []Outcome {
	f := newFleet(with, inv, nodes, Options{Parallel: opts.Parallel, Cores: opts.Cores, Ended: opts.Ended})
	return f.plan(ctx, func(ctx context.Context, s session.Session, node inventory.Node) (*preview.Planned, error) {
		return preview.Plan(ctx, s, inv, node, opts.Preview)
	}, show)
}

func (f *fleet) plan(ctx context.Context, plan func(context.Context, session.Session, inventory.Node) (*preview.Planned, error),
	show func(inventory.Node, *preview.Planned, error),
) []Outcome {
	plans := make([]*preview.Planned, len(f.nodes))
	ready := make([]chan struct{}, len(f.nodes))
	var group sync.WaitGroup
	for i, node := range f.nodes {
		ready[i] = make(chan struct{})
		group.Go(func() {
			defer close(ready[i])
			begin := time.Now()
			planned, err := plan(ctx, f.takingTurns(), node)
			plans[i] = planned
			f.outcomes[i] = Outcome{Node: node, Status: f.status(ctx, node.Name, err), Err: err, Duration: time.Since(begin)}
			f.tell(f.outcomes[i])
		})
	}
	for i, node := range f.nodes {
		<-ready[i]
		show(node, plans[i], f.outcomes[i].Err)
	}
	group.Wait()
	return f.outcomes
}
