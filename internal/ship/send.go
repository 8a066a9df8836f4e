package ship

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"ferry/internal/agent"
	"ferry/internal/delta"
	"ferry/internal/nix"
)

// Progress is how far a ship is.
type Progress struct {
	Paths, TotalPaths int    // registered on the target, and of how many
	Bytes, TotalBytes uint64 // of NARs, read here
	Wire              uint64 // bytes sent
}

// Result is a finished ship.
type Result struct {
	Paths       int           // registered on the target
	Differences int           // of them, how many were sent as differences
	Bytes       uint64        // of NARs, read here
	Wire        uint64        // bytes sent
	Duration    time.Duration // from the first byte to the last path's registration
	Peak        int64         // the agent's largest resident size in bytes
}

// Sent is a path that has been sent, for who wants to know how.
type Sent struct {
	Path  nix.StorePath
	Bytes uint64          // of its NAR
	Bases []nix.StorePath // none: it was sent as a whole
	Added uint64          // bytes of the NAR that were not found in the bases
}

// Send sends what the plan says. progress is called several times a second from another goroutine, sent, if set, for each path from a
// third one; both have ended when Send returns. After an error, what was registered stays, and a new plan sends the rest. A
// [*WrongBaseError] is a path that the new plan has to send as a whole.
func (p *Plan) Send(ctx context.Context, session *agent.Session, progress func(Progress), sent func(Sent)) (Result, error) {
	start := time.Now()
	var wire atomic.Uint64
	var registered atomic.Int64
	s := &sender{plan: p, sent: sent}
	report := func() {
		progress(Progress{
			Paths: int(registered.Load()), TotalPaths: len(p.Missing), Bytes: s.read.Load(), TotalBytes: p.Rest(), Wire: wire.Load(),
		})
	}
	stop := every(100*time.Millisecond, report)
	shipped, err := session.Ship(ctx, p.Root, func(w *agent.Stream) error {
		if p.OneChannel {
			return s.write(ctx, &countingWriter{w, &wire})
		}
		left := func() uint64 {
			read := max(s.read.Load(), 1)
			return uint64(float64(max(p.Rest(), read)-read) * float64(wire.Load()) / float64(read))
		}
		return s.write(ctx, &countingWriter{newWidener(w, left, time.Now), &wire})
	}, func(p agent.Progress) {
		registered.Store(int64(p.Registered))
		if p.Received > 0 {
			s.heard.Store(&news{time.Now(), p.Received})
		}
	})
	stop()
	report()
	result := Result{
		Paths: int(registered.Load()), Differences: s.differences, Bytes: s.read.Load(), Wire: wire.Load(), Duration: time.Since(start),
		Peak: shipped.Peak,
	}
	if err == nil && shipped.Registered != len(p.Missing) {
		err = fmt.Errorf("the agent has registered %d of %d paths", shipped.Registered, len(p.Missing))
	}
	var refused *agent.ResponseError
	if errors.As(err, &refused) && refused.Kind == agent.KindBase {
		// Only what was sent as a difference may be named.
		// What the target had of one may have been a difference.
		if i := slices.IndexFunc(p.Missing, func(info nix.PathInfo) bool { return info.Path == refused.Path }); i >= 0 && (!p.Whole[refused.Path] || p.Parked != nil && p.Parked.Path == refused.Path) {
			err = &WrongBaseError{Path: refused.Path, Err: err}
		}
	}
	return result, err
}

// sender writes a plan's stream.
type sender struct {
	plan        *Plan
	sent        func(Sent)
	read        atomic.Uint64 // bytes of NARs
	heard       atomic.Pointer[news]
	differences int

	z        *compressor
	buffered *bufio.Writer
	flushed  time.Time
}

// flushEvery is how often what waits to be compressed is sent, so that the target works while this machine does: differences
// of a large system are few bytes.
const flushEvery = 100 * time.Millisecond

