package agent

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/run"
)

// A channel is another session of the ssh connection that carries chunks of a ship's stream to a socket of the agent's. It is the
// login user's on the target, and can therefore put nothing into the stream: which chunk comes over it, and with which hash, is
// said by a frame of the main channel, where the chunks also get their order.

// ChannelSocket is where the agent waits for the channels of a ship, as long as that goes on. Only one ship does.
const ChannelSocket = "/run/ferry/lanes"

const (
	// MaxChannels is how many channels one ship has at most.
	MaxChannels = 3
	// MaxChunk is the longest chunk of a stream that goes over a channel, in bytes: the agent holds one at a time.
	MaxChunk = 64 << 10
	// smallestChunk is worth a frame that announces it, and its hash.
	smallestChunk = 8 << 10
	// chunksAhead is how many chunks wait for a channel here, so that it goes on while the main channel blocks.
	chunksAhead = 8
	// channelJoinTime is how long a channel may take to be there.
	channelJoinTime = 20 * time.Second
)

// ChannelChunk says which chunk of a request's stream comes over a channel: the next Length bytes of it, which have that SHA-256.
type ChannelChunk struct {
	Channel int
	Length  int
	Sum     [sha256.Size]byte
}

// channelChunkLength is how long a ChannelChunk is in a frame: the channel, four bytes of length (big endian), the hash.
const channelChunkLength = 1 + 4 + sha256.Size

// announcement is the payload of a frame.
func (p ChannelChunk) announcement() []byte {
	payload := append(make([]byte, 0, channelChunkLength), byte(p.Channel))
	payload = binary.BigEndian.AppendUint32(payload, uint32(p.Length))
	return append(payload, p.Sum[:]...)
}

// parseChannelChunk reads the payload of a frame.
func parseChannelChunk(payload []byte) (ChannelChunk, error) {
	if len(payload) != channelChunkLength {
		return ChannelChunk{}, fmt.Errorf("%w %q of %d bytes instead of %d", errFrame, FrameChannel, len(payload), channelChunkLength)
	}
	channel, length := int(payload[0]), binary.BigEndian.Uint32(payload[1:])
	if channel >= MaxChannels || length == 0 || length > MaxChunk {
		return ChannelChunk{}, fmt.Errorf("%w %q names lane %d and %d bytes", errFrame, FrameChannel, channel, length)
	}
	return ChannelChunk{channel, int(length), [sha256.Size]byte(payload[5:])}, nil
}

// ChannelError is a chunk of a stream that did not come over its channel, or came as something else.
type ChannelError struct{ Err error }

func (e *ChannelError) Error() string { return "another channel of the connection: " + e.Err.Error() }
func (e *ChannelError) Unwrap() error { return e.Err }

// ChannelGreeting is how many bytes a channel begins with: the ship's token, then one byte, which channel it is. The agent answers with
// that byte.
const ChannelGreeting = tokenLength + 1

// tokenLength is the length of rand.Text.
const tokenLength = 26

// Stream is what a ship writes its stream to. It begins with the main channel alone; Widen adds channels to it.
type Stream struct {
	main     io.Writer
	announce func(payload []byte) error
	join     func(ctx context.Context) (net.Conn, error) // nil: there are no channels
	token    string
	trace    io.Writer

	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	roundTrip atomic.Int64
	mu        sync.Mutex
	asked     int
	failed    bool
	channels  []*channel
	next      int // the channel that is looked at first
}

// RoundTrip is how long the target took to answer when nothing else was on its way; 0: it is not known yet, or channels cannot be
// had.
func (s *Stream) RoundTrip() time.Duration { return time.Duration(s.roundTrip.Load()) }

// Channels is how many channels there are, beside the main channel.
func (s *Stream) Channels() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := 0
	for _, l := range s.channels {
		if !l.dead.Load() {
			there++
		}
	}
	return there
}

// Widen begins to open another channel, and tells whether one may come. One that cannot be had ends the attempts; the stream goes on without.
func (s *Stream) Widen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.join == nil || s.failed || s.asked >= MaxChannels || s.ctx.Err() != nil {
		return false
	}
	n := s.asked
	s.asked++
	s.wait.Go(func() { s.open(n) })
	return true
}

