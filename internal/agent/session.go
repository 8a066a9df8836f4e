package agent

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/target"

	"github.com/klauspost/compress/zstd"
)

// Options say how to get root on the target and what the agent is to know of us.
type Options struct {
	// Elevate is the command that makes root of the login user, such as sudo; not used when the user is root.
	Elevate []string
	// Password gives the password for sudo when it asks: attempt counts from 1. What it returns is overwritten once it is
	// sent. An error ends the session with that error.
	Password func(ctx context.Context, attempt int) ([]byte, error)
	// Who is said to others that find the target locked.
	Who string
	// Session names the deployment: an agent of the same one that has not noticed its lost connection yet gives way.
	Session string
	// Lock takes the target's lock for the life of the session; without it the agent changes nothing.
	Lock bool
	// Trace, when set, gets what the login shell and sudo say.
	Trace io.Writer
}

// Session is a running agent and ferry's end of the protocol. It is for one goroutine at a time, but Close may be called
// from anywhere. The caller must Close it.
type Session struct {
	Hello Hello
	// Installed says that the agent was sent in this session.
	Installed bool

	address target.Address
	channel *target.Channel
	wire    *Wire
	watch   *promptWatch
	lastID  int
	wait    func() error
}

// Open starts the agent on the target, installs it first where it is missing, answers sudo's question for a password, and
// returns when the agent has said hello. The session goes on when ctx ends after that. Errors are a [*target.Error], an
// [*ElevateError], a [*StartError], or what opts.Password returned.
func Open(ctx context.Context, d *target.Dialer, addr target.Address, opts Options) (*Session, error) {
	programs, err := Programs()
	if err != nil {
		return nil, err
	}
	args := []string{"--as", identity(opts.Who), "--session", identity(opts.Session)}
	if opts.Lock {
		args = append(args, "--lock")
	}
	// Quoted for a shell the apostrophe looks different, so that a login shell that shows what it runs (set -x, set -v) does
	// not look like sudo asking.
	marker := "ferry-" + rand.Text() + "'s question: "
	watch := &promptWatch{marker: marker, asked: make(chan struct{}, 8), flooded: make(chan struct{}), tail: &run.Tail{Limit: 16 << 10}, trace: opts.Trace}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	opening := context.AfterFunc(ctx, stop)
	defer opening()
	channel, err := d.Start(life, addr, commandLine(opts.Elevate, marker, bootstrapScript(Folder, programs, args)), watch)
	if err != nil {
		stop()
		return nil, err
	}
	s := &Session{address: addr, channel: channel, watch: watch}
	s.wait = sync.OnceValue(func() error {
		defer stop()
		return channel.Wait()
	})
	if err := s.start(ctx, programs, opts); err != nil {
		if !errors.Is(err, errEnded) {
			s.channel.Close()
		}
		return nil, s.startError(ctx, err, s.end(), opts)
	}
	if !opening() {
		_ = s.end()
		return nil, ctx.Err()
	}
	return s, nil
}

// endGrace is how long a connection that is over, or is to be over, may take to end by itself: then ssh says why.
const endGrace = 5 * time.Second

// end waits for the end of the connection, gives how it ended, and ends it by force when that takes long.
func (s *Session) end() error {
	_ = s.channel.In.Close()
	force := time.AfterFunc(endGrace, s.channel.Close)
	defer force.Stop()
	_, _ = io.Copy(io.Discard, s.channel.Out)
	return s.wait()
}

// errEnded says that the output ended before the agent spoke: why is in the exit status and in standard error.
var errEnded = errors.New("the agent did not start")

