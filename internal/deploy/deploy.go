// Package deploy takes one node through the steps of a deployment: connect, evaluate, build, ship, activate, commit. It
// tells what happens in events and asks nothing itself.
package deploy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
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
	// Password gives the password that command, such as sudo, asks for on node; see agent.Options.
	Password func(ctx context.Context, node, command string, attempt int) ([]byte, error)
	// Who is said to others that find the target locked: user@machine.
	Who                string
	SubstituteOnTarget bool
	ForceNotNixOS      bool
	// NoDelta ships every path as a whole.
	NoDelta bool
	// Memory, if set, has differences that were made for other nodes.
	Memory *ship.Memory
	// Limits are how long the target waits: for the activation, and for ferry to come back after it. Checks is not used.
	Limits Limits
	// ReplaceUnknown goes on where the target has a system that nobody here knows of.
	ReplaceUnknown bool
	// AllowLockout goes on where the new system may lock out the login that deploys it. Else Ask asks a person; nil: nobody.
	AllowLockout bool
	Ask          func(ctx context.Context, question string) (bool, error)
	// Agree, when set, is asked with what is planned before anything is shipped; false ends the deployment.
	Agree func(ctx context.Context, planned *Planned) (bool, error)
	// Unsafe goes on where the target cannot go back by itself.
	Unsafe bool
	// Reboot says how the target is rebooted into the system, with the action Boot.
	Reboot RebootOptions
	// Leave, when set, tells that a target is being changed: the end of Run's context does not end that any more. The context
	// it gives is done when the user insists on leaving, and the function ends the listening. Without it the end of Run's
	// context has to do.
	Leave func() (leave context.Context, over func())
	// Turn, when set, makes a deployment of several nodes wait for its turn: see [Turn].
	Turn Turn
	// Observe gets every event, one at a time.
	Observe func(Event)
}

// Limits are the times of a switch.
type Limits struct {
	Activation time.Duration // switch-to-configuration may take that long
	Confirm    time.Duration // from its end until ferry must have come back over a new connection
}

// DefaultLimits are what a user gets who does not say anything.
func DefaultLimits() Limits { return Limits{Activation: 15 * time.Minute, Confirm: time.Minute} }

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
	// NeedsReboot says why an action switch was done as boot: only a restart brings the new system. Empty otherwise.
	NeedsReboot string
}

// deployment is one node on its way.
type deployment struct {
	opts Options
	inv  *inventory.Inventory
	node inventory.Node
	job  string
	// what is the word for it in the target's journal, if the action is not.
	what string
	link *link
	// agreed says that the user wants a reboot that has no way back.
	agreed bool

	mu sync.Mutex // one event at a time
}

// Run deploys node. A failure is an [*Error], which says what state the node is left in.
func Run(ctx context.Context, inv *inventory.Inventory, node inventory.Node, opts Options) (Result, error) {
	d, err := newDeployment(inv, node, opts, true)
	if err != nil {
		return Result{}, err
	}
	defer d.link.close()
	ready, facts, err := d.prepare(ctx)
	if err != nil {
		return Result{}, err
	}
	if d.isDone(ready, facts) {
		return Result{Outcome: Nothing, Bundle: ready.bundle, Toplevel: ready.toplevel}, d.mend(ctx, ready, facts)
	}
	if d.opts.Action != DryActivate && !d.opts.ReplaceUnknown {
		if err := surprise(facts, d.project(ctx, ready)); err != nil {
			return Result{}, d.fail(Connect, Unchanged, err)
		}
	}
	needsReboot, err := d.checkReboot(facts, ready)
	if err != nil {
		return Result{}, err
	}
	if err := goesBack(facts, d.opts); err != nil && !d.sameSystem(ready, facts) {
		return Result{}, d.fail(Connect, Unchanged, err)
	}
	if err := d.agree(ctx, ready, facts); err != nil {
		return Result{}, err
	}
	over, err := d.turn(ctx, Ship)
	if err != nil {
		return Result{}, d.fail(Ship, Unchanged, err)
	}
	defer over()
	result, err := d.apply(ctx, ready)
	if err == nil {
		d.keepHere(ctx, result)
	}
	result.NeedsReboot = cmp.Or(result.NeedsReboot, needsReboot)
	return result, err
}