// write writes the stream of package agent's ShipHeader.
func (s *sender) write(ctx context.Context, w io.Writer) error {
	s.z = newCompressor(w, time.Now, s.heard.Load)
	defer s.z.stop()
	s.buffered, s.flushed = bufio.NewWriterSize(s.z, 256<<10), time.Now()
	encoding := s.plan.encode(ctx)
	defer encoding.stop()
	for parcel := range encoding.parcels {
		err := s.parcel(ctx, encoding, parcel)
		if err == nil {
			err = s.flushInTime()
		}
		if err != nil {
			var vanished *VanishedError
			if errors.As(err, &vanished) && s.buffered.Flush() == nil {
				// The paths before it are worth having.
				_ = s.z.Close()
			}
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := s.buffered.Write(make([]byte, 4)); err != nil {
		return err
	}
	if err := s.buffered.Flush(); err != nil {
		return err
	}
	return s.z.Close()
}

func (s *sender) flushInTime() error {
	if time.Since(s.flushed) < flushEvery {
		return nil
	}
	err := s.buffered.Flush()
	if err == nil {
		err = s.z.Flush()
	}
	s.flushed = time.Now()
	return err
}

// parcel writes one path.
func (s *sender) parcel(ctx context.Context, e *encoding, p *parcel) error {
	defer p.leave()
	if p.err != nil {
		return p.err
	}
	told := Sent{Path: p.info.Path, Bytes: p.info.NarSize, Bases: p.bases, Added: p.info.NarSize}
	var err error
	switch {
	case len(p.bases) == 0:
		err = writePath(ctx, s.buffered, p.info, p.from, &s.read)
	case p.ready != nil:
		told.Added = p.ready.stats.Added
		err = s.difference(p, func() error {
			_, err := s.buffered.Write(p.ready.chunks)
			s.read.Add(p.info.NarSize)
			return err
		})
	default:
		fresh := &encoded{bases: p.bases}
		err = s.difference(p, func() error { return s.pieces(e, p, fresh) })
		if err == nil && p.key != "" {
			s.plan.Memory.put(p.key, fresh)
		}
		told.Added = fresh.stats.Added
	}
	if err == nil && s.sent != nil {
		s.sent(told)
	}
	return err
}

// difference writes a path that has bases.
func (s *sender) difference(p *parcel, chunks func() error) error {
	s.differences++
	header := headerOf(p.info)
	header.Bases, header.Offset = p.bases, p.from
	if len(p.pieces) > 0 {
		header.Start = p.pieces[0].job.Begin()
	}
	if err := writeHeader(s.buffered, header); err != nil {
		return err
	}
	if err := chunks(); err != nil {
		return err
	}
	_, err := s.buffered.Write(delta.End())
	return err
}

// pieces writes a difference as it is made, and keeps it in mind unless it is too long.
func (s *sender) pieces(e *encoding, p *parcel, fresh *encoded) error {
	for _, piece := range p.pieces {
		<-piece.done
		<-e.room
		if piece.err != nil {
			return &VanishedError{Path: p.info.Path, Err: piece.err}
		}
		if _, err := s.buffered.Write(piece.out); err != nil {
			return err
		}
		if len(fresh.chunks) <= maxRemembered {
			fresh.chunks = append(fresh.chunks, piece.out...)
		}
		fresh.stats = fresh.stats.Add(piece.stats)
		s.read.Add(piece.stats.Copied + piece.stats.Added)
		piece.out = nil
		if err := s.flushInTime(); err != nil {
			return err
		}
	}
	return nil
}

// writePath writes a path's header and its NAR from an offset on. That it cannot be read is a [*VanishedError].
func writePath(ctx context.Context, w io.Writer, info nix.PathInfo, from uint64, read *atomic.Uint64) error {
	header := headerOf(info)
	header.Offset = from
	if err := writeHeader(w, header); err != nil {
		return err
	}
	out := &narWriter{w: w, read: read, skip: from, left: info.NarSize}
	if err := nix.DumpPath(ctx, out, string(info.Path)); err != nil {
		if out.err != nil || ctx.Err() != nil {
			return err
		}
		return &VanishedError{Path: info.Path, Err: err}
	}
	if out.left != 0 {
		return &VanishedError{Path: info.Path, Err: errors.New("it has not the size that Nix registered")}
	}
	return nil
}

func headerOf(info nix.PathInfo) agent.ShipHeader {
	return agent.ShipHeader{
		Path: info.Path, Deriver: info.Deriver, NarHash: info.NarHash, NarSize: info.NarSize,
		References: info.References, Signatures: info.Signatures, CA: info.CA,
	}
}

func writeHeader(w io.Writer, header agent.ShipHeader) error {
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	if len(text) > agent.MaxShipHeader {
		return fmt.Errorf("%s has too many references to send", header.Path)
	}
	if err := binary.Write(w, binary.BigEndian, uint32(len(text))); err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// narWriter leaves the first bytes of a NAR out, counts the rest, refuses more than Nix registered, and remembers whether writing or
// reading failed.
type narWriter struct {
	w    io.Writer
	read *atomic.Uint64
	skip uint64
	left uint64
	err  error
}

func (n *narWriter) Write(p []byte) (int, error) {
	if uint64(len(p)) > n.left {
		return 0, errors.New("it is larger than Nix registered")
	}
	out := min(n.skip, uint64(len(p)))
	n.skip -= out
	written, err := n.w.Write(p[out:])
	n.left -= out + uint64(written)
	n.read.Add(uint64(written))
	n.err = err
	return int(out) + written, err
}

type countingWriter struct {
	w     io.Writer
	count *atomic.Uint64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.count.Add(uint64(n))
	return n, err
}

// every calls f again and again until the function it returns is called, which waits for the last call's end.
func every(interval time.Duration, f func()) (stop func()) {
	ticker := time.NewTicker(interval)
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ticker.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(quit)
		<-ended
	}
}
