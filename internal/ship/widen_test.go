package ship

import (
	"testing"
	"time"

	"ferry/internal/agent"
)

// link is a connection in a time of its own: its channels carry a window in a round trip each, and all together not more than its bandwidth.
type link struct {
	trip      time.Duration
	bandwidth float64 // bytes per second; 0: no limit
	sender    float64 // bytes per second that this machine makes
	refused   bool    // no channel comes
	most      int     // channels that do something

	clock time.Time
	asked int
	ready time.Time // when the last channel asked for is there
}

func (l *link) RoundTrip() time.Duration { return l.trip }

func (l *link) Channels() int {
	if l.refused || l.clock.Before(l.ready) {
		return 0
	}
	return l.asked
}

func (l *link) Widen() bool {
	if l.asked == agent.MaxChannels || l.refused && l.asked > 0 {
		return false
	}
	l.asked++
	l.ready = l.clock.Add(3 * l.trip)
	return true
}

// Write takes as long as the channels do.
func (l *link) Write(p []byte) (int, error) {
	rate := sshWindow * float64(1+min(l.Channels(), l.most)) / max(l.trip, time.Millisecond).Seconds()
	if l.bandwidth > 0 {
		rate = min(rate, l.bandwidth)
	}
	l.clock = l.clock.Add(seconds(float64(len(p)) / rate))
	return len(p), nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// TestChannelsAreOpenedWhereTheWindowIsTheLimit locks when there are channels, and how many.
func TestChannelsAreOpenedWhereTheWindowIsTheLimit(t *testing.T) {
	const size = 200 << 20
	for name, c := range map[string]struct {
		link link
		size int
		want int
	}{
		"a long way":                 {link{trip: 100 * time.Millisecond, most: 3}, size, 3},
		"a short one":                {link{trip: 5 * time.Millisecond, most: 3}, size, 0},
		"no way at all":              {link{}, size, 0},
		"the bandwidth is the limit": {link{trip: 100 * time.Millisecond, bandwidth: 12e6, most: 3}, size, 0},
		"the bandwidth is not far":   {link{trip: 100 * time.Millisecond, bandwidth: 20e6, most: 3}, size, 1},
		"one channel does not help":  {link{trip: 100 * time.Millisecond, most: 0}, size, 1},
		"this machine is the limit":  {link{trip: 100 * time.Millisecond, sender: 15e6, most: 3}, size, 0},
		"another session is refused": {link{trip: 100 * time.Millisecond, refused: true}, size, 1},
		"not much is left":           {link{trip: 100 * time.Millisecond, most: 3}, 24 << 20, 0},
		"a very long way":            {link{trip: 400 * time.Millisecond, most: 3}, size, 3},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.link
			l.clock = time.Unix(0, 0)
			sent := 0
			w := newWidener(&l, func() uint64 { return uint64(c.size - sent) }, func() time.Time { return l.clock })
			for block := make([]byte, 128<<10); sent < c.size; sent += len(block) {
				if l.sender > 0 {
					l.clock = l.clock.Add(seconds(float64(len(block)) / l.sender))
				}
				if n, err := w.Write(block); n != len(block) || err != nil {
					t.Fatal(n, err)
				}
			}
			if l.asked != c.want {
				t.Errorf("%d channels were asked for, want %d", l.asked, c.want)
			}
		})
	}
}