// checkReboot finds out before anything is shipped whether only a reboot can bring the new system, and why: a switch is then
// done as boot.
func (d *deployment) checkReboot(facts agent.Facts, ready built) (reason string, err error) {
	if reason = rebootNeeded(facts, ready.toplevel); reason == "" {
		return "", nil
	}
	switch d.opts.Action {
	case Test:
		return "", d.fail(Activate, Unchanged, hint("this system cannot be tried without a reboot: "+reason, "use --action boot, then restart the target"))
	case Switch:
		d.note("this change needs a reboot: " + reason + "; it is installed, and runs from the next boot on")
		d.opts.Action = Boot
		return reason, nil
	}
	return "", nil
}

// newDeployment makes a deployment of node that is not connected yet. One that does not lock the target only looks.
func newDeployment(inv *inventory.Inventory, node inventory.Node, opts Options, lock bool) (*deployment, error) {
	addresses, err := addressesOf(node)
	if err != nil {
		return nil, &Error{Node: node.Name, Step: Connect, State: Unchanged, Err: err}
	}
	d := &deployment{opts: opts, inv: inv, node: node, job: strings.ToLower(rand.Text())}
	d.link = newLink(opts.Dialer, addresses, agent.Options{
		Elevate: elevation(node), Who: opts.Who, Session: d.job, Lock: lock,
		Password: func(ctx context.Context, command string, attempt int) ([]byte, error) {
			return opts.Password(ctx, node.Name, command, attempt)
		},
	}, d.note)
	return d, nil
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
	over, err := d.turn(ctx, Connect)
	if err != nil {
		return agent.Facts{}, d.fail(Connect, Unchanged, err)
	}
	defer over()
	done := d.start(Connect)
	facts, err := d.link.open(ctx)
	if err == nil {
		err = preflight(facts, d.node.System, d.opts)
	}
	if err != nil {
		return facts, d.fail(Connect, Unchanged, err)
	}
	if facts.Bundle == "" {
		// Later it is known, and ferry check says it.
		for _, c := range forgets(facts) {
			d.note(c.err.Error())
		}
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
		if d.isDone(ready, facts) && facts.Lacking == 0 {
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
	_, err := build(ctx, d.inv, d.node, evaluation, d.opts, d.emit)
	return err
}

// isDone tells whether the target is as the action asks already, bundle and all.
func (d *deployment) isDone(ready built, facts agent.Facts) bool {
	if facts.Bundle != string(ready.bundle) && d.opts.Action.commits() {
		return false
	}
	return d.sameSystem(ready, facts)
}

// mend puts back what the target's disk lacks of a system that is as asked.
func (d *deployment) mend(ctx context.Context, ready built, facts agent.Facts) error {
	if facts.Lacking == 0 {
		return nil
	}
	over, err := d.turn(ctx, Ship)
	if err != nil {
		return d.fail(Ship, Unchanged, err)
	}
	defer over()
	return d.complete(ctx, ready.bundle, true)
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
		if d.opts.Reboot.Timeout > 0 {
			return runs && boots && facts.Booted == string(ready.toplevel)
		}
		return boots
	case Test:
		return runs
	}
	return false
}

// apply changes the target.
func (d *deployment) apply(ctx context.Context, ready built) (Result, error) {
	result := Result{Bundle: ready.bundle, Toplevel: ready.toplevel}
	var err error
	if err := d.askEarly(ctx, ready); err != nil {
		return result, err
	}
	if result.Shipped, err = d.ship(ctx, ready); err != nil {
		return result, err
	}
	if err := d.complete(ctx, ready.bundle, true); err != nil {
		return result, err
	}
	over, err := d.turn(ctx, Activate)
	if err != nil {
		return result, d.fail(Activate, Unchanged, err)
	}
	defer over()
	// The connection may have been lost and made again: what counts is how the target is now.
	facts := d.link.facts()
	if d.sameSystem(ready, facts) {
		result.Outcome = RootMoved
		result.Generation, err = d.commit(ctx, ready, "root", facts)
		return result, err
	}
	if err := d.checkLockout(ctx, ready.toplevel); err != nil {
		return result, err
	}
	switch d.opts.Action {
	case DryActivate:
		result.Outcome = Described
		result.Failed, err = d.activate(ctx, ready, facts)
	case Boot:
		if d.opts.Reboot.Timeout > 0 {
			err = d.rebooted(ctx, ready, facts, &result)
		} else {
			err = d.install(ctx, ready, facts, &result)
		}
	default:
		err = d.guarded(ctx, ready, facts, &result)
	}
	return result, err
}

// install makes the system what boots, and leaves what runs as it is.
func (d *deployment) install(ctx context.Context, ready built, facts agent.Facts, result *Result) error {
	result.Outcome = Committed
	if facts.Current != string(ready.toplevel) {
		result.Outcome = Installed
	}
	var err error
	result.Generation, err = d.commit(ctx, ready, "boot", facts)
	return err
}

func (d *deployment) ship(ctx context.Context, ready built) (ship.Result, error) {
	done := d.start(Ship)
	shipment := &shipment{d: d, root: ready.bundle, whole: map[nix.StorePath]bool{}}
	err := d.link.do(ctx, shipment.run(ctx))
	if err != nil {
		return shipment.total, d.fail(Ship, Unchanged, shipError(err))
	}
	done(shipment.summary())
	return shipment.total, nil
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
	log := &run.LineWriter{Emit: func(line string) { d.emit(Event{Kind: Line, Step: Activate, Text: line}) }}
	var result agent.ActivateResult
	err := d.link.follow(ctx, func(conn *agent.Session) error {
		var err error
		result, err = conn.Activate(ctx, agent.Request{
			Job: d.job, Offset: log.Total, Toplevel: ready.toplevel, Bundle: ready.bundle,
			Action: d.opts.Action.activates(), ForceNotNixOS: d.opts.ForceNotNixOS, ActivationLimit: wholeSeconds(d.opts.Limits.Activation),
		}, log)
		return err
	})
	log.Flush()
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
		e.hints = []string{fmt.Sprintf("it goes on there; its log on the target: /run/ferry/%s-%s/log, for root", d.job, step)}
		if back := backTo(before); back != "" && d.opts.Action != Boot {
			e.hints = append(e.hints, back)
		}
	}
	return e
}

