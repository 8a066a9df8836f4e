package nix

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
)

// BuildTogether is [Client.Build] for one of several derivations that are asked for side by side; out is the path of its output.
// The first two are built at once. Those that are asked for while two builds run wait, and are then built by one nix-store, so that
// Nix's scheduler sees all that is to be built. Each ends for itself: when it is built, or when a derivation has failed that
// it needs. progress is told of what it needs; what is fetched is that of all.
//
// When ctx ends, a build goes on that others need.
func (c *Client) BuildTogether(ctx context.Context, drv, out StorePath, root string, progress func(BuildProgress)) error {
	if isRoot(root, out) {
		return nil
	}
	// The link may come to stand for what another ferry builds for the same node, and a build for several nodes makes no roots.
	if _, err := c.Keep(ctx, drv, out); err != nil {
		return fmt.Errorf("build %s: %w", drv, err)
	}
	if _, err := os.Lstat(string(out)); err == nil {
		return c.keep(ctx, drv, root, progress)
	}
	r := &request{drv: drv, out: out, root: root, progress: progress, settled: make(chan struct{})}
	c.builds.add(ctx, c, r)
	select {
	case <-r.settled:
	case <-ctx.Done():
		c.builds.leave(r)
		return fmt.Errorf("build %s: %w", drv, ctx.Err())
	}
	if r.err != nil || r.rooted {
		return r.err
	}
	// What nix-store has built is its own until it ends. This makes the root, and builds what was collected in between, or what
	// nobody knows why it was not built.
	return c.keep(ctx, drv, root, func(p BuildProgress) {
		if progress != nil && len(p.Plan.Build)+len(p.Plan.Fetch) > 0 {
			progress(p)
		}
	})
}

// keep builds what is built already, as a rule: two at once, as each takes the memory of a nix-store.
func (c *Client) keep(ctx context.Context, drv StorePath, root string, progress func(BuildProgress)) error {
	leave, err := c.builds.enter(ctx)
	if err != nil {
		return fmt.Errorf("build %s: %w", drv, err)
	}
	defer leave()
	return c.Build(ctx, drv, root, progress)
}

// queue is what is asked of [Client.BuildTogether].
type queue struct {
	mu      sync.Mutex
	running int // how many groups are being built
	waiting []*request
	keeping chan struct{}
	one     bool // only one group at a time, for tests
}

// enter waits for one of two slots.
func (q *queue) enter(ctx context.Context) (leave func(), err error) {
	q.mu.Lock()
	if q.keeping == nil {
		q.keeping = make(chan struct{}, 2)
	}
	slots := q.keeping
	q.mu.Unlock()
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// request is one derivation that somebody waits for.
type request struct {
	drv, out StorePath
	root     string
	progress func(BuildProgress)
	group    *group        // nil while it waits
	settled  chan struct{} // closed when nothing more is to come of the group
	err      error
	rooted   bool // it is built, and root is made
	over     bool // settled, or nobody waits for it any more

	telling sync.Mutex
	silent  bool
}

// tell tells how far the build is, while somebody waits for it.
func (r *request) tell(p BuildProgress) {
	r.telling.Lock()
	defer r.telling.Unlock()
	if r.progress != nil && !r.silent {
		r.progress(p)
	}
}

// hush returns when progress is not called any more.
func (r *request) hush() {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.silent = true
}

// group is the requests that one nix-store builds.
type group struct {
	requests []*request
	open     int  // those that are not over
	useless  bool // something may be built that nobody waits for
	cancel   context.CancelFunc
	ended    chan struct{}
}

// groups is how many are built at once: what takes hours must not keep the others from beginning.
const groups = 2

// add lets r be built: at once, or with others when something that is being built has ended.
func (q *queue) add(ctx context.Context, c *Client, r *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, r)
	q.next(context.WithoutCancel(ctx), c)
}

// next begins with those that wait, if not too much is being built. The queue is locked.
func (q *queue) next(ctx context.Context, c *Client) {
	if q.running >= groups || q.one && q.running > 0 || len(q.waiting) == 0 {
		return
	}
	own, cancel := context.WithCancel(ctx)
	g := &group{requests: q.waiting, open: len(q.waiting), cancel: cancel, ended: make(chan struct{})}
	for _, r := range g.requests {
		r.group = g
	}
	q.running, q.waiting = q.running+1, nil
	go func() {
		c.buildGroup(own, g)
		cancel()
		close(g.ended)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.running--
		q.next(ctx, c)
	}()
}

// leave takes r out, for which nobody waits any more. If nobody waits for the others of its group either, the build has
// ended when it returns.
func (q *queue) leave(r *request) {
	q.mu.Lock()
	q.waiting = slices.DeleteFunc(q.waiting, func(w *request) bool { return w == r })
	g := r.group
	q.close(r, true)
	last := g != nil && g.open == 0
	q.mu.Unlock()
	r.hush()
	if last {
		<-g.ended
	}
}

// settle tells the one who waits for r how it has ended; err nil: it is built.
func (q *queue) settle(r *request, err error, rooted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.over {
		return
	}
	r.hush()
	r.err, r.rooted = err, rooted
	close(r.settled)
	q.close(r, err != nil)
}

// close ends r; useless says that there may be more to be built for it. The queue is locked.
func (q *queue) close(r *request, useless bool) {
	g := r.group
	if r.over || g == nil {
		return
	}
	r.over = true
	g.open--
	g.useless = g.useless || useless
	if g.open == 0 && g.useless {
		g.cancel()
	}
}

// isOver tells whether nobody waits for r.
func (q *queue) isOver(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return r.over
}

// buildGroup builds a group and settles each of its requests. One alone is built as [Client.Build] does it.
func (c *Client) buildGroup(ctx context.Context, g *group) {
	if len(g.requests) == 1 {
		r := g.requests[0]
		c.builds.settle(r, c.Build(ctx, r.drv, r.root, r.tell), true)
		return
	}
	args := []string{"--realise"}
	for _, r := range g.requests {
		args = append(args, string(r.drv))
	}
	cmd := c.command("nix-store", append(args, "--keep-going", "--no-gc-warning", "--log-format", "internal-json")...)
	s := newShares(ctx, c, g)
	lines := &lineWriter{each: s.log.line}
	cmd.Err = lines
	err := c.run(ctx, cmd)
	lines.end()
	s.count()
	s.settle(0)
	for _, r := range g.requests {
		var why error
		if err != nil && wasInterrupted(s.log.errors) {
			why = fmt.Errorf("build %s: %w", r.drv, context.Canceled)
		}
		c.builds.settle(r, why, false)
	}
}
