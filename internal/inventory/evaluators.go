package inventory

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/nix"
)

// evaluators has Nix evaluate what several nodes ask for. As many processes go on side by side as it is told and as fit in the memory
// that is free; one may always go on. Who comes while they do waits, and those who wait share a process: what it has read and begun with
// for one of them serves the next. Which of them is at fault stays that one's matter.
type evaluators struct {
	most atomic.Int64 // how many go on side by side; less than one is one
	eval func(context.Context, nix.Expression) ([]byte, error)
	each func(context.Context, nix.Expression, []nix.Part) error
	// free is the memory that is available, in bytes, 0 if that is not known, and heap what Nix begins with.
	free, heap func() int64
	// system tells whether a value is that of a whole system: only those show what memory one takes.
	system func(value []byte) bool

	mu       sync.Mutex
	waiting  []*asked
	running  int
	reserved int64 // what those that run may come to take, in bytes
	// one is the most that a process has taken for one expression, in bytes, and next what every further one added to that; either is 0
	// before it was measured.
	one, next int64
	looking   bool // it will be looked again whether there is room
}

// asked is an expression whose value somebody waits for.
type asked struct {
	ctx   context.Context
	e     nix.Expression
	alone bool // it shares no process
	told  chan told
	group *group // what it is evaluated with; nil while it waits

	mu   sync.Mutex
	gone bool // nobody waits any more
}

type told struct {
	value []byte
	err   error
}

// group is what one process evaluates.
type group struct {
	asked  []*asked
	here   int // how many of them somebody waits for
	need   int64
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}
}

// guessedPeak is what an evaluation is taken to need before the first has ended: what a small system on a recent nixpkgs
// does.
const guessedPeak = 1 << 30

// evaluatorPause is how often it is looked whether there is room for another evaluation.
const evaluatorPause = 50 * time.Millisecond

// value evaluates e when there is room, which Begun is told. What is not pure has a process of its own. When ctx ends nothing is
// called any more, and a process that nobody else waits for is gone.
func (ev *evaluators) value(ctx context.Context, e nix.Expression) ([]byte, error) {
	a := &asked{ctx: ctx, alone: !e.Pure, told: make(chan told, 1)}
	a.e = a.whileHere(e)
	ev.mu.Lock()
	ev.waiting = append(ev.waiting, a)
	ev.begin()
	ev.mu.Unlock()
	select {
	case t := <-a.told:
		return t.value, t.err
	case <-ctx.Done():
		ev.leave(a)
		return nil, fmt.Errorf("evaluate: %w", context.Cause(ctx))
	}
}

// whileHere is e whose log and Begun hear nothing when nobody waits any more.
func (a *asked) whileHere(e nix.Expression) nix.Expression {
	log, begun := e.Log, e.Begun
	e.Log = writer(func(p []byte) (int, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if log == nil || a.gone {
			return len(p), nil
		}
		return log.Write(p)
	})
	e.Begun = func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if begun != nil && !a.gone {
			begun()
		}
	}
	return e
}

// writer is a function to write with.
type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func (ev *evaluators) leave(a *asked) {
	a.mu.Lock()
	a.gone = true
	a.mu.Unlock()
	ev.mu.Lock()
	ev.waiting = slices.DeleteFunc(ev.waiting, func(w *asked) bool { return w == a })
	g := a.group
	last := false
	if g != nil {
		g.here--
		last = g.here == 0
	}
	ev.mu.Unlock()
	if last {
		g.cancel()
		<-g.ended
	}
}

// begin begins what there is room for. ev is locked.
func (ev *evaluators) begin() {
	for {
		n := ev.room()
		if n == 0 {
			break
		}
		g := &group{asked: slices.Clone(ev.waiting[:n]), here: n, need: ev.need(n), ended: make(chan struct{})}
		ev.waiting = slices.Delete(ev.waiting, 0, n)
		g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(g.asked[0].ctx))
		for _, a := range g.asked {
			a.group = g
		}
		ev.running++
		ev.reserved += g.need
		go ev.run(g)
	}
	if len(ev.waiting) > 0 && !ev.looking && ev.running < ev.sideBySide() {
		// It is memory that is missing, which others may give back as well.
		ev.looking = true
		time.AfterFunc(evaluatorPause, func() {
			ev.mu.Lock()
			defer ev.mu.Unlock()
			ev.looking = false
			ev.begin()
		})
	}
}

