package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/receive"
	"ferry/internal/agent/units"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// Options are the agent's command line.
type Options struct {
	Who     string // who deploys: user@machine
	Session string // names the deployment: a later agent of the same deployment takes its lock over
	Lock    bool   // take the lock; without it nothing is changed
	Program string // the path this agent was started as, for its jobs
	Version string
	// Gone is called when ferry has been silent for agent.AliveLimit while the agent listens; nil: silence does not matter.
	Gone func()
	// Busy, when set, is held while a command runs that must not outlive the agent: whoever ends the agent waits for it.
	Busy sync.Locker

	root       machine.Root
	beginGrace time.Duration // instead of the usual one, for tests
	leaving    time.Duration // the same
	opening    time.Duration // the same
	halted     time.Duration // the same
	beat       time.Duration // the same
	takeOver   time.Duration // the same
}

// factsLimit is how long the programs may take, all together, that are asked about the target before ferry is told of it. What one that
// hangs would have said is not known then.
const factsLimit = 2 * time.Minute

// server is one agent at work.
type server struct {
	opts   Options
	runner *run.Runner
	wire   *agent.Wire
	lock   *lock
	holder *agent.Lock
	// receiver has the target's store.
	receiver *receive.Receiver
	// failedBefore gives the units that were in the failed state when the first path was asked about.
	failedBefore func() []string
	// working says that ferry waits for an answer.
	working atomic.Bool
	// login gives the login that this agent was started by.
	login func() machine.Login
}

// root is where the target's files are.
func (s *server) root() machine.Root { return s.opts.root }

// Serve says hello and answers requests until in ends. It returns nil at the end of in.
func Serve(ctx context.Context, in io.Reader, out io.Writer, opts Options) error {
	s := &server{opts: opts, runner: new(run.Runner)}
	s.failedBefore = func() []string { return units.TroubledBefore(ctx, s.runner, s.root()) }
	s.login = sync.OnceValue(func() machine.Login { return machine.FindLogin(ctx, s.runner, s.root(), os.Getpid()) })
	defer s.close()
	receive.Widen(in)
	if opts.Lock {
		if err := ownFolders(opts.root); err != nil {
			return err
		}
		var err error
		if s.lock, s.holder, err = takeLock(opts.root, opts, time.Now()); err != nil {
			return err
		}
	}
	if err := leaveTerminal(out); err != nil {
		return err
	}
	if _, err := io.WriteString(out, agent.Magic+"\n"); err != nil {
		return err
	}
	in, forget, err := endWith(ctx, in)
	if err != nil {
		return err
	}
	defer forget()
	if opts.Gone != nil {
		in = attend(in, agent.AliveLimit, opts.Gone)
	}
	s.wire = agent.NewWire(in, out)
	s.working.Store(true)
	over := make(chan struct{})
	defer close(over)
	// What comes now may take its time, and ferry is told that it does.
	go s.beat(s.lock, over, cmp.Or(opts.beat, agent.BeatPause), goneGrace)
	if err := s.sayHello(ctx); err != nil {
		return err
	}
	return s.serve(ctx)
}

// sayHello settles what is to be settled before this deployment, and tells ferry what it has come to.
func (s *server) sayHello(ctx context.Context) error {
	if s.lock != nil {
		if s.holder = s.settle(ctx); s.holder != nil {
			s.lock.release()
			s.lock = nil
		}
	}
	s.receiver = receive.New(ctx, receive.Options{
		Root: s.root(), Runner: s.runner, Wire: s.wire, Program: s.opts.Program, Locked: s.lock != nil, Used: s.opts.Lock, Busy: s.opts.Busy,
		LoginUID: func() int { return s.login().UID }, Opening: s.opts.opening, Halted: s.opts.halted,
	})
	limited, stop := context.WithTimeout(ctx, factsLimit)
	lacking := make(chan int, 1)
	go func() { lacking <- s.receiver.Lacking(limited, currentBundle(s.root())) }()
	facts := gatherFacts(limited, s.runner, s.root())
	facts.Lacking = <-lacking
	stop()
	facts.Lock = s.holder
	hello := agent.Hello{Protocol: agent.Protocol, Version: s.opts.Version, Facts: facts, Program: agent.Verbatim(s.opts.Program)}
	hello.Resumed = s.lock != nil && s.lock.resumed
	hello.Parked = s.receiver.Parked()
	if err := s.wire.WriteJSON(agent.FrameHello, hello); err != nil {
		return err
	}
	if s.lock != nil {
		// Another deployment may be about to start a job from its own agent's file, or to look at its job's log.
		removeOldAgents(s.root(), s.opts.Program)
		removeOldJobs(s.root(), time.Now())
		removeOldBack(s.root())
		removeOldAccounts(s.root())
	}
	return nil
}

// serve answers requests until the input ends.
func (s *server) serve(ctx context.Context) error {
	for {
		s.working.Store(false)
		t, payload, err := s.wire.Read()
		s.working.Store(true)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if t != agent.FrameRequest {
			return fmt.Errorf("frame %q where a request was expected", t)
		}
		var r agent.Request
		if err := json.Unmarshal(payload, &r); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		response, stream := s.answer(ctx, r)
		response.ID = r.ID
		if err := s.wire.WriteJSON(agent.FrameResponse, response); err != nil {
			return err
		}
		// After a failure ferry still sends; it stops when it has read why.
		if err := stream.Drain(); err != nil {
			return err
		}
	}
}

func (s *server) close() {
	if s.receiver != nil {
		s.receiver.Close()
	}
	if s.lock != nil {
		s.lock.release()
	}
}

