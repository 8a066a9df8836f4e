package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/preview"
	"ferry/internal/session"
	"ferry/internal/ship"
)

// Options say how to deploy.
type Options struct {
	Switching
	Action action.Action
	// SubstituteOnTarget lets the target fetch what its own caches have.
	SubstituteOnTarget bool
	// ForceNotNixOS deploys to a machine that is not NixOS, and marks it as one.
	ForceNotNixOS bool
	// NoDelta ships every path as a whole.
	NoDelta bool
	// Memory, if set, has differences that were made for other nodes.
	Memory *ship.Memory
	// ReplaceUnknown goes on where the target has a system that nobody here knows of.
	ReplaceUnknown bool
	// Agree, when set, is asked with what is planned before anything is shipped; false ends the deployment.
	Agree func(ctx context.Context, planned *preview.Planned) (bool, error)
	// Reboot says how the target is rebooted into the system, with the action boot.
	Reboot RebootOptions
}

func (o Options) reboots() bool { return o.Reboot.Timeout > 0 }

// unguarded tells why the target could not roll back by itself; nil if it can, or need not.
func (o Options) unguarded(facts agent.Facts) error {
	if o.Unsafe || o.Action.Activates() != "test" {
		return nil
	}
	return session.RollsBack(facts)
}

// Switching says how a target that runs is changed.
type Switching struct {
	// Limits are how long the target waits: for the activation, and for ferry to come back after it.
	Limits Limits
	// AllowLockout goes on where the new system may lock out the login that deploys it. Else Ask asks a person; nil: nobody.
	AllowLockout bool
	Ask          func(ctx context.Context, question string) (bool, error)
	// Unsafe goes on where the target cannot roll back by itself.
	Unsafe bool
	Leave  Leave
}

// Leave, when it is not nil, tells that a target is being changed: the end of a command's context does not end that any more. The
// context it gives is done when the user insists on leaving, and over ends the listening. Without it the end of the command's
// context has to do.
type Leave func() (leave context.Context, over func())

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
	*session.Visit
	opts Options
	// what is the word for it in the target's journal, if the action is not.
	what string
	// agreed says that the user wants a reboot that cannot be rolled back.
	agreed bool
}

