package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/delta"
	"ferry/internal/nix"
	"ferry/internal/run"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// gcRoots is where a shipped bundle is kept from being collected until it is committed, and the committed one after that.
const gcRoots = "/nix/var/nix/gcroots/ferry"

// store is the target's Nix store, through one `nix-store --serve --write` that lives as long as the agent: while it does,
// no path that it has been asked about or has added is collected. One that has died is started again at the next use.
type store struct {
	ctx    context.Context
	runner *run.Runner

	mu      sync.Mutex
	process storeProcess // nil: not started
	in      io.WriteCloser
	out     io.Reader
	said    *os.File // what it says on standard error
	serve   *nix.Serve
	feeding bool // the end of ctx does not end it
}

// storeProcess is a nix-store, started by this agent or by another one.
type storeProcess interface {
	Wait() error
	Kill()
}

func storeCommand() []string { return []string{"nix-store", "--serve", "--write"} }

// openStore starts the process in the background if it will be used; the first use waits for it.
func openStore(ctx context.Context, runner *run.Runner, used bool) *store {
	s := &store{ctx: ctx, runner: runner}
	if used {
		go func() { _, _ = s.use() }()
	}
	return s
}

func (s *store) use() (*nix.Serve, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return s.serve, nil
	}
	// It may be kept when this agent has to end: it must not get what ends the agent.
	life, end := context.WithCancel(context.WithoutCancel(s.ctx))
	said := newMemory("nix-store's errors")
	p, in, out, err := s.runner.Pipe(life, run.Command{Argv: storeCommand(), Insist: true, OwnSession: true, ErrFile: said})
	if err != nil {
		end()
		return nil, err
	}
	s.process, s.in, s.out, s.said = p, in, out, said
	context.AfterFunc(s.ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.feeding {
			end()
		}
	})
	widen(in)
	if s.serve, err = nix.NewServe(out, in); err != nil {
		return nil, s.end(err)
	}
	return s.serve, nil
}

func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		_ = s.end(nil)
	}
}

// died makes the error of a nix-store that cannot be talked to any more: what it said on standard error is the reason, if it
// said anything.
func (s *store) died(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end(err)
}

// storeGrace is how long nix-store may take to end once its input has ended.
const storeGrace = 2 * time.Second

// feed says whether a stream is on its way to nix-store: meanwhile the end of the agent is not its end.
func (s *store) feed(now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feeding = now
}

// files are what another process needs to go on with nix-store. The process is the caller's to close.
func (s *store) files() (keptFiles, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, isFile := s.in.(*os.File)
	out, alsoFile := s.out.(*os.File)
	if !isFile || !alsoFile || s.said == nil {
		return keptFiles{}, errors.New("nix-store cannot be handed on")
	}
	var fd int
	var err error
	switch p := s.process.(type) {
	case *run.Process:
		fd, err = unix.PidfdOpen(p.Pid(), 0)
	case *takenProcess:
		fd, err = unix.FcntlInt(uintptr(fdOf(p.process)), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return keptFiles{}, fmt.Errorf("nix-store cannot be handed on: %w", err)
	}
	return keptFiles{in, out, s.said, os.NewFile(uintptr(fd), "nix-store")}, nil
}

// forget leaves nix-store to another process.
func (s *store) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.in.Close(), s.said.Close()
	go func(p storeProcess) { _ = p.Wait() }(s.process)
	s.process, s.in, s.out, s.said, s.serve = nil, nil, nil, nil, nil
}

func (s *store) end(err error) error {
	_ = s.in.Close()
	kill := time.AfterFunc(storeGrace, s.process.Kill)
	defer kill.Stop()
	ended := s.process.Wait()
	if s.said != nil {
		_ = s.said.Close()
	}
	s.process, s.in, s.out, s.said, s.serve = nil, nil, nil, nil, nil
	var failed *run.Error
	if errors.As(ended, &failed) && failed.Stderr != "" {
		return failed
	}
	return fmt.Errorf("nix-store --serve: %w", err)
}

// missing reads the paths that ferry asks about and gives the indexes of those that are not valid here.
func (s *server) missing(r agent.Request, stream *agent.DataReader) ([]int, error) {
	paths, err := readPaths(stream)
	if err == nil {
		err = stream.Drain()
	}
	if err != nil {
		return nil, &streamError{err}
	}
	if r.Substitute && s.kept != nil {
		// Nix would wait for the path that it has locked.
		s.endKept()
	}
	serve, err := s.store.use()
	if err != nil {
		return nil, err
	}
	valid, err := serve.ValidPaths(paths, true, r.Substitute)
	if err != nil {
		return nil, s.store.died(err)
	}
	have := make(map[nix.StorePath]bool, len(valid))
	for _, p := range valid {
		have[p] = true
	}
	missing := []int{}
	for i, p := range paths {
		if !have[p] {
			missing = append(missing, i)
		}
	}
	return missing, nil
}

func newDecoder(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderMaxWindow(agent.ShipWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
}

// maxAsked is how many paths one request may ask about: their indexes must fit into the frame of the answer.
const maxAsked = 100_000

func readPaths(r io.Reader) ([]nix.StorePath, error) {
	z, err := newDecoder(r)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var paths []nix.StorePath
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		p, err := nix.ParseStorePath(lines.Text())
		if err != nil {
			return nil, err
		}
		if len(paths) == maxAsked {
			return nil, fmt.Errorf("more than %d paths", maxAsked)
		}
		paths = append(paths, p)
	}
	return paths, lines.Err()
}

