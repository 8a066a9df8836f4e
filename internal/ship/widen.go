package ship

import (
	"io"
	"time"
)

// wide is a stream that can have more than one channel of the connection.
type wide interface {
	io.Writer
	// RoundTrip is how long the target takes to answer; 0: not known.
	RoundTrip() time.Duration
	// Channels is how many channels there are beside the first one; Widen begins to open another, or tells that none can be had.
	Channels() int
	Widen() bool
}

const (
	// sshWindow is how many bytes OpenSSH lets one channel have on their way.
	sshWindow = 2 << 20
	// nearWindow is the part of the window that a round trip carries where the window is the limit: it is opened in steps.
	nearWindow = 0.7
	// worthRoundTrip is too short for the window to be the limit before the machines are: it is 200 MB/s.
	worthRoundTrip = 10 * time.Millisecond
	// worthLeft is less than what is won by another channel.
	worthLeft = 8 * sshWindow
	// shortestLook is the least time between two looks at what the stream carries.
	shortestLook = 300 * time.Millisecond
	// faster is by how much the first channel has to make the stream faster for there to be more.
	faster = 1.15
)

// widener passes a stream on, and adds channels where the window of those that there are is the limit: never on a link that is limited by its
// bandwidth, that is near, or that waits for this machine.
type widener struct {
	to   wide
	left func() uint64 // bytes that are still to be sent, about
	now  func() time.Time

	since    sample // the last look; at zero: there was none
	total    sample
	full     int     // looks at which the windows were the limit, one after another
	channels int     // at the last look
	before   float64 // bytes per second before the first channel
	ended    bool    // there is nothing more to decide
}

func newWidener(to wide, left func() uint64, now func() time.Time) *widener {
	return &widener{to: to, left: left, now: now}
}

// Write passes p on.
func (w *widener) Write(p []byte) (int, error) {
	if w.ended {
		return w.to.Write(p)
	}
	begin := w.now()
	n, err := w.to.Write(p)
	w.total.at = w.now()
	w.total.blocked += w.total.at.Sub(begin)
	w.total.bytes += uint64(n)
	w.look()
	return n, err
}

// look decides, from time to time.
func (w *widener) look() {
	trip := w.to.RoundTrip()
	switch {
	case trip == 0:
		return
	case trip < worthRoundTrip:
		w.ended = true
		return
	case w.since.at.IsZero():
		// What went out before had the windows and the buffers on the way empty.
		w.since = w.total
		return
	}
	took := w.total.at.Sub(w.since.at)
	if took < max(3*trip, shortestLook) {
		return
	}
	rate := float64(w.total.bytes-w.since.bytes) / took.Seconds()
	busy := w.total.blocked-w.since.blocked > took/2
	w.since = w.total
	channels := w.to.Channels()
	switch {
	case channels != w.channels:
		// A channel that has just come, or gone, had its window empty.
		w.channels, w.full = channels, 0
	case !busy || rate*trip.Seconds() < nearWindow*sshWindow*float64(1+channels):
		w.full = 0
		w.ended = channels > 0 && rate < w.before*faster
	case channels > 0 && rate < w.before*faster:
		w.ended = true
	default:
		w.full++
		w.widen(rate, channels)
	}
}

// widen opens the first channel after two looks, and then, if that has made it faster, all others.
func (w *widener) widen(rate float64, channels int) {
	switch {
	case w.left() < worthLeft:
		w.ended = true
	case channels > 0:
		for w.to.Widen() {
		}
		w.ended = true
	case w.full >= 2 && w.before == 0:
		w.before = rate
		w.ended = !w.to.Widen()
	}
}
