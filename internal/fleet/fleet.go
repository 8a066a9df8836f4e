// Package fleet deploys several nodes side by side: each as package deploy does it, in its turn. It shares this machine's
// cores and memory out, changes the nodes in batches, and stops when too many of them fail.
package fleet

import (
	"context"
	"errors"
	"sync"
	"time"

	"ferry/internal/deploy"
	"ferry/internal/inventory"
	"ferry/internal/preview"
	"ferry/internal/session"
	"ferry/internal/target"
)

// Options say how to deploy several nodes.
type Options struct {
	// Deploy is for each of them. Its functions are called from several goroutines.
	Deploy deploy.Options
	// Parallel is how many nodes are connected to, and how many are changed, shipping included, at once.
	Parallel int
	// ParallelActivate, if not 0, is how many nodes are changed at once after shipping; then Parallel is only for shipping. A
	// node that waits in between is not being changed yet.
	ParallelActivate int
	// Cores is how many evaluations may go on at once, where there is memory for them.
	Cores int
	// Batches are the groups in which nodes are changed. With more than one, no node is changed before all are connected,
	// evaluated and built.
	Batches Batches
	// Pause is the time between two batches.
	Pause time.Duration
	// MaxFailures is how many nodes may fail before the others are left as they are; a negative one sets no limit.
	MaxFailures int
	// RollBackBatch takes the nodes of the batch that was stopped back to what they ran before.
	RollBackBatch bool
	// SkipUnreachable does not count a node that cannot be reached as one that fails.
	SkipUnreachable bool
	// Agree, when set, is asked once with what is planned for all nodes on which anything is to be done, in their order, before
	// any of them is changed; false leaves them as they are. Deploy.Agree is not used then.
	Agree func(ctx context.Context, planned []*preview.Planned) (bool, error)
	// Last is the file in which it is written down how far each node came, see [LastFile]; none if empty.
	Last string
	// Note, when set, is told what the user should know besides.
	Note func(string)
	// Ended, when set, is called for every node when its deployment is over, one at a time.
	Ended func(Outcome)
	// Batch, when set, is called when a batch, counted from 1, may be changed, if there are several.
	Batch func(number, of, nodes int)
}

// Status is what became of a node.
type Status string

// The statuses.
const (
	Done        Status = "done"        // it is as asked
	Failed      Status = "failed"      // it is as it was before
	Unreachable Status = "unreachable" // it could not be reached, and is as it was before
	RolledBack  Status = "rolled back" // it was changed, and runs and boots what it did before again
	Unknown     Status = "unknown"     // a person has to look
	Stopped     Status = "not begun"   // others have failed, or the user wanted an end: it is as it was before
)

// Outcome is how the deployment of one node ended.
type Outcome struct {
	Node     inventory.Node
	Status   Status
	Result   deploy.Result
	Err      error // nil if Done
	Duration time.Duration
}

// ErrStopped is why a node was not begun: too many others have failed.
var ErrStopped = errors.New("not begun: others have failed")

// ErrDeclined is why a node was not begun: the user did not agree to what was planned.
var ErrDeclined = errors.New("not begun: you did not agree")

// Run deploys nodes, and tells what became of each, in their order. Their batches follow that order too. The end of ctx ends
// what has changed nothing yet.
func Run(ctx context.Context, with session.Session, inv *inventory.Inventory, nodes []inventory.Node, opts Options) []Outcome {
	f := newFleet(with, inv, nodes, opts)
	if opts.Last != "" {
		f.last = newLast(opts.Last, inv.File, string(opts.Deploy.Action), nodes)
	}
	f.deploy = func(ctx context.Context, s session.Session, node inventory.Node, o deploy.Options) (deploy.Result, error) {
		return deploy.Run(ctx, s, inv, node, o)
	}
	f.rollBack = func(ctx context.Context, s session.Session, node inventory.Node, o deploy.RollbackOptions) (deploy.Result, error) {
		return deploy.Rollback(ctx, s, inv, node, o)
	}
	return f.run(ctx)
}

