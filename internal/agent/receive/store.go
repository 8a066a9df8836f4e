package receive

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// store is the target's Nix store, through one `nix-store --serve --write` that lives as long as the agent: while it does,
// no path that it has been asked about or has added is collected. One that has died is started again at the next use.
type store struct {
	ctx    context.Context
	runner *run.Runner
	// opening is the time in which a nix-store may begin, and giveUp ends it, for one that does not answer.
	opening context.Context
	giveUp  context.CancelFunc
	limit   time.Duration
	// halted is how long one may be stopped before it is ended.
	halted time.Duration

	mu      sync.Mutex
	process storeProcess // nil: not started
	in      io.WriteCloser
	out     io.ReadCloser
	stderr  *os.File // what it says on standard error
	serve   *nix.Serve
	feeding bool  // the end of ctx does not end it
	stopped bool  // the process was, and has been ended for it
	mute    error // one has not answered in time: the next one would not either
}

// storeProcess is a nix-store, started by this agent or by another one.
type storeProcess interface {
	Wait() error
	Kill()
}

func storeCommand() []string { return []string{"nix-store", "--serve", "--write"} }

// openLimit is how long nix-store may take before it answers at all. On a slow card that is seconds.
const openLimit = 2 * time.Minute

// openStore starts the process in the background if it will be used; the first use waits for it, for so long at most.
func openStore(ctx context.Context, runner *run.Runner, used bool, limit, halted time.Duration) *store {
	s := &store{ctx: ctx, runner: runner, limit: limit, halted: halted}
	s.opening, s.giveUp = context.WithCancel(ctx)
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
	if err := cmp.Or(s.mute, s.opening.Err()); err != nil {
		return nil, err
	}
	// It may be parked when this agent has to end: it must not get what ends the agent.
	life, end := context.WithCancel(context.WithoutCancel(s.ctx))
	said := newMemory("nix-store's errors")
	p, in, out, err := s.runner.Pipe(life, run.Command{Argv: storeCommand(), Insist: true, OwnSession: true, ErrFile: said})
	if err != nil {
		end()
		return nil, err
	}
	s.process, s.in, s.out, s.stderr = p, in, out, said
	s.watch()
	context.AfterFunc(s.ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.feeding && s.process == p {
			end()
		}
	})
	Widen(in)
	defer context.AfterFunc(s.opening, end)()
	late := time.AfterFunc(s.limit, end)
	s.serve, err = nix.NewServe(out, in)
	if !late.Stop() {
		_ = s.end(err)
		s.mute = fmt.Errorf("nix-store --serve has not answered within %v", s.limit)
		return nil, s.mute
	}
	if err != nil {
		return nil, s.end(err)
	}
	return s.serve, nil
}

func (s *store) close() {
	if s.giveUp != nil {
		s.giveUp()
	}
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
func (s *store) files() (parkedFiles, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, isFile := s.in.(*os.File)
	out, alsoFile := s.out.(*os.File)
	if !isFile || !alsoFile || s.stderr == nil {
		return parkedFiles{}, errors.New("nix-store cannot be handed on")
	}
	var fd int
	var err error
	switch p := s.process.(type) {
	case *run.Process:
		fd, err = unix.PidfdOpen(p.Pid(), 0)
	case *adoptedProcess:
		fd, err = unix.FcntlInt(uintptr(machine.FD(p.process)), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return parkedFiles{}, fmt.Errorf("nix-store cannot be handed on: %w", err)
	}
	return parkedFiles{in, out, s.stderr, os.NewFile(uintptr(fd), "nix-store")}, nil
}

// forget leaves nix-store to another process: nothing that ends this one ends it now.
func (s *store) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range []io.Closer{s.in, s.out, s.stderr} {
		_ = file.Close()
	}
	go func(p storeProcess) { _ = p.Wait() }(s.process)
	s.process, s.in, s.out, s.stderr, s.serve = nil, nil, nil, nil, nil
}

func (s *store) end(err error) error {
	_ = s.in.Close()
	stopped := s.stopped
	s.stopped = false
	kill := time.AfterFunc(storeGrace, s.process.Kill)
	defer kill.Stop()
	ended := s.process.Wait()
	_ = s.out.Close()
	if s.stderr != nil {
		_ = s.stderr.Close()
	}
	s.process, s.in, s.out, s.stderr, s.serve = nil, nil, nil, nil, nil
	if stopped {
		return errStoreStopped
	}
	var failed *run.Error
	if errors.As(ended, &failed) && failed.Stderr != "" {
		return failed
	}
	return fmt.Errorf("nix-store --serve: %w", err)
}

// Missing reads the paths that ferry asks about and gives the indexes of those that are not valid here.
func (s *Receiver) Missing(ctx context.Context, r agent.Request, stream *agent.DataReader) ([]int, error) {
	paths, err := ReadPaths(stream)
	if err == nil {
		err = stream.Drain()
	}
	if err != nil {
		return nil, &StreamError{err}
	}
	if r.Substitute && s.parked != nil {
		// Nix would wait for the path that it has locked.
		s.EndParked()
	}
	serve, err := s.store.use()
	if err != nil {
		return nil, err
	}
	valid, err := serve.ValidPaths(paths, true, false)
	if err != nil {
		return nil, s.store.died(err)
	}
	// Who does not hold the lock changes nothing.
	if r.Substitute && s.opts.Locked && len(valid) < len(paths) {
		if valid, err = s.substitute(ctx, serve, paths, valid); err != nil {
			return nil, err
		}
	}
	have := setOf(valid)
	missing := []int{}
	s.lacking = nil
	for i, p := range paths {
		if !have[p] {
			missing = append(missing, i)
			s.lacking = append(s.lacking, p)
		}
	}
	return missing, nil
}

// substitute lets Nix fetch those of paths that are not valid, as far as it can, and gives which are valid then. It brings them
// to the disk.
func (s *Receiver) substitute(ctx context.Context, serve *nix.Serve, paths, valid []nix.StorePath) ([]nix.StorePath, error) {
	have := setOf(valid)
	if err := Expect(s.opts.Root, slices.DeleteFunc(slices.Clone(paths), func(p nix.StorePath) bool { return have[p] })); err != nil {
		return nil, err
	}
	valid, err := serve.ValidPaths(paths, true, true)
	if err != nil {
		return nil, s.store.died(err)
	}
	return valid, arrived(ctx, s.opts.Root)
}

// NewDecoder reads the compressed streams of requests with as much memory as ferry counts on.
func NewDecoder(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderMaxWindow(agent.ShipWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
}

// maxAsked is how many paths one request may ask about: their indexes must fit into the frame of the answer.
const maxAsked = 100_000

// ReadPaths reads a compressed list of store paths, one on a line.
func ReadPaths(r io.Reader) ([]nix.StorePath, error) {
	z, err := NewDecoder(r)
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

// keepPending makes a GC root for a bundle that is not committed yet. One at a time is enough: the lock is held.
func keepPending(r machine.Root, bundle nix.StorePath) error {
	if err := r.Keep("pending", string(bundle)); err != nil {
		return fmt.Errorf("keep %s from being collected: %w", bundle, err)
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
