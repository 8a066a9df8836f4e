package receive

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/delta"
	"ferry/internal/nix"
)

// Ship reads the stream of paths and feeds it to nix-store, which verifies and registers each path as it arrives.
func (s *Receiver) Ship(ctx context.Context, r agent.Request, stream *agent.DataReader) (*agent.ShipResult, error) {
	if r.Root != "" {
		if _, err := nix.ParseStorePath(string(r.Root)); err != nil {
			return nil, err
		}
	}
	defer s.openChannels(ctx, r, stream)()
	s.expected = map[nix.StorePath]bool{}
	count, err := s.receive(ctx, stream)
	var channel *agent.ChannelError
	if errors.As(err, &channel) {
		return nil, s.channelLost(channel)
	}
	if err == nil {
		err = stream.Drain()
	}
	if err == nil {
		// Nix does not: after a power cut its database would have paths whose files are empty, which nothing ships again.
		err = arrived(ctx, s.opts.Root)
	}
	if err == nil && r.Root != "" {
		err = keepPending(s.opts.Root, r.Root)
	}
	if err != nil {
		return nil, err
	}
	return &agent.ShipResult{Registered: count, Peak: peakMemory()}, nil
}

// expect writes down that a path comes, and with it all that ferry was told to be missing: once for a ship, as a rule.
func (s *Receiver) expect(p nix.StorePath) error {
	if s.expected[p] {
		return nil
	}
	paths := append(slices.Clone(s.lacking), p)
	if err := Expect(s.opts.Root, paths); err != nil {
		return err
	}
	for _, p := range paths {
		s.expected[p] = true
	}
	return nil
}

func (s *Receiver) receive(ctx context.Context, stream *agent.DataReader) (registered int, err error) {
	defer s.linger(ctx)()
	reports := &reports{wire: s.opts.Wire}
	z, err := NewDecoder(reports.reader(stream))
	if err != nil {
		return 0, err
	}
	defer z.Close()
	in := bufio.NewReaderSize(z, 64<<10)
	first, err := readHeader(in)
	if err != nil {
		return 0, &StreamError{err}
	}
	if first != nil {
		if err := s.expect(first.Path); err != nil {
			return 0, err
		}
	}
	st, err := s.storeFor(ctx, first)
	if err != nil {
		return 0, err
	}
	serve, err := st.use()
	if err != nil {
		return 0, err
	}
	st.feed(true)
	defer st.feed(false)
	f := &feeder{ctx: ctx, in: in, serve: serve, expect: s.expect}
	defer f.bases.close()
	acks := &acknowledgements{serve: serve, reports: reports, sent: make(chan *agent.ShipHeader, maxUnanswered), done: make(chan error, 1)}
	go acks.read()
	feedErr := f.feed(first, acks.sent)
	var bad *StreamError
	errors.As(feedErr, &bad)
	cut := f.brokenOff(stream)
	if feedErr != nil {
		// Whole paths that nix-store has not got yet are worth having. In the middle of the one that was cut off it waits for
		// the rest: unless that may still come, the end of its input tells it that there is none.
		if err := serve.Flush(); err != nil || cut == nil {
			cut = nil
			_ = st.in.Close()
		}
	}
	close(acks.sent)
	ackErr := <-acks.done
	switch {
	case feedErr == nil && ackErr == nil:
		return acks.count, nil
	case cut != nil && ackErr == nil && s.park(st, *cut) == nil:
		return 0, feedErr
	}
	died := st.died(errors.Join(feedErr, ackErr))
	if refused := refusedBase(feedErr, acks.failed, died); refused != nil {
		return 0, refused
	}
	if bad != nil && ackErr == nil {
		return 0, feedErr
	}
	return 0, died
}

// maxUnanswered is how many paths may wait for nix-store's answer. It has to be more than what waits in the agent's own buffer
// before nix-store, which a path of a few hundred bytes could otherwise fill: nothing would flush it.
const maxUnanswered = 4096

// leavingLimit is how long an agent that is to end may take for what it parks.
const leavingLimit = 5 * time.Second

// linger makes who ends the agent wait until done is called, within limits.
func (s *Receiver) linger(ctx context.Context) (done func()) {
	if s.opts.Busy == nil {
		return func() {}
	}
	s.opts.Busy.Lock()
	done = sync.OnceFunc(s.opts.Busy.Unlock)
	context.AfterFunc(ctx, func() { time.AfterFunc(leavingLimit, done) })
	return done
}

// storeFor is the nix-store that a stream is for, by its first header: the one that is parked, if ferry goes on with that. Else it is
// ended: its path may be in the stream.
func (s *Receiver) storeFor(ctx context.Context, first *agent.ShipHeader) (*store, error) {
	if first == nil || first.Offset == 0 {
		s.EndParked()
		return s.store, nil
	}
	if s.parked == nil || !s.parked.state.isOf(first) {
		return nil, &StreamError{fmt.Errorf("nothing is kept of %s", first.Path)}
	}
	k := s.parked
	s.parked = nil
	taken, err := k.take(ctx, s.opts.Runner, s.store.halted)
	if err != nil {
		return nil, fmt.Errorf("go on with %s: %w", first.Path, err)
	}
	s.resumed = taken
	return taken, nil
}

