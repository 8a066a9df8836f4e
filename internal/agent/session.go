package agent

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"ferry/internal/run"
	"ferry/internal/target"
)

// Options say how to get root on the target and what the agent is to know of us.
type Options struct {
	// Elevate is the command that makes root of the login user, such as sudo; not used when the user is root.
	Elevate []string
	// Password gives the password for command, which is sudo or what Elevate says, when it asks: attempt counts from 1. What
	// it returns is overwritten once it is sent. An error ends the session with that error.
	Password func(ctx context.Context, command string, attempt int) ([]byte, error)
	// Who is said to others that find the target locked.
	Who string
	// Session names the deployment: an agent of the same one that has not noticed its lost connection yet gives way.
	Session string
	// Lock takes the target's lock for the life of the session; without it the agent changes nothing.
	Lock bool
	// AsUser runs the agent as the login user where it is installed already: for what needs no root.
	AsUser bool
	// Trace, when set, gets what the login shell and sudo say.
	Trace io.Writer

	// For tests, instead of the usual ones.
	silence, pace, longest time.Duration
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
	talk    *talk
	lastID  int
	wait    func() error

	silence time.Duration
	longest time.Duration
	traffic *traffic
}

// Open starts the agent on the target, installs it first where it is missing, answers sudo's or doas's question for a
// password, and returns when the agent has said hello. The session goes on when ctx ends after that. Errors are a [*target.Error], an
// [*ElevateError], a [*StartError], or what opts.Password returned.
func Open(ctx context.Context, d *target.Dialer, addr target.Address, opts Options) (*Session, error) {
	if opts.AsUser {
		s, err := begin(ctx, d, addr, opts, false)
		var elevate *ElevateError
		if !errors.As(err, &elevate) || elevate.Kind != NeedsTerminal {
			return s, err
		}
		// It is not installed there, and what makes root asks on a terminal.
		opts.AsUser = false
	}
	s, err := begin(ctx, d, addr, opts, asksOnTerminal(opts.Elevate))
	var connect *target.Error
	if errors.As(err, &connect) && connect.Kind == target.NoTerminal {
		// What makes root may not ask at all.
		return begin(ctx, d, addr, opts, false)
	}
	return s, err
}

