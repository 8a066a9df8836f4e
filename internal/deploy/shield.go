package deploy

import (
	"context"
	"errors"
	"sync"
)

// errLeft is why a shielded context ended: the user wants to leave.
var errLeft = errors.New("left by the user")

// shield makes a context for work on a target that is being changed, which it would not help to break off: the end of ctx,
// which is the user's first signal, does not end it, but calls note once. It ends when the user leaves, by a second one. The
// function it returns ends it as well, and afterwards note is not called any more. Where nobody can leave, the first signal
// has to do, and nothing is shielded.
func shield(ctx context.Context, leave func() (context.Context, func()), note func()) (context.Context, func()) {
	if leave == nil {
		return context.WithCancel(ctx)
	}
	left, over := leave()
	shielded, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stopLeaving := context.AfterFunc(left, func() { cancel(errLeft) })
	var noting sync.WaitGroup
	noting.Add(1)
	stopNoting := context.AfterFunc(ctx, func() {
		defer noting.Done()
		// Whoever has left already knows.
		if left.Err() == nil {
			note()
		}
	})
	return shielded, sync.OnceFunc(func() {
		if !stopNoting() {
			noting.Wait()
		}
		stopLeaving()
		cancel(nil)
		over()
	})
}
