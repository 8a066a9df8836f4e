package receive

import (
	"io"
	"sync"
	"time"

	"ferry/internal/agent"
)

// reports tell ferry how far a ship is: how many paths are registered, and how much of the stream has come. It is safe for use by
// several goroutines.
type reports struct {
	wire *agent.Wire

	mu         sync.Mutex
	state      agent.Progress
	reported   agent.Progress
	reportedAt time.Time // reported was reported
	begun      time.Time // the first bytes came
}

const (
	// pathsEvery is how often ferry is told of paths at most: each time wakes five processes, which for paths of a few hundred bytes is
	// more work than the path.
	pathsEvery = 50 * time.Millisecond
	// bytesEvery is how often it is told of bytes, and soonEvery in the first second: by what comes it chooses how hard it compresses.
	bytesEvery = 100 * time.Millisecond
	soonEvery  = 25 * time.Millisecond
	// So many bytes are told of earlier, but for leastEvery.
	manyBytes  = 512 << 10
	leastEvery = 10 * time.Millisecond
)

// registered counts a path.
func (r *reports) registered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Registered++
	if time.Since(r.reportedAt) >= pathsEvery {
		r.report()
	}
}

// received counts bytes of the stream.
func (r *reports) received(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.begun.IsZero() {
		r.begun = now
	}
	r.state.Received += uint64(n)
	wait := bytesEvery
	if now.Sub(r.begun) < time.Second {
		wait = soonEvery
	}
	if r.state.Received-r.reported.Received >= manyBytes {
		wait = leastEvery
	}
	if now.Sub(r.reportedAt) >= wait {
		r.report()
	}
}

// end reports what has not been reported.
func (r *reports) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != r.reported {
		r.report()
	}
}

func (r *reports) report() {
	r.reported, r.reportedAt = r.state, time.Now()
	// A lost connection is noticed by the reader of requests.
	_ = r.wire.WriteJSON(agent.FrameProgress, r.state)
}

// reader is r's stream: what is read from it is counted.
func (r *reports) reader(stream io.Reader) io.Reader { return &countedReader{stream, r} }

type countedReader struct {
	stream  io.Reader
	reports *reports
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.stream.Read(p)
	if n > 0 {
		c.reports.received(n)
	}
	return n, err
}
