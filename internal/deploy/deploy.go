// Package deploy takes one node through the steps of a deployment: connect, evaluate, build, ship, activate, commit. It
// tells what happens in events and asks nothing itself.
package deploy

import (
	"bytes"
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
	"ferry/internal/ship"
	"ferry/internal/target"
)

// Options say how to deploy.
type Options struct {
	Action Action
	Nix    *nix.Client
	Dialer *target.Dialer
	Roots  Roots
	// Password gives the password that sudo asks for; see agent.Options.
	Password func(ctx context.Context, node string, attempt int) ([]byte, error)
	// Who is said to others that find the target locked: user@machine.
	Who                string
	SubstituteOnTarget bool
	ForceNotNixOS      bool
	// Observe gets every event, one at a time.
	Observe func(Event)
}

// Outcome is what a deployment that went well did.
type Outcome string

// The outcomes.
const (
	Nothing   Outcome = "nothing to do"      // the target is as asked already
	RootMoved Outcome = "configuration kept" // same system, another bundle: only the GC root has moved
	Activated Outcome = "activated"          // it runs, and is not what boots
	Committed Outcome = "committed"          // it runs and is what boots
	Installed Outcome = "installed"          // it is what boots, and does not run yet
	Described Outcome = "described"          // dry-activate: nothing has changed
)

// Result is a deployment that went well.
type Result struct {
	Outcome    Outcome
	Bundle     nix.StorePath
	Toplevel   nix.StorePath
	Generation int // of the target's system profile, when committed
	Shipped    ship.Result
	Failed     []string // units that failed
}

// deployment is one node on its way.
type deployment struct {
	opts Options
	inv  *inventory.Inventory
	node inventory.Node
	job  string
	link *link

	mu sync.Mutex // one event at a time
}

// Run deploys node. A failure is an [*Error], which says what state the node is left in.
func Run(ctx context.Context, inv *inventory.Inventory, node inventory.Node, opts Options) (Result, error) {
	address, err := target.ParseAddress(node.Target)
	if err != nil {
		return Result{}, &Error{Node: node.Name, Step: Connect, State: Unchanged, Err: err}
	}
	d := &deployment{opts: opts, inv: inv, node: node, job: strings.ToLower(rand.Text())}
	d.link = newLink(opts.Dialer, address, agent.Options{
		Elevate: elevation(node), Who: opts.Who, Session: d.job, Lock: true,
		Password: func(ctx context.Context, attempt int) ([]byte, error) { return opts.Password(ctx, node.Name, attempt) },
	}, d.note)
	defer d.link.close()
	ready, facts, err := d.prepare(ctx)
	if err != nil {
		return Result{}, err
	}
	if d.isDone(ready, facts) {
		return Result{Outcome: Nothing, Bundle: ready.bundle, Toplevel: ready.toplevel}, nil
	}
	return d.apply(ctx, ready)
}

// built is what evaluate and build leave.
type built struct {
	bundle, toplevel nix.StorePath
}

// prepare connects, and meanwhile evaluates and builds. The first of the two that fails ends the other.
func (d *deployment) prepare(ctx context.Context) (built, agent.Facts, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	connected := make(chan agent.Facts, 1)
	var group sync.WaitGroup
	var facts agent.Facts
	var ready built
	group.Go(func() {
		var err error
		if facts, err = d.connect(ctx); err != nil {
			cancel(err)
			return
		}
		connected <- facts
	})
	group.Go(func() {
		var err error
		if ready, err = d.evaluateAndBuild(ctx, connected); err != nil {
			cancel(err)
		}
	})
	group.Wait()
	return ready, facts, context.Cause(ctx)
}

func (d *deployment) connect(ctx context.Context) (agent.Facts, error) {
	done := d.start(Connect)
	facts, err := d.link.open(ctx)
	if err == nil {
		err = preflight(facts, d.node.System, d.opts)
	}
	if err != nil {
		return facts, d.fail(Connect, Unchanged, err)
	}
	text := facts.Host
	if facts.Nix != "" {
		text += ", Nix " + run.Clean(facts.Nix)
	}
	done(run.Clean(text))
	return facts, nil
}

func (d *deployment) evaluateAndBuild(ctx context.Context, connected <-chan agent.Facts) (built, error) {
	evaluation, err := d.evaluate(ctx)
	if err != nil {
		return built{}, err
	}
	ready := built{evaluation.BundleOut, evaluation.ToplevelOut}
	select {
	case facts := <-connected:
		if d.isDone(ready, facts) {
			return ready, nil
		}
	default:
		// Still connecting, or waiting for a password: the build need not wait for that.
	}
	return ready, d.build(ctx, evaluation)
}

func (d *deployment) evaluate(ctx context.Context) (*inventory.Evaluation, error) {
	return evaluate(ctx, d.inv, d.node, d.emit)
}

func (d *deployment) build(ctx context.Context, evaluation *inventory.Evaluation) error {
	_, err := build(ctx, d.inv, d.node, evaluation, d.opts.Nix, d.opts.Roots, d.emit)
	return err
}