// fleet is several nodes on their way.
type fleet struct {
	with     session.Session
	opts     Options
	nodes    []inventory.Node
	deploy   func(context.Context, session.Session, inventory.Node, deploy.Options) (deploy.Result, error)
	rollBack func(context.Context, session.Session, inventory.Node, deploy.RollbackOptions) (deploy.Result, error)

	connecting, building, comparing, changing slots
	activating                                slots // nil: who has a slot to be changed activates in it
	rollout                                   *rollout
	agreement                                 *agreement // nil: nobody is asked

	holding sync.Mutex
	// held frees the slot in which a node ships or is changed: only after it is known how the node ended, so that no other one
	// begins in its place which a failure stops.
	held map[string]func()

	outcomes []Outcome
	telling  sync.Mutex
	last     *Last // nil: it is not written down
}

// builds is for how many nodes at once it is found out whether they can be built here: each may take a nix-store.
const builds = 2

func newFleet(with session.Session, inv *inventory.Inventory, nodes []inventory.Node, opts Options) *fleet {
	inv.EvaluateSideBySide(min(opts.Cores, len(nodes)))
	f := &fleet{
		with: with, opts: opts, nodes: nodes, outcomes: make([]Outcome, len(nodes)), rollout: newRollout(nodes, opts), held: map[string]func(){},
		connecting: newSlots(opts.Parallel), building: newSlots(builds), comparing: newSlots(opts.Parallel), changing: newSlots(opts.Parallel),
	}
	if opts.ParallelActivate > 0 {
		f.activating = newSlots(opts.ParallelActivate)
	}
	return f
}

func (f *fleet) run(ctx context.Context) []Outcome {
	f.write(func() error { return f.last.write() })
	if f.opts.Agree != nil {
		asking, withdraw := context.WithCancel(ctx)
		defer withdraw()
		f.agreement = newAgreement(withdraw, f.nodes, f.opts.Agree)
		go f.agreement.serve(asking)
	}
	var group sync.WaitGroup
	for i := range f.nodes {
		group.Go(func() { f.one(ctx, i) })
	}
	group.Wait()
	if f.opts.RollBackBatch && f.rollout.stopped() {
		f.rollBackBatch(ctx)
	}
	return f.outcomes
}

// one takes a node from its connection to its end.
func (f *fleet) one(ctx context.Context, i int) {
	begin := time.Now()
	node := f.nodes[i]
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.rollout.join(node.Name, cancel)
	result, err := f.deploy(own, f.takingTurns(), node, f.optionsFor(node))
	o := Outcome{Node: node, Status: f.status(ctx, node.Name, err), Result: result, Err: err, Duration: time.Since(begin)}
	if o.Status == Stopped && f.rollout.stopped() {
		o.Err = ErrStopped
	}
	f.outcomes[i] = o
	f.tell(o)
	f.rollout.end(ctx, node.Name, f.counts(o.Status))
	f.hold(node.Name, nil)
	if f.agreement != nil {
		f.agreement.end(node.Name, f.rollout.stopped())
	}
}

// hold frees the slot that a node is in, and remembers what frees its next one; nil: it has none.
func (f *fleet) hold(node string, leave func()) {
	f.holding.Lock()
	before := f.held[node]
	f.held[node] = leave
	f.holding.Unlock()
	if before != nil {
		before()
	}
}

func (f *fleet) tell(o Outcome) {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.write(func() error { return f.last.end(o.Node.Name, o.Status) })
	if f.opts.Ended != nil {
		f.opts.Ended(o)
	}
}

// write writes down how far the nodes came. Where that cannot be, it is said once.
func (f *fleet) write(by func() error) {
	if f.last == nil {
		return
	}
	if err := by(); err != nil {
		f.last = nil
		if f.opts.Note != nil {
			f.opts.Note("--resume will not know of this deployment: " + err.Error())
		}
	}
}

// takingTurns is the session in which each node waits for its turn.
func (f *fleet) takingTurns() session.Session {
	s := f.with
	s.Turn = f.turn
	return s
}

