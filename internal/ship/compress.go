package ship

import (
	"io"
	"time"

	"ferry/internal/agent"

	"github.com/klauspost/compress/zstd"
)

// compressor compresses a stream as a sequence of zstd frames, each at a level that suits what the link takes: a slow link
// is worth more of this machine's CPU, a fast one would wait for it. Close ends the stream and not the writer below. The
// caller calls stop in the end, also after an error.
type compressor struct {
	link     *meter
	now      func() time.Time
	every    uint64 // bytes before compression between two looks at the link
	encoders map[zstd.EncoderLevel]*zstd.Encoder

	level zstd.EncoderLevel
	frame *zstd.Encoder // the one whose frame is open
	since sample        // when the level was chosen last
	raw   uint64        // bytes since then
}

// sample is a point in time of a link.
type sample struct {
	at      time.Time
	bytes   uint64
	blocked time.Duration
}

// meter is the writer below: it notes how much goes to the link and how long that blocks.
type meter struct {
	w       io.Writer
	now     func() time.Time
	bytes   uint64
	blocked time.Duration
}

func (m *meter) Write(p []byte) (int, error) {
	begin := m.now()
	n, err := m.w.Write(p)
	m.blocked += m.now().Sub(begin)
	m.bytes += uint64(n)
	return n, err
}

// chooseEvery is large enough that a look, which flushes the encoder, costs nothing.
const chooseEvery = 4 << 20

func newCompressor(w io.Writer, now func() time.Time) *compressor {
	return &compressor{
		link: &meter{w: w, now: now}, now: now, every: chooseEvery, encoders: map[zstd.EncoderLevel]*zstd.Encoder{},
		level: zstd.SpeedBetterCompression, since: sample{at: now()},
	}
}

// Write compresses p.
func (c *compressor) Write(p []byte) (int, error) {
	if c.raw >= c.every {
		if err := c.choose(); err != nil {
			return 0, err
		}
	}
	if c.frame == nil {
		if err := c.open(); err != nil {
			return 0, err
		}
	}
	c.raw += uint64(len(p))
	return c.frame.Write(p)
}

// Flush sends what the encoder still holds.
func (c *compressor) Flush() error {
	if c.frame == nil {
		return nil
	}
	return c.frame.Flush()
}

func (c *compressor) open() error {
	encoder := c.encoders[c.level]
	if encoder == nil {
		var err error
		encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(c.level), zstd.WithWindowSize(agent.ShipWindow))
		if err != nil {
			return err
		}
		c.encoders[c.level] = encoder
	}
	encoder.Reset(c.link)
	c.frame = encoder
	return nil
}

// choose looks at what the link took since the last time and changes the level where another one suits it better.
func (c *compressor) choose() error {
	// What the encoder still holds has not been on the link: a flush makes the figures whole, and waits for nobody else.
	if err := c.frame.Flush(); err != nil {
		return err
	}
	now := sample{c.now(), c.link.bytes, c.link.blocked}
	next := levelFor(c.level, now.at.Sub(c.since.at), now.blocked-c.since.blocked, now.bytes-c.since.bytes)
	c.since, c.raw = now, 0
	if next == c.level {
		return nil
	}
	c.level = next
	err := c.frame.Close()
	c.frame = nil
	return err
}

// levelFor is the level after the current one, for a link that took some bytes in a time, and blocked the sender for a part of it:
// one more where the sender mostly waits, one less where it hardly does. Above the speeds a level is no gain: on one core it would be
// slower than the link, on a small machine.
func levelFor(current zstd.EncoderLevel, took, blocked time.Duration, bytes uint64) zstd.EncoderLevel {
	most := zstd.SpeedFastest
	if took > 0 {
		switch perSecond := float64(bytes) / took.Seconds(); {
		case perSecond < 3e6:
			most = zstd.SpeedBestCompression
		case perSecond < 20e6:
			most = zstd.SpeedBetterCompression
		case perSecond < 40e6:
			most = zstd.SpeedDefault
		}
	}
	switch {
	case blocked > took*3/4:
		current++
	case blocked < took*2/5:
		current--
	}
	return max(min(current, most), zstd.SpeedFastest)
}

// Close ends the last frame.
func (c *compressor) Close() error {
	if c.frame == nil {
		return nil
	}
	return c.frame.Close()
}

// stop ends the encoders' own goroutines, which may still write: none does after it.
func (c *compressor) stop() {
	for _, encoder := range c.encoders {
		encoder.Reset(nil)
	}
}
