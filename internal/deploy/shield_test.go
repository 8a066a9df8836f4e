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

func (s *twoSignals) shield() (context.Context, func()) {
	leave := func() (context.Context, func()) {
		s.listening++
		return s.left, func() { s.listening-- }
	}
	return shield(s.ctx, leave, func() { s.notes.Add(1) })
}

func TestTheFirstSignalIsNotedAndTheSecondLeaves(t *testing.T) {
	s := newTwoSignals(t)
	shielded, over := s.shield()
	if s.listening != 1 || shielded.Value(keyOfValue{}) != "value" {
		t.Errorf("%d listen, value %v", s.listening, shielded.Value(keyOfValue{}))
	}
	s.first()
	for late := time.After(20 * time.Second); s.notes.Load() != 1; {
		select {
		case <-late:
			t.Fatal("it is not noted")
		case <-time.After(time.Millisecond):
		}
	}
	if shielded.Err() != nil {
		t.Errorf("after the first: %v", shielded.Err())
	}
	s.second()
	<-shielded.Done()
	if !errors.Is(shielded.Err(), context.Canceled) || !errors.Is(context.Cause(shielded), errLeft) {
		t.Errorf("after the second: %v, %v", shielded.Err(), context.Cause(shielded))
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
	shielded, over := s.shield()
	over()
	if shielded.Err() == nil || s.listening != 0 {
		t.Errorf("%v, %d listen", shielded.Err(), s.listening)
	}
	s.first()
	_, over = s.shield()
	over()
	if n := s.notes.Load(); n != 1 {
		t.Errorf("%d notes; the one is that of the shielding after the signal", n)
	}
}

func TestWhereNobodyCanLeaveTheFirstSignalEndsTheWork(t *testing.T) {
	s := newTwoSignals(t)
	shielded, over := shield(s.ctx, nil, func() { t.Error("noted") })
	defer over()
	s.first()
	if shielded.Err() == nil || shielded.Value(keyOfValue{}) != "value" {
		t.Errorf("%v, value %v", shielded.Err(), shielded.Value(keyOfValue{}))
	}
}
