package fleet

import (
	"context"
	"sync"
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