// ship reads the stream of paths and feeds it to nix-store, which verifies and registers each path as it arrives.
func (s *server) ship(ctx context.Context, r agent.Request, stream *agent.DataReader) (*agent.ShipResult, error) {
	if s.lock == nil {
		return nil, errLocked
	}
	if r.Root != "" {
		if _, err := nix.ParseStorePath(string(r.Root)); err != nil {
			return nil, err
		}
	}
	count, err := s.receive(ctx, stream)
	if err == nil {
		err = stream.Drain()
	}
	if err == nil && r.Root != "" {
		err = keepPending(s.root(), r.Root)
	}
	if err != nil {
		return nil, err
	}
	return &agent.ShipResult{Registered: count, Peak: peakMemory()}, nil
}

func (s *server) receive(ctx context.Context, stream *agent.DataReader) (registered int, err error) {
	defer s.linger(ctx)()
	z, err := newDecoder(stream)
	if err != nil {
		return 0, err
	}
	defer z.Close()
	in := bufio.NewReaderSize(z, 64<<10)
	first, err := readHeader(in)
	if err != nil {
		return 0, &streamError{err}
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
	f := &feeder{ctx: ctx, in: in, serve: serve}
	defer f.bases.close()
	acks := &acknowledgements{serve: serve, wire: s.wire, sent: make(chan agent.ShipHeader, 1<<16), done: make(chan error, 1)}
	go acks.read()
	feedErr := f.feed(first, acks.sent)
	var bad *streamError
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
	case cut != nil && ackErr == nil && s.keep(st, *cut) == nil:
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

// leavingLimit is how long an agent that is to end may take for what it keeps.
const leavingLimit = 5 * time.Second

// linger makes who ends the agent wait until done is called, within limits.
func (s *server) linger(ctx context.Context) (done func()) {
	if s.opts.Busy == nil {
		return func() {}
	}
	s.opts.Busy.Lock()
	done = sync.OnceFunc(s.opts.Busy.Unlock)
	context.AfterFunc(ctx, func() { time.AfterFunc(leavingLimit, done) })
	return done
}

// storeFor is the nix-store that a stream is for, by its first header: the one that is kept, if ferry goes on with that. Else it is
// ended: its path may be in the stream.
func (s *server) storeFor(ctx context.Context, first *agent.ShipHeader) (*store, error) {
	if first == nil || first.Offset == 0 {
		s.endKept()
		return s.store, nil
	}
	if s.kept == nil || !s.kept.state.isOf(first) {
		return nil, &streamError{fmt.Errorf("nothing is kept of %s", first.Path)}
	}
	k := s.kept
	s.kept = nil
	taken, err := k.take(ctx, s.runner)
	if err != nil {
		return nil, fmt.Errorf("go on with %s: %w", first.Path, err)
	}
	s.taken = taken
	return taken, nil
}

// endKept ends what the last agent has left, if it has left something.
func (s *server) endKept() {
	if s.kept != nil {
		s.kept.end()
		s.kept = nil
	}
}

// streamError is a stream from ferry that breaks its own format or ends too early.
type streamError struct{ err error }

func (e *streamError) Error() string { return "stream of paths: " + e.err.Error() }
func (e *streamError) Unwrap() error { return e.err }

// feeder turns the stream of headers and NARs into commands for nix-store.
type feeder struct {
	ctx   context.Context
	in    *bufio.Reader
	serve *nix.Serve
	bases bases
	// current is the path that is on its way, and cut how far it came if the stream has ended in it.
	current *agent.ShipHeader
	cut     *nix.BrokenOffError
}

// feed does that to the stream's end, without waiting for nix-store's answers. The first header has been read.
func (f *feeder) feed(first *agent.ShipHeader, sent chan<- agent.ShipHeader) error {
	for f.current = first; f.current != nil; {
		header := f.current
		if header.Offset > 0 && header != first {
			return &streamError{fmt.Errorf("%s goes on in the middle of a stream", header.Path)}
		}
		if err := f.path(header); err != nil {
			return err
		}
		sent <- *header
		next, err := readHeader(f.in)
		if err != nil {
			return &streamError{err}
		}
		f.current = next
	}
	return f.serve.Flush()
}

// path feeds one path.
func (f *feeder) path(header *agent.ShipHeader) error {
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
		return &streamError{nar.err}
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

// acknowledgements reads nix-store's answers while paths are still being sent, and reports each.
type acknowledgements struct {
	serve *nix.Serve
	wire  *agent.Wire
	sent  chan agent.ShipHeader
	done  chan error
	count int
	// failed is the path whose answer did not come; read it after done.
	failed agent.ShipHeader
}

func (a *acknowledgements) read() {
	for header := range a.sent {
		if err := a.serve.ReadAck(); err != nil {
			a.failed = header
			a.done <- err
			// The sender must not block on a full channel.
			for range a.sent {
			}
			return
		}
		a.count++
		// A lost connection is noticed by the reader of requests.
		_ = a.wire.WriteJSON(agent.FrameProgress, agent.Progress{Registered: a.count})
	}
	a.done <- nil
}

// keepPending makes a GC root for a bundle that is not committed yet. One at a time is enough: the lock is held.
func keepPending(r root, bundle nix.StorePath) error {
	folder := r.path(gcRoots)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("keep %s from being collected: %w", bundle, err)
	}
	return replaceLink(string(bundle), filepath.Join(folder, "pending"))
}

// replaceLink makes link point at target, in one step.
func replaceLink(target, link string) error {
	next := link + ".new"
	_ = os.Remove(next)
	if err := os.Symlink(target, next); err != nil {
		return fmt.Errorf("link to %s: %w", target, err)
	}
	if err := os.Rename(next, link); err != nil {
		return fmt.Errorf("link to %s: %w", target, err)
	}
	return nil
}

// peakMemory is the agent's largest resident size so far in bytes.
func peakMemory() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}