// isDone tells whether the target is as the action asks already, bundle and all.
func (d *deployment) isDone(ready built, facts agent.Facts) bool {
	if facts.Bundle != string(ready.bundle) && d.opts.Action.commits() {
		return false
	}
	return d.sameSystem(ready, facts)
}

// sameSystem tells whether the target runs and boots what the action asks already. A system that was not committed to the end
// counts as another one: its activation may have failed in the middle, and its boot loader may not be written.
func (d *deployment) sameSystem(ready built, facts agent.Facts) bool {
	if facts.Committed != string(ready.toplevel) {
		return false
	}
	runs, boots := facts.Current == string(ready.toplevel), facts.Profile == string(ready.toplevel)
	switch d.opts.Action {
	case Switch:
		return runs && boots
	case Boot:
		return boots
	case Test:
		return runs
	}
	return false
}

// apply changes the target. The place of arming a way back is before activate, that of confirming after it.
func (d *deployment) apply(ctx context.Context, ready built) (Result, error) {
	result := Result{Bundle: ready.bundle, Toplevel: ready.toplevel}
	var err error
	if result.Shipped, err = d.ship(ctx, ready); err != nil {
		return result, err
	}
	// The connection may have been lost and made again: what counts is how the target is now.
	facts := d.link.facts()
	if d.sameSystem(ready, facts) {
		result.Outcome = RootMoved
		result.Generation, err = d.commit(ctx, ready, "root", facts)
		return result, err
	}
	if d.opts.Action.activates() != "" {
		if result.Failed, err = d.activate(ctx, ready, facts); err != nil {
			return result, err
		}
		result.Outcome = Activated
	}
	if d.opts.Action == DryActivate {
		result.Outcome = Described
	}
	if d.opts.Action.commits() {
		result.Outcome = Committed
		if d.opts.Action == Boot && facts.Current != string(ready.toplevel) {
			result.Outcome = Installed
		}
		if result.Generation, err = d.commit(ctx, ready, "boot", facts); err != nil {
			return result, err
		}
	}
	return result, nil
}

func (d *deployment) ship(ctx context.Context, ready built) (ship.Result, error) {
	done := d.start(Ship)
	var result ship.Result
	var total ship.Result
	err := d.link.do(ctx, func(session *agent.Session) error {
		local, err := d.opts.Nix.OpenServe(ctx)
		if err != nil {
			return err
		}
		defer local.Close()
		plan, err := ship.MakePlan(ctx, local.Serve, session, ready.bundle, d.opts.SubstituteOnTarget)
		if err != nil {
			return err
		}
		if len(plan.Missing) == 0 {
			return nil
		}
		if err := fits(session.Hello.Facts, plan.Bytes); err != nil {
			return err
		}
		result, err = plan.Send(ctx, session, func(p ship.Progress) { d.emit(Event{Kind: Shipping, Step: Ship, Ship: p}) })
		total.Paths += result.Paths
		total.Bytes += result.Bytes
		total.Wire += result.Wire
		total.Duration += result.Duration
		total.Peak = max(total.Peak, result.Peak)
		return err
	})
	if err != nil {
		return total, d.fail(Ship, Unchanged, shipError(err))
	}
	text := "everything is there already"
	if total.Paths > 0 {
		text = fmt.Sprintf("%s as %s, %s", Size(total.Bytes), Size(total.Wire), Count(total.Paths, "path"))
	}
	done(text)
	return total, nil
}

func shipError(err error) error {
	var response *agent.ResponseError
	if errors.As(err, &response) && response.Kind == agent.KindDiskFull {
		return &hinted{text: "the target's disk is full: " + response.Text, err: err, hints: []string{
			"on the target: sudo nix-collect-garbage --delete-older-than 30d; then run this again, what has arrived is kept",
		}}
	}
	return err
}

// activate runs the new system on the target and gives the units that failed.
func (d *deployment) activate(ctx context.Context, ready built, before agent.Facts) ([]string, error) {
	done := d.start(Activate)
	log := &lineWriter{emit: func(line string) { d.emit(Event{Kind: Line, Step: Activate, Text: line}) }}
	var result agent.ActivateResult
	err := d.link.follow(ctx, func(session *agent.Session) error {
		var err error
		result, err = session.Activate(ctx, agent.Request{
			Job: d.job, Offset: log.total, Toplevel: ready.toplevel, Bundle: ready.bundle,
			Action: d.opts.Action.activates(), ForceNotNixOS: d.opts.ForceNotNixOS,
		}, log)
		return err
	})
	log.flush()
	if err != nil {
		return nil, d.interrupted(Activate, err, before, d.opts.Action == DryActivate)
	}
	if err := activationError(result, d.opts.Action, before, string(ready.toplevel)); err != nil {
		return result.Failed, d.fail(Activate, stateAfter(result, d.opts.Action, before, string(ready.toplevel)), err)
	}
	done("")
	return result.Failed, nil
}

