// Package server is the agent's side of the protocol of package agent: it runs as root on a target, for one deployment, and
// ends with its input. Everything that must outlive a lost connection runs in a job of its own (see Job).
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/run"
)

// Options are the agent's command line.
type Options struct {
	Who     string // who deploys: user@machine
	Session string // names the deployment: a later agent of the same deployment takes its lock over
	Lock    bool   // take the lock; without it nothing is changed
	Program string // the path this agent was started as, for its jobs
	Version string
}

// server is one agent at work.
type server struct {
	opts   Options
	runner *run.Runner
	wire   *agent.Wire
	lock   *lock
	holder *agent.Lock
	store  *store
}

// Serve says hello and answers requests until in ends. It returns nil at the end of in.
func Serve(ctx context.Context, in io.Reader, out io.Writer, opts Options) error {
	s := &server{opts: opts, runner: new(run.Runner)}
	defer s.close()
	if opts.Lock {
		var err error
		if s.lock, s.holder, err = takeLock(lockFile, opts, time.Now()); err != nil {
			return err
		}
	}
	s.store = openStore(ctx, s.runner)
	if _, err := io.WriteString(out, agent.Magic+"\n"); err != nil {
		return err
	}
	s.wire = agent.NewWire(in, out)
	facts := gatherFacts(ctx, s.runner, root{})
	facts.Lock = s.holder
	hello := agent.Hello{Protocol: agent.Protocol, Version: opts.Version, Facts: facts, Resumed: s.lock != nil && s.lock.resumed}
	if err := s.wire.WriteJSON(agent.FrameHello, hello); err != nil {
		return err
	}
	removeOldAgents(opts.Program)
	for {
		t, payload, err := s.wire.Read()
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
		response := s.answer(ctx, r)
		response.ID = r.ID
		if err := s.wire.WriteJSON(agent.FrameResponse, response); err != nil {
			return err
		}
	}
}

func (s *server) close() {
	if s.store != nil {
		s.store.close()
	}
	if s.lock != nil {
		s.lock.release()
	}
}

func (s *server) answer(ctx context.Context, r agent.Request) agent.Response {
	var response agent.Response
	var err error
	switch r.Method {
	case agent.MethodMissing:
		response.Missing, err = s.missing(r)
	case agent.MethodShip:
		response.Ship, err = s.ship(r)
	case agent.MethodActivate:
		if err = s.mayChange(r); err == nil {
			response.Activate, err = s.activate(ctx, r)
		}
	case agent.MethodCommit:
		if err = s.mayChange(r); err == nil {
			response.Commit, err = s.commit(ctx, r)
		}
	default:
		err = fmt.Errorf("unknown request %q", r.Method)
	}
	if err != nil {
		response.Error = responseError(err)
	}
	return response
}

// mayChange refuses to change a target that another deployment works on, or that is no NixOS.
func (s *server) mayChange(r agent.Request) error {
	if s.lock == nil {
		return &agent.ResponseError{Kind: agent.KindLocked, Text: "another deployment is at work on this target"}
	}
	if isNixOS := (root{}).isNixOS(); !isNixOS && !r.ForceNotNixOS {
		return &agent.ResponseError{Kind: agent.KindNotNixOS, Text: "this is not a NixOS machine: /etc/NIXOS is missing"}
	} else if !isNixOS && r.Action != "dry-activate" {
		// Without the mark, the system's own switch-to-configuration refuses.
		if err := os.WriteFile("/etc/NIXOS", nil, 0o644); err != nil {
			return err
		}
	}
	for _, p := range []string{string(r.Toplevel), string(r.Bundle)} {
		if p != "" && !exists(p) {
			return &agent.ResponseError{Kind: agent.KindInvalid, Text: p + " is not on the target (any more)"}
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
	if strings.Contains(strings.Join(append(e.Stderr, e.Text), "\n"), "No space left on device") {
		e.Kind = agent.KindDiskFull
	}
	return e
}