func (s *Session) start(ctx context.Context, programs []Program, opts Options) error {
	lines := make(chan string)
	failed := make(chan error, 1)
	next := make(chan struct{})
	out := bufio.NewReaderSize(s.channel.Out, maxLine)
	go func() {
		for {
			line, err := readLine(out)
			if err != nil {
				failed <- err
				return
			}
			lines <- line
			// What follows the agent's first line is frames and not lines, and is read by someone else.
			if _, more := <-next; !more {
				return
			}
		}
	}()
	defer close(next)
	attempt, greeting := 0, 0
	for {
		select {
		case <-ctx.Done():
			// The reader may stand in a send: it ends with the connection, and its line goes nowhere.
			go drainLines(lines, failed)
			return ctx.Err()
		case err := <-failed:
			return err
		case <-s.watch.flooded:
			go drainLines(lines, failed)
			return &StartError{Text: "the target writes to standard error without end; nothing may be printed by a login shell that is not interactive"}
		case <-s.watch.asked:
			s.channel.Ready()
			attempt++
			if err := s.answer(ctx, attempt, opts); err != nil {
				go drainLines(lines, failed)
				return err
			}
		case line := <-lines:
			done, err := s.take(ctx, line, programs)
			if err != nil {
				return err
			}
			if done {
				s.wire = NewWire(out, s.channel.In)
				return s.hello()
			}
			if greeting += len(line) + 1; greeting > maxGreeting {
				return &StartError{Text: "the target's login shell prints without end; nothing may be printed by it when it is not interactive"}
			}
			next <- struct{}{}
		}
	}
}

func drainLines(lines <-chan string, failed <-chan error) {
	select {
	case <-lines:
	case <-failed:
	}
}

// take handles one line that came before the agent's first frame; done is true for the agent's own.
func (s *Session) take(ctx context.Context, line string, programs []Program) (done bool, err error) {
	s.channel.Ready()
	switch {
	case strings.HasSuffix(line, Magic):
		return true, nil
	case strings.Contains(line, bootstrapMachine):
		_, machine, _ := strings.Cut(line, bootstrapMachine)
		return false, &StartError{Text: fmt.Sprintf("the target is a %q machine, and ferry has no agent for that", run.Clean(machine))}
	case strings.Contains(line, bootstrapFailed):
		_, what, _ := strings.Cut(line, bootstrapFailed)
		return false, &StartError{Text: "could not install the agent: failed " + run.Clean(what), Stderr: s.stderr()}
	case strings.Contains(line, bootstrapNeed):
		if s.Installed {
			return false, &StartError{Text: "the target asked for the agent twice"}
		}
		_, machine, _ := strings.Cut(line, bootstrapNeed)
		return false, s.install(strings.TrimSpace(machine), programs)
	}
	return false, nil
}

func (s *Session) install(machine string, programs []Program) error {
	for _, p := range programs {
		if p.Machine != machine {
			continue
		}
		packed, err := p.Compressed()
		if err != nil {
			return err
		}
		s.Installed = true
		if _, err := io.WriteString(s.channel.In, strconv.Itoa(len(packed))+"\n"); err == nil {
			// A failed write is a connection that ends: the reader finds out why.
			_, _ = s.channel.In.Write(packed)
		}
		return nil
	}
	return &StartError{Text: fmt.Sprintf("the target asked for an agent for %q, which ferry did not offer", run.Clean(machine))}
}

func (s *Session) answer(ctx context.Context, attempt int, opts Options) error {
	if opts.Password == nil {
		return &ElevateError{Kind: PasswordNeeded, Text: "sudo asks for a password, and there is nobody to ask"}
	}
	password, err := opts.Password(ctx, attempt)
	if err != nil {
		return err
	}
	line := make([]byte, 0, len(password)+1)
	line = append(append(line, password...), '\n')
	clear(password)
	// A failed write is a connection that ends: the reader finds out why.
	_, _ = s.channel.In.Write(line)
	clear(line)
	return nil
}

func (s *Session) hello() error {
	t, payload, err := s.wire.Read()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errEnded
	}
	if err != nil {
		return &StartError{Text: "the agent's first message cannot be read: " + err.Error()}
	}
	if t != FrameHello {
		return &StartError{Text: "what answered is not ferry's agent"}
	}
	if err := json.Unmarshal(payload, &s.Hello); err != nil {
		return &StartError{Text: "the agent's first message cannot be read: " + err.Error()}
	}
	if s.Hello.Protocol != Protocol {
		return &StartError{Text: fmt.Sprintf("the agent speaks protocol %d, ferry %d", s.Hello.Protocol, Protocol)}
	}
	s.Hello.clean()
	return nil
}

