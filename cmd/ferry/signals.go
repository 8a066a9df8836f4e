package main

import (
	"context"
	"os"
	"sync"
	"time"
)

// signals gives a user's signals their meaning. The first asks ferry to stop what it does. The second ends it at once, unless
// somebody listens: a target is being changed, and what the second means is to leave it. Whoever listens has some patience's
// time for that, or until the third signal.
type signals struct {
	stop     func()
	end      func(os.Signal)
	patience time.Duration

	leave   context.Context
	leaving context.CancelFunc

	mu        sync.Mutex
	listeners int
}

func newSignals(stop func(), end func(os.Signal), patience time.Duration) *signals {
	s := &signals{stop: stop, end: end, patience: patience}
	s.leave, s.leaving = context.WithCancel(context.Background())
	return s
}

// take goes through the signals as they come.
func (s *signals) take(caught <-chan os.Signal) {
	<-caught
	s.stop()
	last := <-caught
	if s.heard() {
		s.leaving()
		select {
		case last = <-caught:
		case <-time.After(s.patience):
		}
	}
	s.end(last)
}

// listen gives what is done at the second signal, and a function that ends the listening.
func (s *signals) listen() (leave context.Context, over func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners++
	return s.leave, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.listeners--
	})
}

func (s *signals) heard() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listeners > 0
}