// answer does what r asks. What follows r as a stream has been read when the answer is a success.
func (s *server) answer(ctx context.Context, r agent.Request) (agent.Response, *agent.DataReader) {
	var response agent.Response
	var err error
	stream := agent.EmptyData()
	switch r.Method {
	case agent.MethodMissing:
		stream = s.wire.DataReader()
		// It is needed when what is missing has arrived: until then there is time to ask systemd.
		s.failedBefore = sync.OnceValue(func() []string { return units.TroubledBefore(ctx, s.runner, s.root()) })
		go s.failedBefore()
		go s.login()
		response.Missing, err = s.receiver.Missing(ctx, r, stream)
	case agent.MethodShip:
		stream = s.wire.DataReader()
		if err = errLocked; s.lock != nil {
			response.Ship, err = s.receiver.Ship(ctx, r, stream)
		}
	case agent.MethodActivate:
		if err = s.mayChange(r); err == nil {
			response.Activate, err = s.activate(ctx, r)
		}
	case agent.MethodCommit:
		if err = s.mayChange(r); err == nil {
			response.Commit, err = s.commit(ctx, r)
		}
	case agent.MethodBootOnce:
		if err = s.mayChange(r); err == nil {
			response.BootOnce, err = s.bootOnce(ctx, r)
		}
	case agent.MethodReboot:
		if err = errLocked; s.lock != nil {
			err = s.reboot(ctx, r)
		}
	case agent.MethodBooted:
		response.Booted, err = s.booted(ctx, r)
	case agent.MethodSwitch:
		response.Switch, err = s.beginSwitch(ctx, r)
	case agent.MethodFinish:
		response.Switch, err = s.finish(ctx, r)
	case agent.MethodGenerations:
		response.Generations, err = listGenerations(s.root())
	case agent.MethodLook:
		response.Look = s.look(ctx)
	case agent.MethodHistory:
		response.History, err = readHistory(s.root(), r.Limit)
	case agent.MethodClosure:
		response.Closure, err = s.receiver.Closure(r.Toplevel)
	case agent.MethodOnDisk:
		response.OnDisk, err = s.receiver.OnDisk(ctx, r)
	case agent.MethodRestore:
		stream = s.wire.DataReader()
		if err = errLocked; s.lock != nil {
			response.Ship, err = s.receiver.Restore(ctx, stream)
		}
	case agent.MethodEvaluate:
		response.Evaluate, err = s.evaluate(ctx)
	case agent.MethodDerivations:
		stream = s.wire.DataReader()
		response.Derivations, err = s.derivations(stream)
	case agent.MethodSign:
		stream = s.wire.DataReader()
		err = s.receiver.Sign(ctx, stream)
	case agent.MethodUnits:
		response.Units = units.Loaded(ctx, s.runner, s.root())
	case agent.MethodInspect:
		if r.Ahead {
			stream = s.wire.DataReader()
		}
		err = s.inspect(ctx, r, stream, &response)
	case agent.MethodCheck:
		response.Check, err = s.check(ctx, r)
	case agent.MethodExec:
		response.Exec, err = s.exec(ctx, r)
	default:
		err = fmt.Errorf("unknown request %q", r.Method)
	}
	if err != nil {
		response.Error = responseError(err)
	}
	return response, stream
}

var errLocked = &agent.ResponseError{Kind: agent.KindLocked, Text: "another deployment is at work on this target"}

// mayChange refuses to change a target that another deployment works on, or that is no NixOS.
func (s *server) mayChange(r agent.Request) error {
	if s.lock == nil {
		return errLocked
	}
	// What comes now is not the end of a ship any more.
	s.receiver.EndParked()
	if isNixOS := isNixOS(s.root()); !isNixOS && !r.ForceNotNixOS {
		return &agent.ResponseError{Kind: agent.KindNotNixOS, Text: "this is not a NixOS machine: /etc/NIXOS is missing"}
	} else if !isNixOS && r.Action != "dry-activate" {
		// Without the mark, the system's own switch-to-configuration refuses.
		if err := os.WriteFile(s.root().Path("/etc/NIXOS"), nil, 0o644); err != nil {
			return err
		}
	}
	if r.ActivationLimit < 0 || r.ActivationLimit > maxLimit {
		return fmt.Errorf("a limit of %d seconds is not allowed", r.ActivationLimit)
	}
	paths := []nix.StorePath{r.Toplevel, r.Bundle}
	if r.Method == agent.MethodSwitch && r.Bundle == "" {
		// A generation that somebody returns to may have no bundle any more.
		paths = paths[:1]
	}
	for _, p := range paths {
		if _, err := nix.ParseStorePath(string(p)); err != nil {
			return &agent.ResponseError{Kind: agent.KindInvalid, Text: err.Error()}
		}
		if !s.root().Exists(string(p)) {
			return &agent.ResponseError{Kind: agent.KindInvalid, Text: string(p) + " is not on the target (any more)"}
		}
	}
	return nil
}

// responseError makes of any error what ferry can show.
func responseError(err error) *agent.ResponseError {
	var ready *agent.ResponseError
	if errors.As(err, &ready) {
		return ready
	}
	e := &agent.ResponseError{Text: run.Clean(strings.ReplaceAll(err.Error(), "\n", " "))}
	var failed *run.Error
	if errors.As(err, &failed) {
		e.Command = failed.CommandLine()
		e.Stderr = run.LastLines(failed.Stderr, 20)
		if n := len(e.Stderr); n > 0 {
			e.Text = e.Stderr[n-1]
		}
	}
	if receive.DiskFull(strings.Join(append(e.Stderr, e.Text), "\n")) {
		e.Kind = agent.KindDiskFull
	}
	return e
}
