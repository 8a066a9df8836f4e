package inventory

import (
	"context"
	"sync"
)

// once remembers what was found out for a key. Each key is asked by one at a time; whoever comes meanwhile waits for that one, or for the
// end of its own context, and no key waits for another. A failure is not remembered: the next one asks again. The zero value is ready.
type once[K comparable, V any] struct {
	mu    sync.Mutex
	found map[K]V
	busy  map[K]chan struct{} // closed when whoever asks is done
}

// get gives what was found for key, or finds it.
func (o *once[K, V]) get(ctx context.Context, key K, find func() (V, error)) (V, error) {
	for {
		value, known, wait := o.begin(key)
		switch {
		case known:
			return value, nil
		case wait == nil:
			return o.ask(key, find)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return value, context.Cause(ctx)
		}
	}
}

// begin gives what is known, or whom to wait for; neither: it is the caller's turn to ask.
func (o *once[K, V]) begin(key K) (value V, known bool, wait <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if value, known = o.found[key]; known {
		return value, true, nil
	}
	if busy := o.busy[key]; busy != nil {
		return value, false, busy
	}
	if o.busy == nil {
		o.busy, o.found = map[K]chan struct{}{}, map[K]V{}
	}
	o.busy[key] = make(chan struct{})
	return value, false, nil
}

func (o *once[K, V]) ask(key K, find func() (V, error)) (value V, err error) {
	asked := false
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if asked && err == nil {
			o.found[key] = value
		}
		close(o.busy[key])
		delete(o.busy, key)
	}()
	value, err = find()
	asked = true
	return value, err
}
