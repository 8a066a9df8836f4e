package ship

import (
	"io"
	"math"
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
	heard    func() *news // the last that the target has said; nil: nothing yet
	every    uint64       // bytes before compression between two looks at the link
	encoders map[zstd.EncoderLevel]*zstd.Encoder

	level zstd.EncoderLevel
	frame *zstd.Encoder // the one whose frame is open
	since sample        // when the level was chosen last
	known *news         // and what had been heard by then
	raw   uint64        // bytes since the last look
}

// sample is a point in time of a link.
type sample struct {
	at      time.Time
	bytes   uint64
	blocked time.Duration
}

// news is how much of the stream has come to the target, as it was known here at a time.
type news struct {
	at    time.Time
	bytes uint64
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

// The looks at the link, in bytes before compression: what comes before the first is little of a large stream, and from
// lookEvery on a look, which flushes the encoder, costs nothing.
const (
	firstLook = 1 << 20
	lookEvery = 4 << 20
)

func newCompressor(w io.Writer, now func() time.Time, heard func() *news) *compressor {
	return &compressor{
		link: &meter{w: w, now: now}, now: now, heard: heard, every: firstLook, encoders: map[zstd.EncoderLevel]*zstd.Encoder{},
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

// choose looks at what came to the target since the last time and changes the level where another one suits it better.
func (c *compressor) choose() error {
	c.raw = 0
	heard := c.heard()
	if heard == nil || c.known != nil && heard.at.Sub(c.known.at) < newsApart {
		// What was written may all be in buffers on the way.
		return nil
	}
	// What the encoder still holds has not been on the link: a flush makes the figures whole, and waits for nobody else.
	if err := c.frame.Flush(); err != nil {
		return err
	}
	now := sample{c.now(), c.link.bytes, c.link.blocked}
	before := c.known
	c.known = heard
	if before == nil {
		// The first was on its way for as long as the way is: the measure begins there.
		c.since = now
		return nil
	}
	next := levelFor(c.level, look{
		took: now.at.Sub(c.since.at), blocked: now.blocked - c.since.blocked,
		came: heard.bytes - min(before.bytes, heard.bytes), in: heard.at.Sub(before.at), behind: now.bytes - min(heard.bytes, now.bytes),
	})
	c.since, c.every = now, min(2*c.every, lookEvery)
	if next == c.level {
		return nil
	}
	c.level = next
	err := c.frame.Close()
	c.frame = nil
	return err
}

// look is what was seen of a link: for how long the sender was blocked, and how many bytes came to the target in which time, and are still on
// their way.
type look struct {
	took, blocked time.Duration
	came          uint64
	in            time.Duration
	behind        uint64
}

// newsApart is how far apart two pieces of news have to be for what came between them to say something.
const newsApart = 10 * time.Millisecond

// What is on its way for longer than longWay waits for the link, in buffers; what takes less than shortWay does not.
const (
	longWay  = 500 * time.Millisecond
	shortWay = 250 * time.Millisecond
)

// way is how long what is on its way will be, if the link goes on like this; where nothing came, it is long.
func (l look) way() time.Duration {
	if l.came == 0 && l.behind > 0 {
		return math.MaxInt64
	}
	seconds := float64(l.behind) / float64(max(l.came, 1)) * l.in.Seconds()
	return time.Duration(min(seconds, 1e6) * float64(time.Second))
}

// levelFor is the level after the current one: one more where the sender, or what it has sent, mostly waits for the link, one less where
// hardly. Above the speeds a level is no gain: on one core it would be slower than the link, on a small machine.
func levelFor(current zstd.EncoderLevel, l look) zstd.EncoderLevel {
	perSecond := float64(l.came) / l.in.Seconds()
	way := l.way()
	most := zstd.SpeedFastest
	switch {
	case perSecond < 3e6:
		most = zstd.SpeedBestCompression
	case perSecond < 20e6:
		most = zstd.SpeedBetterCompression
	case perSecond < 40e6:
		most = zstd.SpeedDefault
	}
	switch {
	case l.blocked > l.took*3/4 || way > longWay:
		current++
	case l.blocked < l.took*2/5 && way < shortWay:
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