func (d *deployment) commit(ctx context.Context, ready built, action string, before agent.Facts) (int, error) {
	done := d.start(Commit)
	log := &run.LineWriter{Emit: func(line string) { d.emit(Event{Kind: Line, Step: Commit, Text: line}) }}
	var result agent.CommitResult
	err := d.link.follow(ctx, func(conn *agent.Session) error {
		var err error
		result, err = conn.Commit(ctx, agent.Request{
			Job: d.job, Offset: log.Total, Toplevel: ready.toplevel, Bundle: ready.bundle, Action: action, ForceNotNixOS: d.opts.ForceNotNixOS,
			Record: d.record(), ActivationLimit: wholeSeconds(d.opts.Limits.Activation),
		}, log)
		return err
	})
	log.Flush()
	if err != nil {
		return 0, d.interrupted(Commit, err, before, action == "root")
	}
	// A reboot has brought it.
	runs := d.opts.Reboot.Timeout > 0 && before.Current == string(ready.toplevel)
	if err := commitError(result, runs); err != nil {
		state := Unchanged
		if result.Unclean || runs {
			state = Unknown
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

// keepHere keeps the bundle that the node has now by a GC root of this machine. It says what was deployed from here, and is the
// base of the next ship's differences; so what was gone back from does not count. What waits to be deployed is kept as the
// bundle built last. result.Bundle must be what this deployment has shipped, or else be ours (see isOurs).
func (d *deployment) keepHere(ctx context.Context, result Result) {
	link, tried := d.opts.Roots.Deployed(d.inv.File, d.node.Name), d.opts.Roots.Tried(d.inv.File, d.node.Name)
	switch result.Outcome {
	case Committed, Installed, RootMoved:
		_ = os.Remove(tried)
	case Activated:
		link = tried
	default:
		return
	}
	if _, err := os.Lstat(string(result.Bundle)); result.Bundle == "" || err != nil {
		// The target may have what was never here.
		return
	}
	// The node has it, whether or not the user wants an end now.
	err := d.opts.Nix.Root(context.WithoutCancel(ctx), link, result.Bundle)
	if err != nil {
		// That costs a full ship next time, not this deployment.
		d.note("the deployed bundle is not kept on this machine: " + err.Error())
	}
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
