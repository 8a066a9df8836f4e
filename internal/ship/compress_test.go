package ship

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ferry/internal/agent"

	"github.com/klauspost/compress/zstd"
)

func TestLevelSuitsTheLink(t *testing.T) {
	const second = time.Second
	for name, c := range map[string]struct {
		current zstd.EncoderLevel
		look    look
		want    zstd.EncoderLevel
	}{
		"never blocks":               {zstd.SpeedBetterCompression, look{second, 0, 10e6, second, 1e5}, zstd.SpeedDefault},
		"never blocks, at the end":   {zstd.SpeedFastest, look{second, 0, 10e6, second, 1e5}, zstd.SpeedFastest},
		"blocks, but is fast":        {zstd.SpeedBetterCompression, look{second, second, 100e6, second, 1e6}, zstd.SpeedFastest},
		"100 Mbit/s":                 {zstd.SpeedBetterCompression, look{second, second, 12e6, second, 6e6}, zstd.SpeedBetterCompression},
		"300 Mbit/s":                 {zstd.SpeedBetterCompression, look{second, second, 37e6, second, 6e6}, zstd.SpeedDefault},
		"20 Mbit/s":                  {zstd.SpeedBetterCompression, look{second, second, 2.5e6, second, 6e6}, zstd.SpeedBestCompression},
		"20 Mbit/s, at the end":      {zstd.SpeedBestCompression, look{second, second, 2.5e6, second, 6e6}, zstd.SpeedBestCompression},
		"20 Mbit/s, behind buffers":  {zstd.SpeedBetterCompression, look{second / 50, 0, 5e4, second / 50, 2e6}, zstd.SpeedBestCompression},
		"a window far away":          {zstd.SpeedDefault, look{second / 10, 0, 1e6, second / 10, 3e6}, zstd.SpeedDefault},
		"slow, as the CPU is":        {zstd.SpeedBestCompression, look{second, second / 10, 1e6, second, 1e5}, zstd.SpeedBetterCompression},
		"both are as fast":           {zstd.SpeedDefault, look{second, second * 6 / 10, 1e6, second, 1e5}, zstd.SpeedDefault},
		"nothing comes any more":     {zstd.SpeedDefault, look{second, 0, 0, second, 3e6}, zstd.SpeedBetterCompression},
		"nothing was sent":           {zstd.SpeedBetterCompression, look{second, 0, 0, second, 0}, zstd.SpeedDefault},
		"1 Mbit/s, after a fast one": {zstd.SpeedFastest, look{8 * second, 8 * second, 1e6, 8 * second, 6e6}, zstd.SpeedDefault},
	} {
		t.Run(name, func(t *testing.T) {
			if got := levelFor(c.current, c.look); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// slowLink takes a second for every megabyte, on a clock of its own, until it has taken so many that it becomes fast.
type slowLink struct {
	mu        sync.Mutex // encoders write from their own goroutines
	taken     bytes.Buffer
	fastAfter int
	clock     time.Time
}

func (l *slowLink) now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clock
}

// heard has no way to go.
func (l *slowLink) heard() *news {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &news{l.clock, uint64(l.taken.Len())}
}

func (l *slowLink) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	perSecond := 1e6
	if l.taken.Len() > l.fastAfter {
		perSecond = 1e8
	}
	l.clock = l.clock.Add(time.Duration(float64(len(p)) / perSecond * float64(time.Second)))
	return l.taken.Write(p)
}

// bufferedLink takes everything at once and brings so many bytes in a second to the other end, of which it says how many came.
type bufferedLink struct {
	perSecond float64
	begun     time.Time

	mu    sync.Mutex
	sent  uint64
	clock time.Time
}

func (l *bufferedLink) now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clock
}

func (l *bufferedLink) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock = l.clock.Add(time.Duration(len(p)) * 20 * time.Nanosecond) // it is compressed at 50 MB/s
	l.sent += uint64(len(p))
	return len(p), nil
}

func (l *bufferedLink) heard() *news {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &news{l.clock, min(uint64(l.clock.Sub(l.begun).Seconds()*l.perSecond), l.sent)}
}

// TestASlowLinkIsNotMistakenForAFastOneByItsBuffers looks at the levels of what buffers take that nobody is blocked by.
func TestASlowLinkIsNotMistakenForAFastOneByItsBuffers(t *testing.T) {
	for name, c := range map[string]struct {
		perSecond float64
		want      zstd.EncoderLevel
	}{"20 Mbit/s": {2.5e6, zstd.SpeedBestCompression}, "10 Gbit/s": {1.25e9, zstd.SpeedFastest}} {
		t.Run(name, func(t *testing.T) {
			start := time.Unix(1, 0)
			link := &bufferedLink{perSecond: c.perSecond, clock: start, begun: start}
			comp := newCompressor(link, link.now, link.heard)
			defer comp.stop()
			data, random := make([]byte, 1<<20), rand.NewChaCha8([32]byte{})
			for range 8 {
				_, _ = random.Read(data)
				if _, err := comp.Write(data); err != nil {
					t.Fatal(err)
				}
			}
			if comp.level != c.want {
				t.Errorf("level %v, want %v", comp.level, c.want)
			}
		})
	}
}

// TestWithoutNewsTheLevelStays: what is written says nothing of what comes.
func TestWithoutNewsTheLevelStays(t *testing.T) {
	link := &slowLink{}
	for name, heard := range map[string]func() *news{"none": func() *news { return nil }, "old": func() *news { return &news{at: time.Unix(1, 0)} }} {
		comp := newCompressor(link, link.now, heard)
		before := comp.level
		for range 12 {
			if _, err := comp.Write(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		if comp.level != before {
			t.Errorf("%s: level %v, want %v", name, comp.level, before)
		}
		comp.stop()
	}
}

// TestStreamSurvivesChangesOfLevel: several frames are one stream for the decoder, within the agent's window.
func TestStreamSurvivesChangesOfLevel(t *testing.T) {
	data := make([]byte, 8<<20)
	random := rand.NewChaCha8([32]byte{})
	for i := 0; i < len(data); i += 4 {
		data[i] = byte(random.Uint64())
	}
	link := &slowLink{fastAfter: 300 << 10}
	c := newCompressor(link, link.now, link.heard)
	c.every = 256 << 10
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 64<<10)
		if _, err := c.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if len(c.encoders) < 3 {
		t.Errorf("only %d levels were used, for %d bytes on the link", len(c.encoders), link.taken.Len())
	}
	d, err := zstd.NewReader(&link.taken, zstd.WithDecoderMaxWindow(agent.ShipWindow))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := io.ReadAll(d)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes come back (%v), want %d", len(got), err, len(data))
	}
}

func TestEmptyStreamIsEmpty(t *testing.T) {
	var out bytes.Buffer
	c := newCompressor(&out, time.Now, func() *news { return nil })
	if err := c.Close(); err != nil || out.Len() != 0 {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
}
