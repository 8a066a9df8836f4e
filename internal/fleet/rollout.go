package fleet

import (
	"context"
	"sync"
	"time"

	"ferry/internal/inventory"
)

// rollout says which nodes may be changed: those of one batch after another, until too many have failed.
type rollout struct {
	opts  Options
	batch map[string]int // the batch of each node
	sizes []int          // of the batches

	mu sync.Mutex
	// changed is closed, and made anew, whenever a node that waits has to look again.
	changed chan struct{}
	cancel  map[string]context.CancelCauseFunc
	// preparing are the nodes that have neither come to the point where they wait nor ended.
	preparing map[string]bool
	changing  map[string]bool // the nodes that have begun to be changed
	pending   []int           // how many nodes of each batch have not ended
	open      int             // how many batches may be changed
	pausing   bool
	failures  int
	over      bool          // no further node is begun
	stop      chan struct{} // closed when it is over
}

func newRollout(nodes []inventory.Node, opts Options) *rollout {
	r := &rollout{
		opts: opts, batch: map[string]int{}, changed: make(chan struct{}), stop: make(chan struct{}), cancel: map[string]context.CancelCauseFunc{},
		preparing: map[string]bool{}, changing: map[string]bool{}, sizes: opts.Batches.split(len(nodes)),
	}
	r.pending = append(r.pending, r.sizes...)
	i := 0
	for batch, n := range r.sizes {
		for range n {
			r.batch[nodes[i].Name], r.preparing[nodes[i].Name] = batch, true
			i++
		}
	}
	if len(r.sizes) == 1 {
		r.open = 1
	}
	return r
}

// join makes a node known; cancel ends what it does.
func (r *rollout) join(node string, cancel context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel[node] = cancel
	if r.over {
		cancel(ErrStopped)
	}
}

// wait waits until the node's batch may be changed.
func (r *rollout) wait(ctx context.Context, node string) error {
	r.mu.Lock()
	delete(r.preparing, node)
	r.advance(ctx)
	for {
		open, over, changed := r.batch[node] < r.open, r.over, r.changed
		r.mu.Unlock()
		switch {
		case over:
			return ErrStopped
		case open:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		r.mu.Lock()
	}
}

// begin tells that a node is being changed from now on; false if it must not be.
func (r *rollout) begin(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.changing[node] = true
	}
	return !r.over
}

// end tells that a node's deployment is over.
func (r *rollout) end(ctx context.Context, node string, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.preparing, node)
	delete(r.cancel, node)
	r.pending[r.batch[node]]--
	if failed {
		r.failures++
	}
	if r.opts.MaxFailures >= 0 && r.failures > r.opts.MaxFailures && !r.over {
		r.over = true
		close(r.stop)
		for name, cancel := range r.cancel {
			if !r.changing[name] {
				cancel(ErrStopped)
			}
		}
		r.wake()
	}
	r.advance(ctx)
}

// advance opens the next batch if it is its time.
func (r *rollout) advance(ctx context.Context) {
	if r.over || r.pausing || len(r.preparing) > 0 || r.open == len(r.sizes) {
		return
	}
	if r.open > 0 && r.pending[r.open-1] > 0 {
		return
	}
	// A batch in which there is nothing to change needs no pause.
	for r.pending[r.open] == 0 {
		if r.open++; r.open == len(r.sizes) {
			return
		}
	}
	if len(r.changing) == 0 || r.opts.Pause == 0 {
		r.openNext()
		return
	}
	r.pausing = true
	go func() {
		select {
		case <-ctx.Done():
		case <-time.After(r.opts.Pause):
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pausing = false
		if ctx.Err() == nil && !r.over {
			r.openNext()
		}
	}()
}

func (r *rollout) openNext() {
	r.open++
	if r.opts.Batch != nil {
		r.opts.Batch(r.open, len(r.sizes), r.pending[r.open-1])
	}
	r.wake()
}

func (r *rollout) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// stopped tells whether nodes were left as they are because others have failed.
func (r *rollout) stopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over
}

// begun tells whether a node has begun to be changed.
func (r *rollout) begun(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changing[node]
}

// inLastBatch tells whether a node is of the batch that was changed last.
func (r *rollout) inLastBatch(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.batch[node] == r.open-1
}
