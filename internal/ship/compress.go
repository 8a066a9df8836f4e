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
	frame frame  // the one that is open
	since sample // when the level was chosen last
	raw   uint64 // bytes since then
	// fastest and unpacked are bytes per second before compression, as last measured at the fastest level and at none; 0: not yet.
	fastest, unpacked float64
	// looks are left until none is tried again.
	looks int
}

// frame is an open zstd frame. Close ends it and leaves the writer below open.
type frame interface {
	io.WriteCloser
	Flush() error
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
	if c.level == stored {
		c.frame = &storedFrame{w: c.link}
		return nil
	}
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
	next := c.next(now.at.Sub(c.since.at), now.blocked-c.since.blocked, now.bytes-c.since.bytes)
	c.since, c.raw = now, 0
	if next == c.level {
		return nil
	}
	c.level = next
	err := c.frame.Close()
	c.frame = nil
	return err
}

// tryAgain is after how many looks a link that was too slow for a stream that is not compressed may be another one.
const tryAgain = 32

// next is the level after the current one, at which the link has taken bytes in a time and blocked the sender for a part of it. Where
// even the fastest level is what takes the time, none is tried, and kept if more gets through.
func (c *compressor) next(took, blocked time.Duration, bytes uint64) zstd.EncoderLevel {
	speed := 0.0
	if took > 0 {
		speed = float64(c.raw) / took.Seconds()
	}
	if c.looks--; c.looks <= 0 {
		c.unpacked = 0
	}
	switch c.level {
	case stored:
		c.unpacked, c.looks = speed, tryAgain
		if speed > c.fastest {
			return stored
		}
		return zstd.SpeedFastest
	case zstd.SpeedFastest:
		c.fastest = speed
		wire := 0.0
		if took > 0 {
			wire = float64(bytes) / took.Seconds()
		}
		if wire > fast && blocked < took*2/5 && (c.unpacked == 0 || c.unpacked > speed) {
			return stored
		}
	}
	return levelFor(c.level, took, blocked, bytes)
}

// fast is more than what is worth another level than the fastest, in bytes per second.
const fast = 40e6

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
		case perSecond < fast:
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
