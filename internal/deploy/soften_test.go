package deploy

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// twoSignals are a user's, and who listens to the second.
type twoSignals struct {
	ctx, left     context.Context
	first, second context.CancelFunc
	listening     int
	notes         atomic.Int32
}

type keyOfValue struct{}

func newTwoSignals(t *testing.T) *twoSignals {
	s := new(twoSignals)
	s.ctx, s.first = context.WithCancel(context.WithValue(t.Context(), keyOfValue{}, "value"))
	s.left, s.second = context.WithCancel(t.Context())
	return s
}

func (s *twoSignals) soften() (context.Context, func()) {
	leave := func() (context.Context, func()) {
		s.listening++
		return s.left, func() { s.listening-- }
	}
	return soften(s.ctx, leave, func() { s.notes.Add(1) })
}

func TestTheFirstSignalIsNotedAndTheSecondLeaves(t *testing.T) {
	s := newTwoSignals(t)
	soft, over := s.soften()
	if s.listening != 1 || soft.Value(keyOfValue{}) != "value" {
		t.Errorf("%d listen, value %v", s.listening, soft.Value(keyOfValue{}))
	}
	s.first()
	for late := time.After(20 * time.Second); s.notes.Load() != 1; {
		select {
		case <-late:
			t.Fatal("it is not noted")
		case <-time.After(time.Millisecond):
		}
	}
	if soft.Err() != nil {
		t.Errorf("after the first: %v", soft.Err())
	}
	s.second()
	<-soft.Done()
	if !errors.Is(soft.Err(), context.Canceled) || !errors.Is(context.Cause(soft), errLeft) {
		t.Errorf("after the second: %v, %v", soft.Err(), context.Cause(soft))
	}
	over()
	over()
	if s.listening != 0 || s.notes.Load() != 1 {
		t.Errorf("%d listen, %d notes", s.listening, s.notes.Load())
	}
}

// The work may be over before anybody presses Ctrl-C.
func TestASignalAfterSoftWorkIsNotNoted(t *testing.T) {
	s := newTwoSignals(t)
	soft, over := s.soften()
	over()
	if soft.Err() == nil || s.listening != 0 {
		t.Errorf("%v, %d listen", soft.Err(), s.listening)
	}
	s.first()
	_, over = s.soften()
	over()
	if n := s.notes.Load(); n != 1 {
		t.Errorf("%d notes; the one is that of the softening after the signal", n)
	}
}

func TestWhereNobodyCanLeaveTheFirstSignalEndsTheWork(t *testing.T) {
	s := newTwoSignals(t)
	soft, over := soften(s.ctx, nil, func() { t.Error("noted") })
	defer over()
	s.first()
	if soft.Err() == nil || soft.Value(keyOfValue{}) != "value" {
		t.Errorf("%v, value %v", soft.Err(), soft.Value(keyOfValue{}))
	}
}
