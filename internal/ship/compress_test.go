package ship

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"ferry/internal/agent"

	"github.com/klauspost/compress/zstd"
)

func TestLevelSuitsTheLink(t *testing.T) {
	const second = time.Second
	for name, c := range map[string]struct {
		current       zstd.EncoderLevel
		took, blocked time.Duration
		bytes         uint64
		want          zstd.EncoderLevel
	}{
		"never blocks":               {zstd.SpeedBetterCompression, second, 0, 10e6, zstd.SpeedDefault},
		"never blocks, at the end":   {zstd.SpeedFastest, second, 0, 10e6, zstd.SpeedFastest},
		"blocks, but is fast":        {zstd.SpeedBetterCompression, second, second, 100e6, zstd.SpeedFastest},
		"100 Mbit/s":                 {zstd.SpeedBetterCompression, second, second, 12e6, zstd.SpeedBetterCompression},
		"300 Mbit/s":                 {zstd.SpeedBetterCompression, second, second, 37e6, zstd.SpeedDefault},
		"20 Mbit/s":                  {zstd.SpeedBetterCompression, second, second, 2.5e6, zstd.SpeedBestCompression},
		"20 Mbit/s, at the end":      {zstd.SpeedBestCompression, second, second, 2.5e6, zstd.SpeedBestCompression},
		"slow, as the CPU is":        {zstd.SpeedBestCompression, second, second / 10, 1e6, zstd.SpeedBetterCompression},
		"both are as fast":           {zstd.SpeedDefault, second, second * 6 / 10, 1e6, zstd.SpeedDefault},
		"no time has gone by":        {zstd.SpeedBetterCompression, 0, 0, 0, zstd.SpeedFastest},
		"1 Mbit/s, after a fast one": {zstd.SpeedFastest, 8 * second, 8 * second, 1e6, zstd.SpeedDefault},
	} {
		t.Run(name, func(t *testing.T) {
			if got := levelFor(c.current, c.took, c.blocked, c.bytes); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// slowLink takes time for every byte, on a clock of its own, until it has taken so many that it becomes fast.
type slowLink struct {
	bytes.Buffer
	fastAfter int
	clock     time.Time
}

func (l *slowLink) now() time.Time { return l.clock }

func (l *slowLink) Write(p []byte) (int, error) {
	perSecond := 1e6
	if l.Len() > l.fastAfter {
		perSecond = 1e9
	}
	l.clock = l.clock.Add(time.Duration(float64(len(p)) / perSecond * float64(time.Second)))
	return l.Buffer.Write(p)
}

// TestStreamSurvivesChangesOfLevel: several frames are one stream for the decoder, within the agent's window.
func TestStreamSurvivesChangesOfLevel(t *testing.T) {
	data := make([]byte, 2<<20)
	random := rand.NewChaCha8([32]byte{})
	for i := 0; i < len(data); i += 4 {
		data[i] = byte(random.Uint64())
	}
	link := &slowLink{fastAfter: 300 << 10}
	c := newCompressor(link, link.now)
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
		t.Errorf("only %d levels were used, for %d bytes on the link", len(c.encoders), link.Len())
	}
	d, err := zstd.NewReader(link, zstd.WithDecoderMaxWindow(agent.ShipWindow))
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
	c := newCompressor(&out, time.Now)
	if err := c.Close(); err != nil || out.Len() != 0 {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
}