// optionsFor are the options of a node's deployment: they say whom a question is about.
func (f *fleet) optionsFor(node inventory.Node) deploy.Options {
	o := f.opts.Deploy
	if ask := o.Ask; ask != nil {
		o.Ask = func(ctx context.Context, question string) (bool, error) { return ask(ctx, node.Name+": "+question) }
	}
	if f.agreement != nil {
		o.Agree = f.agreement.agree
	}
	return o
}

func (f *fleet) turn(ctx context.Context, node string, step session.Step) (over func(), err error) {
	switch step {
	case session.Connect:
		return f.connecting.enter(ctx)
	case session.Build:
		return f.building.enter(ctx)
	case session.Compare:
		return f.comparing.enter(ctx)
	case session.Ship:
		return func() {}, f.begin(ctx, node)
	}
	return func() {}, f.activate(ctx, node)
}

// begin waits until node may be changed.
func (f *fleet) begin(ctx context.Context, node string) error {
	if err := f.rollout.wait(ctx, node); err != nil {
		return err
	}
	leave, err := f.changing.enter(ctx)
	if err != nil {
		return err
	}
	f.hold(node, leave)
	if !f.rollout.begin(node) {
		return ErrStopped
	}
	return nil
}

// activate waits until node, which all is shipped to, may be activated.
func (f *fleet) activate(ctx context.Context, node string) error {
	if f.activating == nil {
		return nil
	}
	f.hold(node, nil)
	leave, err := f.activating.enterUnless(ctx, f.rollout.stop)
	if err == nil {
		f.hold(node, leave)
	}
	return err
}

// status tells what err, nil for none, leaves of a node.
func (f *fleet) status(ctx context.Context, node string, err error) Status {
	var failed *session.Error
	var unreachable *target.Error
	errors.As(err, &failed)
	switch {
	case err == nil:
		return Done
	case failed != nil && failed.State == session.Unknown:
		return Unknown
	case failed != nil && failed.State == session.RolledBack:
		return RolledBack
	case errors.Is(err, ErrStopped), errors.Is(err, ErrDeclined):
		return Stopped
	case errors.Is(err, context.Canceled) && (ctx.Err() != nil || f.rollout.stopped() && !f.rollout.begun(node)):
		return Stopped
	case failed != nil && failed.Step == session.Connect && errors.As(err, &unreachable) && unreachable.Unreachable():
		return Unreachable
	}
	return Failed
}

// counts tells whether a status is a failure that may stop the others.
func (f *fleet) counts(s Status) bool {
	return s == Failed || s == RolledBack || s == Unknown || s == Unreachable && !f.opts.SkipUnreachable
}

// rollBackBatch rolls back those nodes of the batch that was stopped that have the new system.
func (f *fleet) rollBackBatch(ctx context.Context) {
	changing := f.changing
	if f.activating != nil {
		changing = f.activating
	}
	var group sync.WaitGroup
	for i, o := range f.outcomes {
		if o.Status != Done || o.Result.Outcome != deploy.Committed || !f.rollout.inLastBatch(o.Node.Name) {
			continue
		}
		group.Go(func() {
			leave, err := changing.enter(ctx)
			if err == nil {
				defer leave()
				_, err = f.rollBack(ctx, f.with, o.Node, f.rollbackOptions(o.Node))
			}
			o.Status, o.Err = RolledBack, errors.New("rolled back: another node in its batch failed")
			if err != nil {
				// It has the new system, or worse.
				o.Status, o.Err = Unknown, err
			}
			f.outcomes[i] = o
			f.tell(o)
		})
	}
	group.Wait()
}

// rollbackOptions are the options of a rollback, which has its turn already.
func (f *fleet) rollbackOptions(node inventory.Node) deploy.RollbackOptions {
	o := f.optionsFor(node)
	return deploy.RollbackOptions{Switching: o.Switching, ForceNotNixOS: o.ForceNotNixOS}
}
