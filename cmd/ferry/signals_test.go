package main

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// caughtSignals are signals whose meaning is recorded.
type caughtSignals struct {
	*signals
	t       *testing.T
	caught  chan os.Signal
	stopped chan bool
	ended   chan os.Signal
}

func catch(t *testing.T, patience time.Duration) *caughtSignals {
	c := &caughtSignals{t: t, caught: make(chan os.Signal), stopped: make(chan bool, 1), ended: make(chan os.Signal, 1)}
	c.signals = newSignals(func() { c.stopped <- true }, func(sig os.Signal) { c.ended <- sig }, patience)
	go c.take(c.caught)
	return c
}

// send sends a signal, which is taken when it returns.
func (c *caughtSignals) send(sig os.Signal) {
	c.t.Helper()
	select {
	case c.caught <- sig:
	case <-time.After(20 * time.Second):
		c.t.Fatal("nobody takes the signal")
	}
}

func (c *caughtSignals) ends(by os.Signal) {
	c.t.Helper()
	select {
	case sig := <-c.ended:
		if sig != by {
			c.t.Errorf("ended by %v, not %v", sig, by)
		}
	case <-time.After(20 * time.Second):
		c.t.Fatal("it does not end")
	}
}

// goesOn checks that it has not been ended.
func (c *caughtSignals) goesOn() {
	c.t.Helper()
	select {
	case sig := <-c.ended:
		c.t.Fatalf("ended by %v", sig)
	default:
	}
}

func TestTheSecondSignalEndsFerryWhenNobodyListens(t *testing.T) {
	c := catch(t, time.Hour)
	c.send(os.Interrupt)
	<-c.stopped
	c.goesOn()
	c.send(syscall.SIGTERM)
	c.ends(syscall.SIGTERM)
	if c.leave.Err() != nil {
		t.Error("somebody is told to leave")
	}
}

func TestTheSecondSignalLeavesWhenSomebodyListensAndTheThirdEndsFerry(t *testing.T) {
	c := catch(t, time.Hour)
	leave, over := c.listen()
	_, other := c.listen()
	defer over()
	other()
	other()
	c.send(syscall.SIGTERM)
	<-c.stopped
	if leave.Err() != nil {
		t.Error("the first leaves")
	}
	c.send(os.Interrupt)
	<-leave.Done()
	c.goesOn()
	c.send(os.Interrupt)
	c.ends(os.Interrupt)
}

func TestLeavingMayNotTakeForEver(t *testing.T) {
	c := catch(t, time.Millisecond)
	leave, over := c.listen()
	defer over()
	c.send(os.Interrupt)
	c.send(syscall.SIGTERM)
	<-leave.Done()
	c.ends(syscall.SIGTERM)
}

func TestWhoHasListenedDoesNotKeepFerry(t *testing.T) {
	c := catch(t, time.Hour)
	_, over := c.listen()
	c.send(os.Interrupt)
	over()
	c.send(os.Interrupt)
	c.ends(os.Interrupt)
}