// Run deploys node. A failure is an [*session.Error], which says what state the node is left in.
func Run(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, opts Options) (Result, error) {
	v, err := with.Visit(inv, node, session.Exclusive)
	if err != nil {
		return Result{}, err
	}
	defer v.Close()
	d := &deployment{Visit: v, opts: opts}
	ready, facts, err := d.Prepare(ctx, opts.ForceNotNixOS, d.isDone)
	if err != nil {
		return Result{}, err
	}
	if d.isDone(ready, facts) {
		return Result{Outcome: Nothing, Bundle: ready.Bundle, Toplevel: ready.Toplevel}, d.mend(ctx, ready, facts)
	}
	if d.opts.Action != action.DryActivate && !d.opts.ReplaceUnknown {
		if err := session.Surprise(facts, d.Known(ctx, ready.Toplevel)); err != nil {
			return Result{}, d.Fail(session.Connect, session.Unchanged, err)
		}
	}
	needsReboot, err := d.checkReboot(facts, ready)
	if err != nil {
		return Result{}, err
	}
	if err := d.opts.unguarded(facts); err != nil && !d.sameSystem(ready, facts) {
		return Result{}, d.Fail(session.Connect, session.Unchanged, err)
	}
	if err := d.agree(ctx, ready, facts); err != nil {
		return Result{}, err
	}
	over, err := d.WaitTurn(ctx, session.Ship)
	if err != nil {
		return Result{}, err
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
func (d *deployment) checkReboot(facts agent.Facts, ready session.Built) (reason string, err error) {
	if reason = preview.NeedsReboot(facts, ready.Toplevel); reason == "" {
		return "", nil
	}
	switch d.opts.Action {
	case action.Test:
		return "", d.Fail(session.Activate, session.Unchanged, session.Hint("this system cannot be tried without a reboot: "+reason, "use --action boot, then restart the target"))
	case action.Switch:
		d.Note("this change needs a reboot: " + reason + "; it is installed, and runs from the next boot on")
		d.opts.Action = action.Boot
		return reason, nil
	}
	return "", nil
}

// isDone tells whether the target is as asked already, bundle and all.
func (d *deployment) isDone(ready session.Built, facts agent.Facts) bool {
	return d.opts.Action.IsDone(facts, ready.Bundle, ready.Toplevel, d.opts.reboots())
}

// sameSystem tells whether the target has the system that is asked for already.
func (d *deployment) sameSystem(ready session.Built, facts agent.Facts) bool {
	return d.opts.Action.HasSystem(facts, ready.Toplevel, d.opts.reboots())
}

// mend puts back what the target's disk lacks of a system that is as asked.
func (d *deployment) mend(ctx context.Context, ready session.Built, facts agent.Facts) error {
	if facts.Lacking == 0 {
		return nil
	}
	over, err := d.WaitTurn(ctx, session.Ship)
	if err != nil {
		return err
	}
	defer over()
	return d.complete(ctx, ready.Bundle, true)
}

// apply changes the target.
func (d *deployment) apply(ctx context.Context, ready session.Built) (Result, error) {
	result := Result{Bundle: ready.Bundle, Toplevel: ready.Toplevel}
	var err error
	if err := d.askEarly(ctx, ready); err != nil {
		return result, err
	}
	if result.Shipped, err = d.ship(ctx, ready); err != nil {
		return result, err
	}
	if err := d.complete(ctx, ready.Bundle, true); err != nil {
		return result, err
	}
	over, err := d.WaitTurn(ctx, session.Activate)
	if err != nil {
		return result, err
	}
	defer over()
	// The connection may have been lost and made again: what counts is how the target is now.
	facts := d.Link.Facts()
	if d.sameSystem(ready, facts) {
		result.Outcome = RootMoved
		result.Generation, err = d.commit(ctx, ready, "root", facts)
		return result, err
	}
	if err := d.checkLockout(ctx, ready.Toplevel); err != nil {
		return result, err
	}
	switch d.opts.Action {
	case action.DryActivate:
		result.Outcome = Described
		result.Failed, err = d.activate(ctx, ready, facts)
	case action.Boot:
		if d.opts.reboots() {
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
func (d *deployment) install(ctx context.Context, ready session.Built, facts agent.Facts, result *Result) error {
	result.Outcome = Committed
	if facts.Current != string(ready.Toplevel) {
		result.Outcome = Installed
	}
	var err error
	result.Generation, err = d.commit(ctx, ready, "boot", facts)
	return err
}

func (d *deployment) ship(ctx context.Context, ready session.Built) (ship.Result, error) {
	done := d.Start(session.Ship)
	shipment := &shipment{d: d, root: ready.Bundle, whole: map[nix.StorePath]bool{}}
	err := d.Link.Do(ctx, shipment.run(ctx))
	if err != nil {
		return shipment.total, d.Fail(session.Ship, session.Unchanged, session.FullDisk(err))
	}
	done(shipment.summary())
	return shipment.total, nil
}

// activate runs the new system on the target and gives the units that failed.
func (d *deployment) activate(ctx context.Context, ready session.Built, before agent.Facts) ([]string, error) {
	done := d.Start(session.Activate)
	log := d.Lines(session.Activate)
	var result agent.ActivateResult
	err := d.Link.Follow(ctx, func(conn *agent.Session) error {
		var err error
		result, err = conn.Activate(ctx, agent.Request{
			Job: d.Job, Offset: log.Total, Toplevel: ready.Toplevel, Bundle: ready.Bundle,
			Action: d.opts.Action.Activates(), ForceNotNixOS: d.opts.ForceNotNixOS, ActivationLimit: wholeSeconds(d.opts.Limits.Activation),
		}, log)
		return err
	})
	log.Flush()
	if err != nil {
		return nil, d.interrupted(session.Activate, err, before, d.opts.Action == action.DryActivate)
	}
	if err := activationError(result, d.opts.Action, before, string(ready.Toplevel)); err != nil {
		return result.Failed, d.Fail(session.Activate, stateAfter(result, d.opts.Action, before, string(ready.Toplevel)), err)
	}
	done("")
	return result.Failed, nil
}

// interrupted is the error of a step that may have changed the target and whose end is not known here. A harmless one changes
// neither what runs nor what boots.
func (d *deployment) interrupted(step session.Step, err error, before agent.Facts, harmless bool) error {
	e := d.Fail(step, session.Unknown, err)
	if harmless {
		e.State = session.Unchanged
		return e
	}
	var response *agent.ResponseError
	var forgotten *session.ForgottenError
	switch {
	case errors.As(err, &response):
		// The agent refused, or could not begin.
		if step == session.Activate || d.opts.Action == action.Boot {
			e.State = session.Unchanged
		}
	case errors.As(err, &forgotten):
		if f := forgotten.Facts; f.Current == before.Current && f.Profile == before.Profile && f.Bundle == before.Bundle {
			e.State = session.Unchanged
			e.Err = session.Hint(err.Error()+"; it runs and boots what it did before", "run the same command again: what has arrived is kept")
		}
	case agent.IsLost(err), errors.Is(err, context.Canceled):
		if errors.Is(err, context.Canceled) {
			e.Err = &session.Advised{Text: "interrupted", Err: err}
		}
		e.Advice = []string{fmt.Sprintf("it goes on there; its log on the target: /run/ferry/%s-%s/log, for root", d.Job, step)}
		if back := rollBackByHand(before); back != "" && d.opts.Action != action.Boot {
			e.Advice = append(e.Advice, back)
		}
	}
	return e
}

func (d *deployment) commit(ctx context.Context, ready session.Built, act string, before agent.Facts) (int, error) {
	done := d.Start(session.Commit)
	log := d.Lines(session.Commit)
	var result agent.CommitResult
	err := d.Link.Follow(ctx, func(conn *agent.Session) error {
		var err error
		result, err = conn.Commit(ctx, agent.Request{
			Job: d.Job, Offset: log.Total, Toplevel: ready.Toplevel, Bundle: ready.Bundle, Action: act, ForceNotNixOS: d.opts.ForceNotNixOS,
			Record: d.record(), ActivationLimit: wholeSeconds(d.opts.Limits.Activation),
		}, log)
		return err
	})
	log.Flush()
	if err != nil {
		return 0, d.interrupted(session.Commit, err, before, act == "root")
	}
	// A reboot has brought it.
	runs := d.opts.reboots() && before.Current == string(ready.Toplevel)
	if err := commitError(result, runs); err != nil {
		state := session.Unchanged
		if result.Unclean || runs {
			state = session.Unknown
		}
		return 0, d.Fail(session.Commit, state, err)
	}
	text := "only the configuration's root has moved"
	if act == "boot" {
		text = fmt.Sprintf("generation %d is what boots", result.Generation)
	}
	done(text)
	return result.Generation, nil
}

// keepHere keeps the bundle that the node has now by a GC root of this machine. It says what was deployed from here, and is the
// base of the next ship's differences; so what was rolled back does not count. What waits to be deployed is kept as the
// bundle built last. result.Bundle must be what this deployment has shipped, or else be ours (see isOurs).
func (d *deployment) keepHere(ctx context.Context, result Result) {
	link, tried := d.Roots.Deployed(d.Inventory.File, d.Node.Name), d.Roots.Tried(d.Inventory.File, d.Node.Name)
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
	err := d.Nix.Root(context.WithoutCancel(ctx), link, result.Bundle)
	if err != nil {
		// That costs a full ship next time, not this deployment.
		d.Note("the deployed bundle is not kept on this machine: " + err.Error())
	}
}