// EndParked ends what the last agent has left, if it has left something.
func (s *Receiver) EndParked() {
	if s.parked != nil {
		s.parked.end()
		s.parked = nil
	}
}

// StreamError is a stream from ferry that breaks its own format or ends too early.
type StreamError struct{ Err error }

func (e *StreamError) Error() string { return "stream of paths: " + e.Err.Error() }
func (e *StreamError) Unwrap() error { return e.Err }

// feeder turns the stream of headers and NARs into commands for nix-store.
type feeder struct {
	ctx   context.Context
	in    *bufio.Reader
	serve *nix.Serve
	bases bases
	// expect is told of a path before it comes.
	expect func(nix.StorePath) error
	// current is the path that is on its way, and cut how far it came if the stream has ended in it.
	current *agent.ShipHeader
	cut     *nix.BrokenOffError
}

// feed does that to the stream's end, without waiting for nix-store's answers. The first header has been read.
func (f *feeder) feed(first *agent.ShipHeader, sent chan<- *agent.ShipHeader) error {
	for f.current = first; f.current != nil; {
		header := f.current
		if header.Offset > 0 && header != first {
			return &StreamError{fmt.Errorf("%s goes on in the middle of a stream", header.Path)}
		}
		if err := f.path(header); err != nil {
			return err
		}
		sent <- header
		next, err := readHeader(f.in)
		if err != nil {
			return &StreamError{err}
		}
		f.current = next
	}
	return f.serve.Flush()
}

// path feeds one path.
func (f *feeder) path(header *agent.ShipHeader) error {
	if err := f.expect(header.Path); err != nil {
		return err
	}
	info := nix.PathInfo{
		Path: header.Path, Deriver: header.Deriver, NarHash: header.NarHash, NarSize: header.NarSize,
		References: header.References, Signatures: header.Signatures, CA: header.CA,
	}
	if len(header.Bases) > 0 {
		return f.rebuild(info, header)
	}
	nar := &exactReader{r: f.in, left: header.NarSize - header.Offset}
	err := f.send(info, header.Offset, func(w io.Writer) error {
		_, err := io.CopyN(w, nar, int64(nar.left))
		return err
	})
	if nar.err != nil {
		return &StreamError{nar.err}
	}
	return err
}

// send sends a NAR, or its rest, and remembers how far that came.
func (f *feeder) send(info nix.PathInfo, from uint64, write func(io.Writer) error) error {
	var err error
	if from > 0 {
		err = f.serve.SendRest(info, from, write)
	} else {
		err = f.serve.SendNar(info, write)
	}
	errors.As(err, &f.cut)
	return err
}

// readHeader reads the next path's header; nil at the end of the stream.
func readHeader(r io.Reader) (*agent.ShipHeader, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 {
		return nil, nil
	}
	if n > agent.MaxShipHeader {
		return nil, fmt.Errorf("header of %d bytes: the limit is %d", n, agent.MaxShipHeader)
	}
	// Not n bytes at once: a length that lies must not cost memory.
	text, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return nil, err
	}
	if len(text) < int(n) {
		return nil, io.ErrUnexpectedEOF
	}
	header := new(agent.ShipHeader)
	if err := json.Unmarshal(text, header); err != nil {
		return nil, err
	}
	if len(header.Bases) > delta.MaxBases {
		return nil, fmt.Errorf("%s has %d bases: the limit is %d", header.Path, len(header.Bases), delta.MaxBases)
	}
	if header.Offset > 0 && (header.Offset >= header.NarSize || header.Start > header.Offset) || header.Offset == 0 && header.Start > 0 {
		return nil, fmt.Errorf("%s goes on at %d, from %d, of %d bytes", header.Path, header.Offset, header.Start, header.NarSize)
	}
	named := slices.Concat([]nix.StorePath{header.Path}, header.References, header.Bases)
	if header.Deriver != "" {
		named = append(named, header.Deriver)
	}
	for _, p := range named {
		if _, err := nix.ParseStorePath(string(p)); err != nil {
			return nil, err
		}
	}
	return header, nil
}

// exactReader reads left bytes and remembers why it could not, so that a broken stream is told from a broken nix-store.
type exactReader struct {
	r    io.Reader
	left uint64
	err  error
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if uint64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= uint64(n)
	if err != nil && e.left > 0 {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		e.err = err
		return n, err
	}
	return n, nil
}

// acknowledgements reads nix-store's answers while paths are still being sent, and counts them.
type acknowledgements struct {
	serve   *nix.Serve
	reports *reports
	sent    chan *agent.ShipHeader
	done    chan error
	count   int
	// failed is the path whose answer did not come; read it after done.
	failed agent.ShipHeader
}

func (a *acknowledgements) read() {
	for header := range a.sent {
		if err := a.serve.ReadAck(); err != nil {
			a.failed = *header
			a.reports.end()
			a.done <- err
			// The sender must not block on a full channel.
			for range a.sent {
			}
			return
		}
		a.count++
		a.reports.registered()
	}
	a.reports.end()
	a.done <- nil
}
