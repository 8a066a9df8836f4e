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

// A lane is another session of the ssh connection that carries pieces of a ship's stream to a socket of the agent's. It is the
// login user's on the target, and can therefore put nothing into the stream: which piece comes over it, and with which hash, is
// said by a frame of the main channel, where the pieces also get their order.

// LaneSocket is where the agent waits for the lanes of a ship, as long as that goes on. Only one ship does.
const LaneSocket = "/run/ferry/lanes"

const (
	// MaxLanes is how many lanes one ship has at most.
	MaxLanes = 3
	// MaxLanePiece is the longest piece of a stream that goes over a lane, in bytes: the agent holds one at a time.
	MaxLanePiece = 64 << 10
	// smallestLanePiece is worth a frame that announces it, and its hash.
	smallestLanePiece = 8 << 10
	// lanePieces is how many pieces wait for a lane here, so that it goes on while the main channel blocks.
	lanePieces = 8
	// laneJoinTime is how long a lane may take to be there.
	laneJoinTime = 20 * time.Second
)

// LanePiece says which piece of a request's stream comes over a lane: the next Length bytes of it, which have that SHA-256.
type LanePiece struct {
	Lane   int
	Length int
	Sum    [sha256.Size]byte
}

// lanePieceLength is how long a LanePiece is in a frame: the lane, four bytes of length (big endian), the hash.
const lanePieceLength = 1 + 4 + sha256.Size

// announcement is the payload of a frame.
func (p LanePiece) announcement() []byte {
	payload := append(make([]byte, 0, lanePieceLength), byte(p.Lane))
	payload = binary.BigEndian.AppendUint32(payload, uint32(p.Length))
	return append(payload, p.Sum[:]...)
}

// parseLanePiece reads the payload of a frame.
func parseLanePiece(payload []byte) (LanePiece, error) {
	if len(payload) != lanePieceLength {
		return LanePiece{}, fmt.Errorf("%w %q of %d bytes instead of %d", errFrame, FrameLane, len(payload), lanePieceLength)
	}
	lane, length := int(payload[0]), binary.BigEndian.Uint32(payload[1:])
	if lane >= MaxLanes || length == 0 || length > MaxLanePiece {
		return LanePiece{}, fmt.Errorf("%w %q names lane %d and %d bytes", errFrame, FrameLane, lane, length)
	}
	return LanePiece{lane, int(length), [sha256.Size]byte(payload[5:])}, nil
}

// LaneError is a piece of a stream that did not come over its lane, or came as something else.
type LaneError struct{ Err error }

func (e *LaneError) Error() string { return "another channel of the connection: " + e.Err.Error() }
func (e *LaneError) Unwrap() error { return e.Err }

// LaneGreeting is how many bytes a lane begins with: the ship's token, then one byte, which lane it is. The agent answers with
// that byte.
const LaneGreeting = laneToken + 1

// laneToken is the length of rand.Text.
const laneToken = 26

// Stream is what a ship writes its stream to. It begins with the main channel alone; Widen adds lanes to it.
type Stream struct {
	main     io.Writer
	announce func(payload []byte) error
	join     func(ctx context.Context) (net.Conn, error) // nil: there are no lanes
	token    string
	trace    io.Writer

	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	roundTrip atomic.Int64
	mu        sync.Mutex
	asked     int
	failed    bool
	lanes     []*lane
	next      int // the lane that is looked at first
}

// RoundTrip is how long the target took to answer when nothing else was on its way; 0: it is not known yet, or lanes cannot be
// had.
func (s *Stream) RoundTrip() time.Duration { return time.Duration(s.roundTrip.Load()) }

// Lanes is how many lanes there are, beside the main channel.
func (s *Stream) Lanes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := 0
	for _, l := range s.lanes {
		if !l.dead.Load() {
			there++
		}
	}
	return there
}