// Missing tells which of paths are not valid on the target, in their order, and keeps the valid ones from being collected
// there until the session ends. With substitute the target fetches what its own caches have first.
func (s *Session) Missing(ctx context.Context, paths []nix.StorePath, substitute bool) ([]nix.StorePath, error) {
	response, err := s.request(ctx, Request{Method: MethodMissing, Substitute: substitute}, func(w io.Writer) error {
		z, err := zstd.NewWriter(w, zstd.WithWindowSize(1<<20), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		for _, p := range paths {
			if _, err := io.WriteString(z, string(p)+"\n"); err != nil {
				return err
			}
		}
		return z.Close()
	}, nil, nil)
	if err != nil {
		return nil, err
	}
	missing := make([]nix.StorePath, 0, len(response.Missing))
	last := -1
	for _, i := range response.Missing {
		if i <= last || i >= len(paths) {
			return nil, fmt.Errorf("the agent on %s names path %d of %d after path %d", s.address, i, len(paths), last)
		}
		last = i
		missing = append(missing, paths[i])
	}
	return missing, nil
}

// Ship sends the stream that send writes (see [ShipHeader]) and calls progress as paths are registered. root, the path that
// all others are for, is then kept from being collected until it is committed.
func (s *Session) Ship(ctx context.Context, root nix.StorePath, send func(w io.Writer) error, progress func(Progress)) (ShipResult, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	response, err := s.request(ctx, Request{Method: MethodShip, Root: root}, send, progress, nil)
	if err != nil || response.Ship == nil {
		return ShipResult{}, orMissing(err)
	}
	return *response.Ship, nil
}

// Activate runs the toplevel's switch-to-configuration on the target. What it writes goes to log as it comes.
func (s *Session) Activate(ctx context.Context, r Request, log io.Writer) (ActivateResult, error) {
	r.Method = MethodActivate
	if log == nil {
		log = io.Discard
	}
	response, err := s.request(ctx, r, nil, nil, log)
	if err != nil || response.Activate == nil {
		return ActivateResult{}, orMissing(err)
	}
	response.Activate.clean()
	return *response.Activate, nil
}

// Commit makes the bundle's toplevel the target's boot default and the bundle its GC root.
func (s *Session) Commit(ctx context.Context, r Request, log io.Writer) (CommitResult, error) {
	r.Method = MethodCommit
	if log == nil {
		log = io.Discard
	}
	response, err := s.request(ctx, r, nil, nil, log)
	if err != nil || response.Commit == nil {
		return CommitResult{}, orMissing(err)
	}
	response.Commit.clean()
	return *response.Commit, nil
}

func orMissing(err error) error {
	if err == nil {
		return errors.New("the agent's answer has no result")
	}
	return err
}

// errStopped ends a stream that the agent has no more use for.
var errStopped = errors.New("the agent stopped reading")

// request sends r and its stream, and reads until the response. A lost connection is a [*target.Error] or a [*LostError],
// a failure on the target a [*ResponseError]; after the latter, and after an error of stream itself, the session goes on.
// progress and log are nil where the agent has none to send.
func (s *Session) request(ctx context.Context, r Request, stream func(io.Writer) error, progress func(Progress), log io.Writer) (*Response, error) {
	s.lastID++
	r.ID = s.lastID
	stop := context.AfterFunc(ctx, s.channel.Close)
	defer stop()
	if err := s.wire.WriteJSON(FrameRequest, r); err != nil {
		return nil, s.lost(ctx, err)
	}
	gate := &gatedWriter{w: s.wire.DataWriter()}
	sent := make(chan error, 1)
	go func() {
		if stream == nil {
			sent <- nil
			return
		}
		err := stream(gate)
		// Also after an error: the agent finds the stream too short, says so, and waits for the next request.
		if closeErr := gate.w.Close(); err == nil {
			err = closeErr
		}
		sent <- err
	}()
	response, err := s.answerTo(r.ID, progress, log)
	if err != nil {
		// Nobody reads the stream any more: free its writer.
		_ = s.channel.In.Close()
	}
	gate.stop()
	streamErr := <-sent
	switch {
	case ctx.Err() != nil:
		return nil, s.lost(ctx, ctx.Err())
	case streamErr != nil && !errors.Is(streamErr, errStopped) && !isPipe(streamErr):
		// It failed on this side, and what the agent says is only a consequence.
		return nil, streamErr
	case err != nil:
		return nil, s.lost(ctx, err)
	case response.Error != nil:
		return nil, response.Error
	case streamErr != nil:
		return nil, fmt.Errorf("the agent on %s answered before it had everything", s.address)
	}
	return response, nil
}

func (s *Session) answerTo(id int, progress func(Progress), log io.Writer) (*Response, error) {
	for {
		t, payload, err := s.wire.Read()
		if err != nil {
			return nil, err
		}
		switch {
		case t == FrameLog && log != nil:
			_, _ = log.Write(payload)
		case t == FrameProgress && progress != nil:
			var p Progress
			if err := json.Unmarshal(payload, &p); err != nil {
				return nil, fmt.Errorf("the agent's progress cannot be read: %w", err)
			}
			progress(p)
		case t == FrameResponse:
			response := new(Response)
			if err := json.Unmarshal(payload, response); err != nil {
				return nil, fmt.Errorf("the agent's answer cannot be read: %w", err)
			}
			if response.ID != id {
				return nil, fmt.Errorf("the agent answers request %d instead of %d", response.ID, id)
			}
			if response.Error != nil {
				response.Error.clean()
			}
			return response, nil
		default:
			return nil, fmt.Errorf("the agent sent an unexpected frame %q", t)
		}
	}
}

// lost makes the error of a connection that broke in the middle of a request.
func (s *Session) lost(ctx context.Context, err error) error {
	broken := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isPipe(err)
	if !broken {
		// The other side does not know yet that it is over.
		s.channel.Close()
	}
	ended := s.end()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !broken {
		return fmt.Errorf("the agent on %s: %w", s.address, err)
	}
	var connect *target.Error
	if errors.As(ended, &connect) {
		return connect
	}
	return &LostError{Address: s.address, Stderr: s.stderr()}
}

// Close ends the session: the agent sees the end of its input and ends too. Over ssh, nobody waits for that.
func (s *Session) Close() {
	if !s.address.Local() {
		s.channel.Close()
	}
	_ = s.end()
}

func (s *Session) stderr() []string { return run.LastLines(s.watch.tail.String(), 20) }

const (
	// maxLine is how long a line before the agent's first frame may be, in bytes: a login shell's greeting, not a flood.
	maxLine = 64 << 10
	// maxGreeting is how much may be said in lines before the agent's, in bytes.
	maxGreeting = 1 << 20
)

// readLine reads a line that comes before the agent's first frame. At the end of the output it gives errEnded.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", &StartError{Text: fmt.Sprintf("the target says a line of more than %d bytes before the agent speaks", maxLine)}
	}
	if err != nil {
		return "", errEnded
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// gatedWriter lets the reader of the answer stop the writer of the stream.
type gatedWriter struct {
	w io.WriteCloser

	mu      sync.Mutex
	stopped bool
}

func (g *gatedWriter) stop() {
	g.mu.Lock()
	g.stopped = true
	g.mu.Unlock()
}

func (g *gatedWriter) Write(p []byte) (int, error) {
	g.mu.Lock()
	stopped := g.stopped
	g.mu.Unlock()
	if stopped {
		return 0, errStopped
	}
	return g.w.Write(p)
}