func (s *Stream) open(n int) {
	ctx, cancel := context.WithTimeout(s.ctx, channelJoinTime)
	defer cancel()
	conn, err := s.join(ctx)
	if err == nil {
		if err = greet(ctx, conn, s.token, n); err != nil {
			_ = conn.Close()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed = true
		if s.trace != nil && s.ctx.Err() == nil {
			_, _ = fmt.Fprintf(s.trace, "no further channel for the ship: %s\n", run.Clean(err.Error()))
		}
		return
	}
	l := newChannel(n, conn)
	s.channels = append(s.channels, l)
	s.wait.Go(l.carry)
	s.wait.Go(l.watch)
	// Also if that is now: what closes the channels waits for this one.
	context.AfterFunc(s.ctx, l.end)
}

// greet says which channel it is and waits until the agent has it.
func greet(ctx context.Context, conn net.Conn, token string, n int) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := conn.Write(append([]byte(token), byte(n))); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("the agent does not take it: %w", err)
	}
	if int(answer[0]) != n {
		return errors.New("the agent takes it for another one")
	}
	return nil
}

// Write sends a chunk of the stream. It is for one goroutine at a time.
func (s *Stream) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		chunk := p[:min(len(p), MaxChunk)]
		var err error
		if l := s.free(len(chunk)); l != nil {
			err = l.send(chunk, s.announce)
		} else {
			_, err = s.main.Write(chunk)
		}
		if err != nil {
			return written, err
		}
		written += len(chunk)
		p = p[len(chunk):]
	}
	return written, nil
}

// free is a channel that has room for a chunk now; nil: the main channel is for it. So nothing ever waits here for a channel, and the agent, which
// reads the chunks in their order, finds each of them on a channel that does not wait for anything but the agent.
func (s *Stream) free(length int) *channel {
	if length < smallestChunk {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.channels {
		l := s.channels[(s.next+i)%len(s.channels)]
		if !l.dead.Load() && len(l.spare) > 0 {
			s.next = (s.next + i + 1) % len(s.channels)
			return l
		}
	}
	return nil
}

// close ends the channels, and what would become one.
func (s *Stream) close() {
	s.cancel()
	s.wait.Wait()
}

// channel is ferry's end of one.
type channel struct {
	n     int
	conn  net.Conn
	spare chan []byte // memory for chunks that may be sent now
	queue chan []byte
	gone  chan struct{}
	end   func()
	dead  atomic.Bool
}

func newChannel(n int, conn net.Conn) *channel {
	l := &channel{n: n, conn: conn, spare: make(chan []byte, chunksAhead), queue: make(chan []byte, chunksAhead), gone: make(chan struct{})}
	for range chunksAhead {
		l.spare <- make([]byte, 0, MaxChunk)
	}
	l.end = sync.OnceFunc(func() {
		l.dead.Store(true)
		_ = conn.Close()
		close(l.gone)
	})
	return l
}

// send announces a chunk and leaves it to carry. There is room for it.
func (l *channel) send(chunk []byte, announce func([]byte) error) error {
	buffer := append((<-l.spare)[:0], chunk...)
	if err := announce(ChannelChunk{l.n, len(chunk), sha256.Sum256(chunk)}.announcement()); err != nil {
		return err
	}
	l.queue <- buffer
	return nil
}

// carry writes what is sent. A channel that fails is not used again; the agent misses what it has swallowed, and says so.
func (l *channel) carry() {
	for {
		select {
		case chunk := <-l.queue:
			if _, err := l.conn.Write(chunk); err != nil {
				l.end()
				return
			}
			l.spare <- chunk
		case <-l.gone:
			return
		}
	}
}

// watch notices the end of a channel, which has nothing more to say.
func (l *channel) watch() {
	_, _ = bufio.NewReader(l.conn).ReadByte()
	l.end()
}

// newStream makes the stream of a ship that may have channels.
func (s *Session) newStream(ctx context.Context) *Stream {
	st := &Stream{announce: func(payload []byte) error { return s.wire.Write(FrameChannel, payload) }, token: rand.Text(), trace: s.watch.trace}
	st.ctx, st.cancel = context.WithCancel(ctx)
	if program, err := s.installed(); err == nil && !s.address.Local() {
		st.join = func(ctx context.Context) (net.Conn, error) {
			return dial(ctx, s.channel, program, "lane", ChannelSocket)
		}
	}
	return st
}
