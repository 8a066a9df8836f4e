package server

import (
	"io"
	"sync/atomic"
	"time"
)

// attended is the agent's input. A ferry that is there writes something to it every agent.AlivePause; one whose machine was
// switched off does not, and sshd may notice that only after hours.
type attended struct {
	in io.Reader
	// since is when the read that goes on began, in nanoseconds of uptime; 0: none does. While the agent is at work it does
	// not read, and nobody is waited for.
	since atomic.Int64
	begin time.Time
}

// attend makes gone be called once when a single read of in takes longer than limit.
func attend(in io.Reader, limit time.Duration, gone func()) *attended {
	a := &attended{in: in, begin: time.Now()}
	var check func()
	check = func() {
		since := a.since.Load()
		if since > 0 && time.Since(a.begin)-time.Duration(since) > limit {
			gone()
			return
		}
		time.AfterFunc(limit/10, check)
	}
	time.AfterFunc(limit/10, check)
	return a
}

// Read reads from the input.
func (a *attended) Read(p []byte) (int, error) {
	a.since.Store(max(1, int64(time.Since(a.begin))))
	defer a.since.Store(0)
	return a.in.Read(p)
}