// Widen begins to open another lane, and tells whether one may come. One that cannot be had ends the attempts; the stream goes on without.
func (s *Stream) Widen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.join == nil || s.failed || s.asked >= MaxLanes || s.ctx.Err() != nil {
		return false
	}
	n := s.asked
	s.asked++
	s.wait.Go(func() { s.open(n) })
	return true
}

func (s *Stream) open(n int) {
	ctx, cancel := context.WithTimeout(s.ctx, laneJoinTime)
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
	l := newLane(n, conn)
	s.lanes = append(s.lanes, l)
	s.wait.Go(l.carry)
	s.wait.Go(l.watch)
	// Also if that is now: what closes the lanes waits for this one.
	context.AfterFunc(s.ctx, l.end)
}

// greet says which lane it is and waits until the agent has it.
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

// Write sends a piece of the stream. It is for one goroutine at a time.
func (s *Stream) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		piece := p[:min(len(p), MaxLanePiece)]
		var err error
		if l := s.free(len(piece)); l != nil {
			err = l.send(piece, s.announce)
		} else {
			_, err = s.main.Write(piece)
		}
		if err != nil {
			return written, err
		}
		written += len(piece)
		p = p[len(piece):]
	}
	return written, nil
}

// free is a lane that has room for a piece now; nil: the main channel is for it. So nothing ever waits here for a lane, and the agent, which
// reads the pieces in their order, finds each of them on a lane that does not wait for anything but the agent.
func (s *Stream) free(length int) *lane {
	if length < smallestLanePiece {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.lanes {
		l := s.lanes[(s.next+i)%len(s.lanes)]
		if !l.dead.Load() && len(l.spare) > 0 {
			s.next = (s.next + i + 1) % len(s.lanes)
			return l
		}
	}
	return nil
}

// close ends the lanes, and what would become one.
func (s *Stream) close() {
	s.cancel()
	s.wait.Wait()
}

// lane is ferry's end of one.
type lane struct {
	n     int
	conn  net.Conn
	spare chan []byte // memory for pieces that may be sent now
	queue chan []byte
	gone  chan struct{}
	end   func()
	dead  atomic.Bool
}

func newLane(n int, conn net.Conn) *lane {
	l := &lane{n: n, conn: conn, spare: make(chan []byte, lanePieces), queue: make(chan []byte, lanePieces), gone: make(chan struct{})}
	for range lanePieces {
		l.spare <- make([]byte, 0, MaxLanePiece)
	}
	l.end = sync.OnceFunc(func() {
		l.dead.Store(true)
		_ = conn.Close()
		close(l.gone)
	})
	return l
}

// send announces a piece and leaves it to carry. There is room for it.
func (l *lane) send(piece []byte, announce func([]byte) error) error {
	buffer := append((<-l.spare)[:0], piece...)
	if err := announce(LanePiece{l.n, len(piece), sha256.Sum256(piece)}.announcement()); err != nil {
		return err
	}
	l.queue <- buffer
	return nil
}

// carry writes what is sent. A lane that fails is not used again; the agent misses what it has swallowed, and says so.
func (l *lane) carry() {
	for {
		select {
		case piece := <-l.queue:
			if _, err := l.conn.Write(piece); err != nil {
				l.end()
				return
			}
			l.spare <- piece
		case <-l.gone:
			return
		}
	}
}

// watch notices the end of a lane, which has nothing more to say.
func (l *lane) watch() {
	_, _ = bufio.NewReader(l.conn).ReadByte()
	l.end()
}

// newStream makes the stream of a ship that may have lanes.
func (s *Session) newStream(ctx context.Context) *Stream {
	st := &Stream{announce: func(payload []byte) error { return s.wire.Write(FrameLane, payload) }, token: rand.Text(), trace: s.watch.trace}
	st.ctx, st.cancel = context.WithCancel(ctx)
	if program, err := s.installed(); err == nil && !s.address.Local() {
		st.join = func(ctx context.Context) (net.Conn, error) {
			return dial(ctx, s.channel, program, "lane", LaneSocket)
		}
	}
	return st
}