// interrupted is the error of a step that may have changed the target and whose end is not known here. A harmless one changes
// neither what runs nor what boots.
func (d *deployment) interrupted(step Step, err error, before agent.Facts, harmless bool) error {
	e := d.fail(step, Unknown, err)
	if harmless {
		e.State = Unchanged
		return e
	}
	var response *agent.ResponseError
	var forgotten *forgottenError
	switch {
	case errors.As(err, &response):
		// The agent refused, or could not begin.
		if step == Activate || d.opts.Action == Boot {
			e.State = Unchanged
		}
	case errors.As(err, &forgotten):
		if f := forgotten.facts; f.Current == before.Current && f.Profile == before.Profile && f.Bundle == before.Bundle {
			e.State = Unchanged
			e.Err = hint(err.Error()+"; it runs and boots what it did before", "run the same command again: what has arrived is kept")
		}
	case agent.IsLost(err), errors.Is(err, context.Canceled):
		if errors.Is(err, context.Canceled) {
			e.Err = &hinted{text: "interrupted", err: err}
		}
		e.hints = []string{fmt.Sprintf("it goes on there; its log on the target: /run/ferry/%s-%s/log", d.job, step)}
		if back := backTo(before); back != "" && d.opts.Action != Boot {
			e.hints = append(e.hints, back)
		}
	}
	return e
}

func (d *deployment) commit(ctx context.Context, ready built, action string, before agent.Facts) (int, error) {
	done := d.start(Commit)
	log := &lineWriter{emit: func(line string) { d.emit(Event{Kind: Line, Step: Commit, Text: line}) }}
	var result agent.CommitResult
	// What has been shipped is there, whatever becomes of the commit: it is the base of the next ship's differences.
	kept := make(chan error, 1)
	go func() { kept <- d.opts.Nix.Root(ctx, d.opts.Roots.Deployed(d.inv.File, d.node.Name), ready.bundle) }()
	defer func() {
		// A root that cannot be made here costs a full ship next time, not this deployment.
		if err := <-kept; err != nil && ctx.Err() == nil {
			d.note("the deployed bundle is not kept on this machine: " + err.Error())
		}
	}()
	err := d.link.follow(ctx, func(session *agent.Session) error {
		var err error
		result, err = session.Commit(ctx, agent.Request{
			Job: d.job, Offset: log.total, Toplevel: ready.toplevel, Bundle: ready.bundle, Action: action, ForceNotNixOS: d.opts.ForceNotNixOS,
		}, log)
		return err
	})
	log.flush()
	if err != nil {
		return 0, d.interrupted(Commit, err, before, action == "root")
	}
	if err := commitError(result, d.opts.Action); err != nil {
		state := Unknown
		if action == "root" || d.opts.Action == Boot && result.Status > 0 && result.Error == "" {
			state = Unchanged
		}
		return 0, d.fail(Commit, state, err)
	}
	text := "only the configuration's root has moved"
	if action == "boot" {
		text = fmt.Sprintf("generation %d is what boots", result.Generation)
	}
	done(text)
	return result.Generation, nil
}

func (d *deployment) start(step Step) (done func(text string)) {
	begin := time.Now()
	d.emit(Event{Kind: Started, Step: step})
	return func(text string) { d.emit(Event{Kind: Finished, Step: step, Text: text, Duration: time.Since(begin)}) }
}

func (d *deployment) note(text string) { d.emit(Event{Kind: Note, Text: run.Clean(text)}) }

func (d *deployment) emit(e Event) {
	e.Node = d.node.Name
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opts.Observe(e)
}

func (d *deployment) fail(step Step, state State, err error) *Error {
	var ready *Error
	if errors.As(err, &ready) {
		return ready
	}
	return &Error{Node: d.node.Name, Step: step, State: state, Err: err}
}

// lineWriter cuts what is written to it into lines, cleans them, and counts the bytes.
type lineWriter struct {
	emit  func(string)
	total int64
	held  []byte
	// skip says that the rest of the line is not kept: it is too long.
	skip bool
}

// maxHeld is how much is kept of a line, in bytes: a target may send an endless one.
const maxHeld = 16 << 10

func (l *lineWriter) Write(p []byte) (int, error) {
	l.total += int64(len(p))
	l.held = append(l.held, p...)
	for {
		line, rest, found := bytes.Cut(l.held, []byte{'\n'})
		if !found {
			break
		}
		l.line(line)
		l.held = rest
	}
	if len(l.held) > maxHeld {
		l.line(l.held)
		l.held, l.skip = nil, true
	}
	return len(p), nil
}

// flush emits a last line that has no end.
func (l *lineWriter) flush() {
	if len(l.held) > 0 {
		l.line(l.held)
		l.held = nil
	}
}

// line emits a whole line, or the beginning of one that is too long.
func (l *lineWriter) line(text []byte) {
	if !l.skip {
		// A carriage return redraws the line: what stood before it is not what a person would see.
		text = bytes.TrimRight(text, "\r")
		l.emit(run.Clean(string(text[bytes.LastIndexByte(text, '\r')+1:])))
	}
	l.skip = false
}
