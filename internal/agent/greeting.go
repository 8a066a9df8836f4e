package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"ferry/internal/run"
	"ferry/internal/target"
)

// Until the agent speaks, time is counted in seconds in which ferry runs and nothing happens.
const (
	// quietSeconds is how long a login shell, sudo or what asks for its password there may say nothing.
	quietSeconds = 120
	// probeSeconds is when ferry finds out whether the login shell runs at all what it is told to.
	probeSeconds = 3
	// readSeconds is how long a login shell that reads is waited for after that: it may read for a moment only.
	readSeconds = 5
	// slowest is how many bytes a second a link takes at least: what was written may still be on its way.
	slowest = 4 << 10
	// uploadPiece is how much is written at once.
	uploadPiece = 32 << 10
)

// greeting waits for the agent's first line, and finds out what is wrong if it does not come.
type greeting struct {
	session *Session
	tick    *time.Ticker
	found   chan error // what the probe has found
	stop    context.CancelFunc

	login, quiet, allowed int
	last                  int64
	runs                  bool // the command line is at work: something of it was heard
	reads                 *ShellError
}

func (s *Session) newGreeting(opts Options) *greeting {
	return &greeting{session: s, tick: time.NewTicker(cmp.Or(opts.pace, time.Second)), found: make(chan error, 1), allowed: quietSeconds}
}

func (g *greeting) end() {
	g.tick.Stop()
	if g.stop != nil {
		g.stop()
	}
}

// heard says that ferry's command line is at work there.
func (g *greeting) heard() { g.quiet, g.runs = 0, true }

// line takes notice of one that has come.
func (g *greeting) line(text string) {
	g.quiet = 0
	if strings.Contains(text, "ferry-bootstrap: ") || strings.HasSuffix(text, g.session.watch.marker) {
		g.heard()
	}
}

// probed takes what the probe has found.
func (g *greeting) probed(err error) error {
	var shell *ShellError
	if errors.As(err, &shell) && shell.reads {
		g.reads, g.quiet = shell, 0
		return nil
	}
	return err
}

// look is called every second.
func (g *greeting) look(ctx context.Context) error {
	s := g.session
	if !s.channel.LoggedIn() {
		if g.login++; g.login > target.LoginSeconds && !s.channel.Interactive() {
			return target.SlowLogin(s.address)
		}
		return nil
	}
	// What is sent goes on after it has been written.
	if now := s.traffic.bytes.Load(); now != g.last {
		g.quiet, g.allowed = 0, max(g.allowed, quietSeconds+int(now-g.last)/slowest)
		g.last = now
	}
	g.quiet++
	if g.quiet >= probeSeconds && !g.runs && g.stop == nil && !s.address.Local() {
		probing, stop := context.WithCancel(context.WithoutCancel(ctx))
		g.stop = stop
		go func() { g.found <- probe(probing, s.channel, s.address) }()
	}
	if g.reads != nil && !g.runs && g.quiet > readSeconds {
		return g.reads
	}
	if g.quiet > g.allowed {
		return &StartError{Text: fmt.Sprintf("nothing was heard from the login shell on %s, or what makes root there, for %d seconds", s.address, g.allowed), Stderr: s.stderr()}
	}
	return nil
}

// install sends the agent that a machine asks for.
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
		go s.upload(packed)
		return nil
	}
	return &StartError{Text: fmt.Sprintf("the target asked for an agent for %q, which ferry did not offer", run.Clean(machine))}
}

// upload sends the agent. It goes on while the lines are read: a target that takes nothing more is noticed.
func (s *Session) upload(packed []byte) {
	left := append(strconv.AppendInt(nil, int64(len(packed)), 10), '\n')
	for left = append(left, packed...); len(left) > 0; {
		n, err := s.channel.In.Write(left[:min(len(left), uploadPiece)])
		if err != nil {
			// A connection that ends: the reader finds out why.
			return
		}
		s.traffic.bytes.Add(int64(n))
		left = left[n:]
	}
}

// What a probe sends, and what tells who has taken it.
const (
	probeInput = "echo ferry-was-eaten"
	probeEaten = "ferry-was-eaten"
	probeRan   = "ferry-was-run"
)

// probeLine says that it runs, and then all that is left of its input.
const probeLine = "echo " + probeRan + "; cat"

// maxProbe is how much of a probe's output is read.
const maxProbe = 64 << 10

// probe runs a command over the connection that is there, with a line of input that it should find untouched, and tells what a
// login shell does instead of running it; nil: it runs commands, or that cannot be found out. How slow it is does not matter.
func probe(ctx context.Context, channel *target.Channel, address target.Address) error {
	c, err := channel.Command(ctx, probeLine, io.Discard)
	if err != nil {
		return nil
	}
	defer func() {
		c.Close()
		_ = c.Wait()
	}()
	_, _ = io.WriteString(c.In, probeInput+"\n")
	_ = c.In.Close()
	said, _ := io.ReadAll(io.LimitReader(c.Out, maxProbe))
	if ctx.Err() != nil {
		return nil
	}
	return probed(string(said), address)
}

// probed reads what has come of a probe.
func probed(said string, address target.Address) error {
	_, after, ran := strings.Cut(said, probeRan)
	echoed := strings.Contains(said, probeInput)
	executed := strings.Contains(strings.ReplaceAll(said, probeInput, ""), probeEaten)
	switch {
	case ran && strings.Contains(after, probeInput):
		return nil
	case executed:
		return &ShellError{Address: address, what: "starts another shell instead of running what ferry asks for, as `exec zsh` does in ~/.bashrc"}
	case ran, echoed:
		return &ShellError{Address: address, reads: true, what: "reads the input that is ferry's, as `read` does in ~/.bashrc"}
	}
	return nil
}

// ShellError is a login shell that does something else with a command than running it.
type ShellError struct {
	Address target.Address
	what    string
	reads   bool
}

func (e *ShellError) Error() string {
	return fmt.Sprintf("the login shell on %s %s", e.Address, e.what)
}

// Hints says what the user can do about it.
func (e *ShellError) Hints() []string {
	return []string{"on the target, put this line at the top of ~/.bashrc (or ~/.zshenv), so that the rest is for people only: case $- in *i*) ;; *) return;; esac"}
}
