package agent

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"ferry/internal/target"
)

// BeatPause is how often an agent that is at work tells ferry so, and SilenceLimit how long ferry waits for anything at all from
// one that it has asked something.
const (
	BeatPause    = 10 * time.Second
	SilenceLimit = 60 * time.Second
)

// answerLimit is how long an agent may take for what only looks, although it says that it is there.
const answerLimit = 5 * time.Minute

// limitOf is how long the answer to a request may take; 0: as long as it takes, as what it depends on has limits of its own.
func (s *Session) limitOf(method Method) time.Duration {
	switch method {
	case MethodGenerations, MethodLook, MethodHistory, MethodClosure, MethodDerivations, MethodUnits, MethodInspect:
		return s.longest
	}
	return 0
}

// SilentError is an agent that has been asked something and does not answer. Its connection is there, and is ended.
type SilentError struct {
	Address target.Address
	Waited  time.Duration
	// Busy says that it has gone on saying that it is at work.
	Busy bool
}

func (e *SilentError) Error() string {
	if e.Busy {
		return fmt.Sprintf("the agent on %s is at work for %s, and has no answer", e.Address, e.Waited)
	}
	return fmt.Sprintf("the agent on %s does not answer: nothing has come from it for %s", e.Address, e.Waited)
}

// Hints says what the user can do about it.
func (e *SilentError) Hints() []string {
	return []string{"is the machine overloaded, or its disk stuck? the next ferry ends an agent that does not run"}
}

// traffic is what has come from a target. Before the agent speaks, what has gone there counts as well.
type traffic struct {
	bytes atomic.Int64
	// waiting says that ferry waits for the target, and not for whoever takes what has come, such as a terminal that stands still.
	waiting atomic.Bool
}

// heardReader counts what comes from the target.
type heardReader struct {
	io.Reader
	traffic *traffic
}

func (r heardReader) Read(p []byte) (int, error) {
	r.traffic.waiting.Store(true)
	defer r.traffic.waiting.Store(false)
	n, err := r.Reader.Read(p)
	r.traffic.bytes.Add(int64(n))
	return n, err
}

// silenceTicks is how many parts of the limit are counted: a ferry that was stopped itself, with what has come in the meantime
// unread, must not count that time.
const silenceTicks = 12

// listen ends the connection when nothing comes for the limit of a silence, or no end within most; 0: there is none. The function
// it gives ends the listening, and gives the reason, if it has ended the connection.
func (s *Session) listen(most time.Duration) (end func() error) {
	over, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.awaitSilence(over, most) }()
	return func() error {
		close(over)
		return <-ended
	}
}

func (s *Session) awaitSilence(over <-chan struct{}, most time.Duration) error {
	limit := s.silence
	ticker := time.NewTicker(limit / silenceTicks)
	defer ticker.Stop()
	quiet, all, last := 0, time.Duration(0), s.traffic.bytes.Load()
	for {
		select {
		case <-over:
			return nil
		case <-ticker.C:
		}
		all += limit / silenceTicks
		now := s.traffic.bytes.Load()
		if quiet++; now != last || !s.traffic.waiting.Load() {
			quiet, last = 0, now
		}
		var err error
		switch {
		case quiet > silenceTicks:
			err = &SilentError{Address: s.address, Waited: limit}
		case most > 0 && all > most:
			err = &SilentError{Address: s.address, Waited: most, Busy: true}
		default:
			continue
		}
		s.channel.Close()
		<-over
		return err
	}
}
