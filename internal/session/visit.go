package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// Visit is one node that a session works on: it tells the node's events and makes its errors.
type Visit struct {
	Session
	Inventory *inventory.Inventory
	Node      inventory.Node
	// Job is the name that the target knows the work by.
	Job string
	// Link leads to the node's agent, once it is opened; nil for a visit that [Session.At] has made.
	Link *Link

	mu sync.Mutex // one event at a time
}

// Access is what a visit may do on its target.
type Access int

// The degrees.
const (
	Reading   Access = iota // as the login user, where the agent is there already
	Shared                  // as root
	Exclusive               // as root, and nobody else deploys meanwhile
)

// At is a visit to a node that needs no connection to it.
func (s Session) At(inv *inventory.Inventory, node inventory.Node) *Visit {
	return &Visit{Session: s, Inventory: inv, Node: node, Job: strings.ToLower(rand.Text())}
}

// Visit is a visit to a node that is not connected yet. Its user closes it.
func (s Session) Visit(inv *inventory.Inventory, node inventory.Node, access Access) (*Visit, error) {
	v := s.At(inv, node)
	addresses, err := addressesOf(node)
	if err != nil {
		return nil, v.Fail(Connect, Unchanged, err)
	}
	v.Link = newLink(s.Dialer, addresses, s.agentOptions(node, v.Job, access), v.Note)
	return v, nil
}

// Close ends the connection, if there is one.
func (v *Visit) Close() {
	if v.Link != nil {
		v.Link.Close()
	}
}

// Built is what a node's evaluation and build leave.
type Built struct {
	Bundle, Toplevel nix.StorePath
	System           string // what it runs on
}

// Prepare connects, and meanwhile evaluates and builds. The first of the two that fails ends the other. Where the target is
// connected to before there is anything to build, needless tells whether the build can be left out. A failure is an [*Error].
func (v *Visit) Prepare(ctx context.Context, forceNotNixOS bool, needless func(Built, agent.Facts) bool) (Built, agent.Facts, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	connected := make(chan agent.Facts, 1)
	var group sync.WaitGroup
	var facts agent.Facts
	var ready Built
	group.Go(func() {
		var err error
		if facts, err = v.Connect(ctx, forceNotNixOS); err != nil {
			cancel(err)
			return
		}
		connected <- facts
	})
	group.Go(func() {
		var err error
		if ready, err = v.evaluateAndBuild(ctx, connected, needless); err != nil {
			cancel(err)
		}
	})
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		// It is none of theirs where the session was ended first.
		return Built{}, agent.Facts{}, v.Fail(Connect, Unchanged, err)
	}
	return ready, facts, v.runsThere(ready, facts)
}

// runsThere is the error for a system that the target does not run, where only its evaluation has said what it is built for.
func (v *Visit) runsThere(ready Built, facts agent.Facts) error {
	if v.Node.System != "" || runsOn(ready.System, facts) {
		return nil
	}
	return v.Fail(Connect, Unchanged, wrongPlatform(ready.System, facts, fmt.Sprintf("in its configuration: nixpkgs.hostPlatform = %q;", facts.System)))
}

// Connect makes the first connection, and finds out whether the target can be worked on at all. A failure is an [*Error].
func (v *Visit) Connect(ctx context.Context, forceNotNixOS bool) (agent.Facts, error) {
	over, err := v.WaitTurn(ctx, Connect)
	if err != nil {
		return agent.Facts{}, err
	}
	defer over()
	done := v.Start(Connect)
	facts, err := v.Link.Open(ctx)
	if err == nil {
		err = preflight(facts, v.Node.System, forceNotNixOS)
	}
	if err != nil {
		return facts, v.Fail(Connect, Unchanged, err)
	}
	if facts.Bundle == "" {
		// Later it is known, and ferry check says it.
		for _, c := range Forgets(facts) {
			v.Note(c.Err.Error())
		}
	}
	text := facts.Host
	if facts.Nix != "" {
		text += ", Nix " + run.Clean(facts.Nix)
	}
	done(run.Clean(text))
	return facts, nil
}

// Reach makes the first connection, whatever the target is. A failure is an [*Error].
func (v *Visit) Reach(ctx context.Context) (agent.Facts, error) {
	done := v.Start(Connect)
	facts, err := v.Link.Open(ctx)
	if err != nil {
		return facts, v.Fail(Connect, Unchanged, err)
	}
	done(run.Clean(facts.Host))
	return facts, nil
}

func (v *Visit) evaluateAndBuild(ctx context.Context, connected <-chan agent.Facts, needless func(Built, agent.Facts) bool) (Built, error) {
	evaluation, err := v.Evaluate(ctx)
	if err != nil {
		return Built{}, err
	}
	ready := Built{evaluation.BundleOut, evaluation.ToplevelOut, evaluation.System}
	select {
	case facts := <-connected:
		if err := v.runsThere(ready, facts); err != nil {
			return Built{}, err
		}
		if needless(ready, facts) && facts.Lacking == 0 {
			return ready, nil
		}
	default:
		// Still connecting, or waiting for a password: the build need not wait for that.
	}
	_, err = v.Build(ctx, evaluation)
	return ready, err
}

// Start tells that a step has begun; done tells that it is over and went well.
func (v *Visit) Start(step Step) (done func(text string)) {
	begin := time.Now()
	v.Emit(Event{Kind: Started, Step: step})
	return func(text string) { v.Emit(Event{Kind: Finished, Step: step, Text: text, Duration: time.Since(begin)}) }
}

// Lines tells what is written to it line by line, as a step's.
func (v *Visit) Lines(step Step) *run.LineWriter {
	return &run.LineWriter{Emit: func(line string) { v.Emit(Event{Kind: Line, Step: step, Text: line}) }}
}

// Note tells something that the user should know, and is no error.
func (v *Visit) Note(text string) { v.Emit(Event{Kind: Note, Text: run.Clean(text)}) }

// Emit tells an event of the node.
func (v *Visit) Emit(e Event) {
	e.Node = v.Node.Name
	v.mu.Lock()
	defer v.mu.Unlock()
	v.Observe(e)
}

// Fail makes the error of a step; one that is an [*Error] already stays what it is.
func (v *Visit) Fail(step Step, state State, err error) *Error {
	var ready *Error
	if errors.As(err, &ready) {
		return ready
	}
	return &Error{Node: v.Node.Name, Step: step, State: state, Err: err}
}

// WaitTurn waits for the node's turn to begin a step. A failure is an [*Error].
func (v *Visit) WaitTurn(ctx context.Context, step Step) (over func(), err error) {
	if v.Turn == nil {
		return func() {}, nil
	}
	over, err = v.Turn(ctx, v.Node.Name, step)
	if err != nil {
		return nil, v.Fail(step, Unchanged, err)
	}
	return over, nil
}
