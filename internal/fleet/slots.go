package fleet

import (
	"context"
	"sync"
	"time"
)

// slots lets so many go on at once.
type slots chan struct{}

func newSlots(n int) slots { return make(slots, n) }

// enter waits for a slot and gives what frees it.
func (s slots) enter(ctx context.Context) (leave func(), err error) {
	select {
	case s <- struct{}{}:
		return sync.OnceFunc(func() { <-s }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// enterUnless is enter for what has to stop waiting when stop is closed: it fails with ErrStopped then.
func (s slots) enterUnless(ctx context.Context, stop <-chan struct{}) (leave func(), err error) {
	either, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-stop:
			cancel(ErrStopped)
		case <-either.Done():
		}
	}()
	if leave, err = s.enter(either); err != nil {
		return nil, err
	}
	select {
	case <-stop:
		// Where both come at once, either may have been taken.
		leave()
		return nil, ErrStopped
	default:
		return leave, nil
	}
}

// evaluators lets evaluations go on side by side: as many as there are cores, and as fit in the memory that is free. One may
// always go on.
type evaluators struct {
	cores int
	// free is the memory that is available, in bytes, and peak the most that an evaluation has taken so far; either is 0 where
	// that is not known.
	free, peak func() int64

	mu      sync.Mutex
	running int
}

// guessedPeak is what an evaluation is taken to need before the first has ended: what a small system on a recent nixpkgs
// does.
const guessedPeak = 1 << 30

// evaluatorPause is how often it is looked whether there is room for another evaluation.
const evaluatorPause = 50 * time.Millisecond

// enter waits until there is room for an evaluation and gives what ends it.
func (e *evaluators) enter(ctx context.Context) (leave func(), err error) {
	for !e.tryEnter() {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(evaluatorPause):
		}
	}
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.running--
	}), nil
}

func (e *evaluators) tryEnter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running > 0 && (e.running >= e.cores || !e.fits()) {
		return false
	}
	e.running++
	return true
}

// fits tells whether one more has room. Those that run have grown to half their size on average; the other half is not free.
func (e *evaluators) fits() bool {
	free, peak := e.free(), e.peak()
	if free == 0 {
		return true
	}
	if peak == 0 {
		peak = guessedPeak
	}
	return free-int64(e.running)*peak/2 >= peak
}
