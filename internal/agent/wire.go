package agent

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Protocol is the version of the protocol that this package speaks. Both sides must have the same; since the agent is
// chosen by its content hash, they differ only when something other than the agent answers.
const Protocol = 1

// FrameType says what a frame holds.
type FrameType byte

// The frames. "From ferry" and "from the agent" are the only directions they go in.
const (
	FrameHello    FrameType = 'h' // from the agent, first of all: Hello as JSON
	FrameRequest  FrameType = 'q' // from ferry: Request as JSON; the agent works on one at a time
	FrameData     FrameType = 'd' // from ferry: a chunk of the request's stream; an empty one ends it
	FrameResponse FrameType = 'r' // from the agent, one per request: Response as JSON
	FrameProgress FrameType = 'p' // from the agent, while it works on a request: Progress as JSON
	FrameLog      FrameType = 'l' // from the agent: bytes that the activation wrote
	FrameChannel  FrameType = 'a' // from ferry: a chunk of the request's stream that comes over a channel: ChannelChunk
	FrameAlive    FrameType = 'k' // empty: from ferry at any time, from the agent while ferry waits for it: it is still there
)

// MaxFrame is the longest payload of a frame, in bytes. A longer one ends the connection.
const MaxFrame = 1 << 20

// Wire reads and writes frames: one byte of type, four bytes of payload length (big endian), the payload. One goroutine may
// read while others write.
type Wire struct {
	r *bufio.Reader

	mu    sync.Mutex
	w     io.Writer
	frame []byte // the last frame written, for its memory
}

// NewWire makes a Wire of two streams. It closes neither.
func NewWire(r io.Reader, w io.Writer) *Wire {
	buffered, ok := r.(*bufio.Reader)
	if !ok {
		buffered = bufio.NewReaderSize(r, 64<<10)
	}
	return &Wire{r: buffered, w: w}
}

// Read returns the next frame. The payload is the caller's. io.EOF says that the far side ended between two frames.
func (c *Wire) Read() (FrameType, []byte, error) { return c.readInto(nil) }

// readInto is Read with a payload that uses buffer where it is large enough. Frames that only say that somebody is there
// are not for the caller.
func (c *Wire) readInto(buffer []byte) (FrameType, []byte, error) {
	for {
		t, payload, err := c.readFrame(buffer)
		if err != nil || t != FrameAlive {
			return t, payload, err
		}
	}
}

func (c *Wire) readFrame(buffer []byte) (FrameType, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:1]); err != nil {
		return 0, nil, err
	}
	if _, err := io.ReadFull(c.r, head[1:]); err != nil {
		return 0, nil, noEOF(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("frame %q of %d bytes: the limit is %d", head[0], n, MaxFrame)
	}
	payload := buffer[:min(int(n), cap(buffer))]
	if len(payload) < int(n) {
		payload = make([]byte, n)
	}
	if _, err := io.ReadFull(c.r, payload); err != nil {
		return 0, nil, noEOF(err)
	}
	return FrameType(head[0]), payload, nil
}

// Write sends one frame.
func (c *Wire) Write(t FrameType, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("frame %q of %d bytes: the limit is %d", t, len(payload), MaxFrame)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frame = append(c.frame[:0], byte(t))
	c.frame = binary.BigEndian.AppendUint32(c.frame, uint32(len(payload)))
	c.frame = append(c.frame, payload...)
	_, err := c.w.Write(c.frame)
	return err
}

// WriteJSON sends v as the payload of one frame.
func (c *Wire) WriteJSON(t FrameType, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Write(t, payload)
}

// DataWriter is the stream that belongs to a request: every Write is one or more data frames, Close ends it.
func (c *Wire) DataWriter() io.WriteCloser { return dataWriter{c} }

type dataWriter struct{ c *Wire }

// dataFrame is how much a data frame carries: small enough that a slow link shows progress, large enough that the five
// bytes of its head do not matter.
const dataFrame = 64 << 10

func (d dataWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), dataFrame)
		if err := d.c.Write(FrameData, p[:n]); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

func (d dataWriter) Close() error { return d.c.Write(FrameData, nil) }

// DataReader is the far end of a DataWriter. It takes frames from the wire until the stream's end, and any other frame than
// data is an error.
func (c *Wire) DataReader() *DataReader { return &DataReader{c: c} }

// DataReader reads the payloads of data frames as one stream.
type DataReader struct {
	c      *Wire
	buffer []byte // the last payload, for its memory: a long stream makes no garbage
	rest   []byte
	err    error

	// Channel, when set, fills p with the next bytes of a channel; without it no chunk may be announced.
	Channel  func(channel int, p []byte) error
	chunk    []byte // the last one of a channel
	draining bool   // what is announced is not wanted any more
}

// EmptyData is a stream that has ended already, for a request without one.
func EmptyData() *DataReader { return &DataReader{err: io.EOF} }

// errFrame begins the error of a frame that does not belong where it stands.
var errFrame = errors.New("frame")

// Read fills p with bytes of the stream.
func (d *DataReader) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		t, payload, err := d.c.readInto(d.buffer)
		d.buffer = payload
		switch {
		case err != nil:
			d.err = noEOF(err)
		case t == FrameChannel && d.Channel != nil:
			d.takeChunk(payload)
		case t != FrameData:
			d.err = fmt.Errorf("%w %q in the middle of a stream", errFrame, t)
		case len(payload) == 0:
			d.err = io.EOF
		default:
			d.rest = payload
		}
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// takeChunk makes the chunk that a frame announces the rest.
func (d *DataReader) takeChunk(payload []byte) {
	if d.draining {
		return
	}
	announced, err := parseChannelChunk(payload)
	if err != nil {
		d.err = err
		return
	}
	if d.chunk == nil {
		d.chunk = make([]byte, MaxChunk)
	}
	chunk := d.chunk[:announced.Length]
	if err := d.Channel(announced.Channel, chunk); err != nil {
		d.err = &ChannelError{err}
		return
	}
	if sha256.Sum256(chunk) != announced.Sum {
		d.err = &ChannelError{errors.New("what came is not what was sent")}
		return
	}
	d.rest = chunk
}

// Lost tells whether the stream has ended with the connection or with a channel, and not as ferry ends one.
func (d *DataReader) Lost() bool {
	return d.err != nil && d.err != io.EOF && !errors.Is(d.err, errFrame)
}

// Drain reads the stream to its end, so that the next frame is read as what it is.
func (d *DataReader) Drain() error {
	var channel *ChannelError
	if errors.As(d.err, &channel) {
		d.err = nil
	}
	d.draining = true
	_, err := io.Copy(io.Discard, d)
	return err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// LogWriter sends what is written to it as log frames, and says to Gone, if that is set, when nobody takes them any more.
type LogWriter struct {
	Wire *Wire
	Gone func()
}

func (w LogWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		chunk := p[done:min(len(p), done+MaxFrame)]
		if err := w.Wire.Write(FrameLog, chunk); err != nil {
			if w.Gone != nil {
				w.Gone()
			}
			return done, err
		}
		done += len(chunk)
	}
	return len(p), nil
}