// begin is Open with a terminal on the target, or without.
func begin(ctx context.Context, d *target.Dialer, addr target.Address, opts Options, onTerminal bool) (*Session, error) {
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
	start, line := d.Start, commandLine(opts.Elevate, marker, bootstrapScript(installation, programs, args))
	switch {
	case opts.AsUser:
		line = commandLineTrying(installedScript(installation, programs, args), opts.Elevate, marker, bootstrapScript(installation, programs, args))
	case onTerminal:
		start, line = d.StartOnTerminal, terminalLine(opts.Elevate, marker, bootstrapScript(installation, programs, args))
	}
	channel, err := start(life, addr, line, watch)
	if err != nil {
		stop()
		return nil, err
	}
	s := &Session{address: addr, channel: channel, watch: watch, silence: cmp.Or(opts.silence, SilenceLimit), longest: cmp.Or(opts.longest, answerLimit), traffic: new(traffic)}
	if onTerminal {
		channel.Out = &questions{ReadCloser: channel.Out, marker: marker, asked: watch.asked}
		s.talk = new(talk)
	}
	over := make(chan struct{})
	s.wait = sync.OnceValue(func() error {
		defer stop()
		defer close(over)
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
	go s.stayAlive(over)
	return s, nil
}

// AlivePause is how often ferry tells the agent that it is there, and AliveLimit how long the agent believes it without: a
// machine that is gone without a word must not hold a target's lock.
const (
	AlivePause = 20 * time.Second
	AliveLimit = 90 * time.Second
)

func (s *Session) stayAlive(over <-chan struct{}) {
	ticker := time.NewTicker(AlivePause)
	defer ticker.Stop()
	for {
		select {
		case <-over:
			return
		case <-ticker.C:
			// A lost connection is noticed by the next request.
			_ = s.wire.Write(FrameAlive, nil)
		}
	}
}

// Interactive tells whether the login needed a person, see [target.Channel.Interactive].
func (s *Session) Interactive() bool { return s.channel.Interactive() }

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
	out := bufio.NewReaderSize(heardReader{s.channel.Out, s.traffic}, maxLine)
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
	wait := s.newGreeting(opts)
	defer wait.end()
	for {
		select {
		case <-wait.tick.C:
			if err := wait.look(ctx); err != nil {
				go drainLines(lines, failed)
				return err
			}
		case err := <-wait.found:
			if err = wait.probed(err); err != nil {
				go drainLines(lines, failed)
				return err
			}
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
			wait.heard()
			if err := s.answer(ctx, attempt, opts); err != nil {
				go drainLines(lines, failed)
				return err
			}
			wait.heard()
		case line := <-lines:
			wait.line(line)
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
	case strings.Contains(line, bootstrapUnsafe):
		_, what, _ := strings.Cut(line, bootstrapUnsafe)
		return false, newFolderError(what)
	case strings.Contains(line, bootstrapNoExec):
		_, folder, _ := strings.Cut(line, bootstrapNoExec)
		return false, &FolderError{Folder: run.Clean(folder), NoExec: true}
	case strings.Contains(line, bootstrapNeed):
		if s.Installed {
			return false, &StartError{Text: "the target asked for the agent twice"}
		}
		_, machine, _ := strings.Cut(line, bootstrapNeed)
		return false, s.install(strings.TrimSpace(machine), programs)
	case s.talk != nil && strings.HasSuffix(line, bootstrapRefused):
		s.refused()
		return false, nil
	}
	s.heard(line)
	return false, nil
}

func (s *Session) answer(ctx context.Context, attempt int, opts Options) error {
	command := elevateCommand(opts.Elevate)
	if opts.Password == nil {
		return &ElevateError{Command: command, Kind: PasswordNeeded, Text: command + " asks for a password, and there is nobody to ask"}
	}
	password, err := opts.Password(ctx, command, attempt)
	if err != nil {
		return err
	}
	line := make([]byte, 0, len(password)+1)
	line = append(append(line, password...), '\n')
	clear(password)
	// A failed write is a connection that ends: the reader finds out why.
	_, _ = s.channel.In.Write(line)
	clear(line)
	if s.talk != nil {
		s.talk.answered, s.talk.attempts = true, attempt
	}
	return nil
}

func (s *Session) hello() error {
	end := s.listen(0)
	t, payload, err := s.wire.Read()
	if silent := end(); silent != nil {
		return silent
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errEnded
	}
	if err != nil {
		return &StartError{Text: "the agent's first message cannot be read: " + err.Error()}
	}
	if t != FrameHello {
		return &StartError{Text: "what answered is not ferry's agent"}
	}
	if err := decode(payload, &s.Hello); err != nil {
		return &StartError{Text: "the agent's first message cannot be read: " + err.Error()}
	}
	if s.Hello.Protocol != Protocol {
		return &StartError{Text: fmt.Sprintf("the agent speaks protocol %d, ferry %d", s.Hello.Protocol, Protocol)}
	}
	return nil
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
	return *response.Commit, nil
}

// Switch begins a guarded switch, or finds it again, and returns when it waits to be confirmed or has ended. What it writes
// goes to log, its phases to phase.
func (s *Session) Switch(ctx context.Context, r Request, log io.Writer, phase func(Phase)) (SwitchResult, error) {
	r.Method = MethodSwitch
	return s.guarded(ctx, r, log, phase)
}

// Finish tells a guarded switch r.Verdict, if there is one, and returns when the switch has ended.
func (s *Session) Finish(ctx context.Context, r Request, log io.Writer, phase func(Phase)) (SwitchResult, error) {
	r.Method = MethodFinish
	return s.guarded(ctx, r, log, phase)
}

func (s *Session) guarded(ctx context.Context, r Request, log io.Writer, phase func(Phase)) (SwitchResult, error) {
	response, err := s.request(ctx, r, nil, func(p Progress) { phase(p.Phase) }, log)
	if err != nil || response.Switch == nil {
		return SwitchResult{}, orMissing(err)
	}
	return *response.Switch, nil
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
	end := s.listen(s.limitOf(r.Method))
	s.traffic.waiting.Store(true)
	err := s.wire.WriteJSON(FrameRequest, r)
	s.traffic.waiting.Store(false)
	if err != nil {
		if silent := end(); silent != nil {
			return nil, s.fallenSilent(ctx, silent)
		}
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
	silent := end()
	switch {
	case err != nil && silent != nil:
		return nil, s.fallenSilent(ctx, silent)
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

// fallenSilent ends a connection that was closed because nothing came over it.
func (s *Session) fallenSilent(ctx context.Context, silent error) error {
	if silent == nil {
		return nil
	}
	_ = s.end()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return silent
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
			if err := decode(payload, &p); err != nil {
				return nil, fmt.Errorf("the agent's progress cannot be read: %w", err)
			}
			progress(p)
		case t == FrameResponse:
			response := new(Response)
			if err := decode(payload, response); err != nil {
				return nil, fmt.Errorf("the agent's answer cannot be read: %w", err)
			}
			if response.ID != id {
				return nil, fmt.Errorf("the agent answers request %d instead of %d", response.ID, id)
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
	if errors.As(ended, &connect) && connect.Kind != target.Unknown {
		return connect
	}
	// What ssh has said may be about anything: an agent that is killed ends it with the status that it has for itself.
	return &LostError{Address: s.address, Stderr: s.stderr()}
}

// Close ends the session: the agent sees the end of its input and ends too. Over ssh, nobody waits for that.
func (s *Session) Close() {
	if !s.address.Local() {
		s.channel.Close()
	}
	_ = s.end()
}

func (s *Session) stderr() []string {
	return withoutFarewell(run.LastLines(s.watch.tail.String(), 20))
}

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