func (ev *evaluators) sideBySide() int { return max(int(ev.most.Load()), 1) }

// room is for how many of those who wait first a process may begin. Half of what is left for each at once, so that the last ones end
// at about the same time.
func (ev *evaluators) room() int {
	if len(ev.waiting) == 0 || ev.running >= ev.sideBySide() {
		return 0
	}
	n, free := 1, ev.free()
	if ev.one > 0 && !ev.waiting[0].alone {
		together := 0
		for together < len(ev.waiting) && !ev.waiting[together].alone {
			together++
		}
		share := 2 * ev.sideBySide()
		n = min((len(ev.waiting)+share-1)/share, together)
	}
	// Those that run have grown to half their size on average; the other half is not free.
	fits := func() bool { return free == 0 || free-ev.reserved/2 >= ev.need(n) }
	for n > 1 && !fits() {
		n--
	}
	if ev.running > 0 && !fits() {
		return 0
	}
	return n
}

// need is what a process for n expressions is taken to need, in bytes.
func (ev *evaluators) need(n int) int64 {
	one, next := ev.one, ev.next
	if one == 0 {
		one = guessedPeak
	}
	if next == 0 {
		next = one
	}
	return one + int64(n-1)*next
}

// measured tells what a process has taken that has evaluated n systems, in bytes.
func (ev *evaluators) measured(n int, bytes int64) {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	if n == 1 {
		ev.one = max(ev.one, bytes)
		return
	}
	// The smallest that is known to be measured is one byte.
	ev.next = max(ev.next, (bytes-ev.one)/int64(n-1), 1)
}

// run evaluates a group, and has those wait again who were not at fault and got no value.
func (ev *evaluators) run(g *group) {
	defer g.cancel()
	n := len(g.asked)
	how := g.asked[0].e
	var peak int64
	how.Heap, how.Peak = ev.heap(), func(bytes int64) { peak = bytes }
	again, whole, alone := ev.evaluate(g, how)
	if whole {
		ev.measured(n, peak)
	}
	ev.mu.Lock()
	ev.running--
	ev.reserved -= g.need
	for _, a := range slices.Backward(again) {
		a.mu.Lock()
		gone := a.gone
		a.mu.Unlock()
		if !gone {
			a.group, a.alone = nil, a.alone || alone
			ev.waiting = slices.Insert(ev.waiting, 0, a)
		}
	}
	ev.begin()
	ev.mu.Unlock()
	close(g.ended)
}

// evaluate has one process evaluate a group, and gives those who have to be asked again: alone, if it is not known on whose account the
// process has failed. It may have been too large for the memory. whole tells that all of them are systems.
func (ev *evaluators) evaluate(g *group, how nix.Expression) (again []*asked, whole, alone bool) {
	if len(g.asked) == 1 {
		value, err := ev.eval(g.ctx, how)
		g.asked[0].told <- told{value, err}
		return nil, err == nil && ev.system(value), false
	}
	parts := make([]nix.Part, len(g.asked))
	done, systems := make([]bool, len(parts)), 0
	for i, a := range g.asked {
		parts[i] = nix.Part{Text: a.e.Text, Log: a.e.Log, Begun: a.e.Begun, Done: func(value []byte, err error) {
			done[i] = true
			if err == nil && ev.system(value) {
				systems++
			}
			a.told <- told{value, err}
		}}
	}
	err := ev.each(g.ctx, how, parts)
	for i, a := range g.asked {
		if !done[i] {
			again = append(again, a)
		}
	}
	return again, systems == len(parts), err != nil
}
