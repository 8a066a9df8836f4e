package server

import (
	"io"
	"testing"
	"time"
)

// A ferry that is gone without a word must not hold the lock; one that speaks now and then, or that waits for the agent, does.
func TestASilentInputIsNoticedAndABusyAgentIsNot(t *testing.T) {
	const limit = 200 * time.Millisecond
	in, out := io.Pipe()
	gone := make(chan struct{})
	a := attend(in, limit, func() { close(gone) })
	buffer := make([]byte, 1)
	for range 4 {
		go func() { time.Sleep(limit / 2); _, _ = out.Write([]byte{'x'}) }()
		if _, err := a.Read(buffer); err != nil {
			t.Fatal(err)
		}
	}
	// At work, and not reading.
	time.Sleep(2 * limit)
	select {
	case <-gone:
		t.Fatal("it was given up while it spoke, or while nobody listened")
	default:
	}
	go func() { _, _ = a.Read(buffer) }()
	select {
	case <-gone:
	case <-time.After(20 * limit):
		t.Fatal("its silence was not noticed")
	}
}
