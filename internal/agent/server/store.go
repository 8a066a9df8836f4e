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
)

// gcRoots is where a shipped bundle is kept from being collected until it is committed, and the committed one after that.
const gcRoots = "/nix/var/nix/gcroots/ferry"

// store is the target's Nix store, through one `nix-store --serve --write` that lives as long as the agent: while it does,
// no path that it has been asked about or has added is collected. One that has died is started again at the next use.
type store struct {
	ctx    context.Context
	runner *run.Runner

	mu      sync.Mutex
	process *run.Process // nil: not started
	in      io.WriteCloser
	serve   *nix.Serve
}

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
	p, in, out, err := s.runner.Pipe(s.ctx, run.Command{Argv: []string{"nix-store", "--serve", "--write"}, Insist: true})
	if err != nil {
		return nil, err
	}
	s.process, s.in = p, in
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

func (s *store) end(err error) error {
	_ = s.in.Close()
	kill := time.AfterFunc(storeGrace, s.process.Kill)
	defer kill.Stop()
	ended := s.process.Wait()
	s.process, s.in, s.serve = nil, nil, nil
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
func (s *server) ship(r agent.Request, stream *agent.DataReader) (*agent.ShipResult, error) {
	if s.lock == nil {
		return nil, errLocked
	}
	if r.Root != "" {
		if _, err := nix.ParseStorePath(string(r.Root)); err != nil {
			return nil, err
		}
	}
	count, err := s.receive(stream)
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

func (s *server) receive(stream io.Reader) (registered int, err error) {
	serve, err := s.store.use()
	if err != nil {
		return 0, err
	}
	z, err := newDecoder(stream)
	if err != nil {
		return 0, err
	}
	defer z.Close()
	f := &feeder{ctx: s.store.ctx, in: bufio.NewReaderSize(z, 64<<10), serve: serve}
	defer f.bases.close()
	acks := &acknowledgements{serve: serve, wire: s.wire, sent: make(chan agent.ShipHeader, 1<<16), done: make(chan error, 1)}
	go acks.read()
	feedErr := f.feed(acks.sent)
	var bad *streamError
	errors.As(feedErr, &bad)
	if feedErr != nil {
		// Whole paths that nix-store has not got yet are worth having. In the middle of the one that was cut off it waits for
		// the rest: the end of its input tells it that there is none.
		_ = serve.Flush()
		_ = s.store.in.Close()
	}
	close(acks.sent)
	ackErr := <-acks.done
	if feedErr == nil && ackErr == nil {
		return acks.count, nil
	}
	died := s.store.died(errors.Join(feedErr, ackErr))
	if refused := refusedBase(feedErr, acks.failed, died); refused != nil {
		return 0, refused
	}
	if bad != nil && ackErr == nil {
		return 0, feedErr
	}
	return 0, died
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
}

// feed does that to the stream's end, without waiting for nix-store's answers.
func (f *feeder) feed(sent chan<- agent.ShipHeader) error {
	for {
		header, err := readHeader(f.in)
		if err != nil {
			return &streamError{err}
		}
		if header == nil {
			return f.serve.Flush()
		}
		info := nix.PathInfo{
			Path: header.Path, Deriver: header.Deriver, NarHash: header.NarHash, NarSize: header.NarSize,
			References: header.References, Signatures: header.Signatures, CA: header.CA,
		}
		if len(header.Bases) > 0 {
			err = f.rebuild(info, header.Bases)
		} else {
			nar := &exactReader{r: f.in, left: header.NarSize}
			if err = f.serve.SendPath(info, nar); nar.err != nil {
				err = &streamError{nar.err}
			}
		}
		if err != nil {
			return err
		}
		sent <- *header
	}
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
