package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/health"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
)

// RebootOptions say whether and how the target is rebooted into the system that is deployed.
type RebootOptions struct {
	// Timeout is how long the target may take from being told to reboot until it runs what it is to run; 0: it is not
	// rebooted. In its first half the new system has to be reached, in the second the old one to come back otherwise.
	Timeout time.Duration
	// Yes reboots a target that could not come back by itself, without asking.
	Yes bool
}

// DefaultRebootTimeout is what a user gets who does not say anything.
const DefaultRebootTimeout = 10 * time.Minute

// rebooting is a deployment by a reboot. Where the boot loader can try a system once, the old one stays the default until
// the new one is confirmed: by the connection that is made to it, and its checks.
type rebooting struct {
	*deployment
	ready  session.Built
	before agent.Facts
	// tried says that the old system is still the default.
	tried bool
	// failed are the units that were in the failed state before, where the target does not know.
	failed []string
	log    *run.LineWriter
}

// rebooted brings the system by a reboot, and commits it when it runs.
func (d *deployment) rebooted(ctx context.Context, ready session.Built, before agent.Facts, result *Result) error {
	b := &rebooting{deployment: d, ready: ready, before: before}
	b.log = d.Lines(session.Reboot)
	system := string(ready.Toplevel)
	// What an earlier run has rebooted into, and then lost, needs no second reboot.
	b.tried = before.Booted == system && before.Profile != system
	if before.Booted != system || before.Current != system {
		if err := b.restart(ctx, result); err != nil {
			return err
		}
	}
	if err := b.check(ctx); err != nil {
		return b.rollBack(ctx, err)
	}
	result.Outcome = Committed
	if !b.tried && result.Generation > 0 {
		return nil
	}
	var err error
	if result.Generation, err = d.commit(ctx, ready, "boot", d.Link.Facts()); err != nil && b.tried {
		return b.rollBack(ctx, err)
	}
	return err
}

// restart lets the target boot the new system: once, or, where that cannot be and the user agrees, from now on.
func (b *rebooting) restart(ctx context.Context, result *Result) error {
	done := b.Start(session.Reboot)
	begin := time.Now()
	why := cannotRollBack(b.before, b.ready.Toplevel)
	var facts agent.Facts
	var err error
	if why == "" {
		facts, why, err = b.try(ctx)
	}
	if err == nil && why != "" {
		if err := b.installed(ctx, why, result); err != nil {
			return err
		}
		facts, err = b.again(ctx, b.before.BootID)
	}
	if err != nil {
		return b.lost(ctx, err)
	}
	if err := b.arrived(ctx, facts); err != nil {
		return err
	}
	done(fmt.Sprintf("runs %s after %v", session.SystemName(facts.Current), time.Since(begin).Round(time.Second)))
	return nil
}

// try lets the boot loader boot the new system once, and waits for that. What the target cannot do, and has left no trace of,
// is a reason and no error.
func (b *rebooting) try(ctx context.Context) (facts agent.Facts, why string, err error) {
	deadline := time.Now().Add(b.opts.Reboot.Timeout)
	var got agent.BootOnceResult
	ask := func(conn *agent.Session) error {
		var err error
		if got, err = conn.BootOnce(ctx, b.request(), b.opts.Reboot.Timeout/2, b.log); err != nil {
			return err
		}
		if got.Status != 0 {
			return errRefused
		}
		return nil
	}
	b.tried = true
	if err = ask(b.Link.Agent()); err == nil || agent.IsLost(err) {
		// It may have been lost before the target could do anything: then it is asked again.
		facts, err = b.Link.AwaitBoot(ctx, b.before.BootID, deadline, ask)
	}
	b.log.Flush()
	var response *agent.ResponseError
	switch {
	case errors.Is(err, errRefused) && got.Unclean:
		return facts, "", b.Fail(session.Reboot, session.Unknown, session.Hint(got.Error, wholeLog(got.Log)))
	case errors.Is(err, errRefused):
		b.tried = false
		return facts, got.Error, nil
	case errors.As(err, &response):
		return facts, "", b.Fail(session.Reboot, session.Unchanged, err)
	}
	return facts, "", err
}

// errRefused says that a target does not reboot.
var errRefused = errors.New("the target does not reboot")

// installed makes the new system the boot default, if the user agrees.
func (b *rebooting) installed(ctx context.Context, why string, result *Result) error {
	if err := b.mayReboot(ctx, why); err != nil {
		return err
	}
	// Nothing on the target keeps them for later.
	now, err := b.booted(ctx, 0)
	if err != nil {
		return b.Fail(session.Reboot, session.Unchanged, err)
	}
	b.failed = now.Failed
	return b.install(ctx, b.ready, b.before, result)
}

// cannotRollBack tells why a target could not come back by itself from a reboot into a system, as far as its facts show; "": it can.
func cannotRollBack(facts agent.Facts, system nix.StorePath) string {
	switch {
	case facts.Profile == string(system):
		return "the new system is its boot default already"
	case facts.BootOnce == "":
		return "its boot loader cannot try a system once"
	}
	return ""
}

// askEarly asks what can be asked before a system is shipped.
func (d *deployment) askEarly(ctx context.Context, ready session.Built) error {
	facts := d.Link.Facts()
	if d.opts.Reboot.Timeout == 0 || facts.Booted == string(ready.Toplevel) {
		return nil
	}
	if why := cannotRollBack(facts, ready.Toplevel); why != "" {
		return d.mayReboot(ctx, why)
	}
	return nil
}

// mayReboot lets the user decide, once, about a reboot that cannot be rolled back.
func (d *deployment) mayReboot(ctx context.Context, why string) error {
	if d.agreed {
		return nil
	}
	if d.opts.Reboot.Yes {
		d.Note("this reboot cannot be rolled back: " + why)
		d.agreed = true
		return nil
	}
	if ask := d.opts.Ask; ask != nil {
		question := fmt.Sprintf("%s: this reboot cannot be rolled back: %s.\nIf the new system does not come up, somebody has to go there. Reboot anyway?", d.Node.Name, why)
		agreed, err := ask(ctx, question)
		if err != nil {
			return d.Fail(session.Reboot, session.Unchanged, err)
		}
		if d.agreed = agreed; agreed {
			return nil
		}
	}
	return d.Fail(session.Reboot, session.Unchanged, session.Hint("this reboot cannot be rolled back: "+why, "if you mean it, use --yes"))
}

func (b *rebooting) request() agent.Request {
	return agent.Request{
		Job: b.Job, Offset: b.log.Total, Toplevel: b.ready.Toplevel, Bundle: b.ready.Bundle, ForceNotNixOS: b.opts.ForceNotNixOS,
		ActivationLimit: wholeSeconds(b.opts.Limits.Activation),
	}
}

// arrived judges the system that a target came back with.
func (b *rebooting) arrived(ctx context.Context, facts agent.Facts) error {
	switch system := string(b.ready.Toplevel); {
	case facts.Booted == system && facts.Current == system:
		return nil
	case facts.Booted != b.before.Booted && facts.Booted != b.before.Profile:
		return b.Fail(session.Reboot, session.Unknown, session.Hint("the target came back with "+session.SystemName(facts.Booted)+", which is neither the new nor the old system",
			"ferry generations "+b.Node.Name+" shows what is there"))
	case !b.tried:
		return b.Fail(session.Reboot, session.Unknown, errors.New("the target came back with the old system, though the new one is its boot default"))
	}
	return b.forget(ctx, b.Fail(session.Reboot, session.RolledBack, session.Hint("the target came back with the old system",
		"on the target: journalctl --list-boots, and journalctl --boot=-1 for what the new one said")))
}

// again tells the target to reboot and waits for another boot than the one of this id.
func (b *rebooting) again(ctx context.Context, bootID string) (agent.Facts, error) {
	deadline := time.Now().Add(b.opts.Reboot.Timeout)
	if err := b.Link.Agent().Reboot(ctx, b.request()); err != nil && !agent.IsLost(err) {
		return agent.Facts{}, &session.BootError{Kind: session.NeverDown, Err: err}
	}
	return b.Link.AwaitBoot(ctx, bootID, deadline, func(*agent.Session) error { return nil })
}

// lost tells what is known of a target that has not come back.
func (b *rebooting) lost(ctx context.Context, err error) error {
	var failed *session.BootError
	var ready *session.Error
	switch {
	case errors.As(err, &ready):
		return ready
	case !errors.As(err, &failed):
		e := b.Fail(session.Reboot, session.Unknown, err)
		if errors.Is(err, context.Canceled) {
			e.Err = &session.Advised{Text: "interrupted while the target reboots", Err: err}
		}
		if b.tried {
			e.Advice = []string{"it rolls back to the old system unless this is run again within " + (b.opts.Reboot.Timeout / 2).String() + " of its boot"}
		}
		return e
	case failed.Kind == session.NeverDown && b.tried:
		return b.forget(ctx, b.Fail(session.Reboot, session.Unchanged, session.Hint(failed.Error()+"; nothing has changed", "on the target: systemctl list-jobs, systemd-inhibit --list")))
	case failed.Kind == session.NeverDown:
		return b.Fail(session.Reboot, session.Unknown, session.Hint(failed.Error()+"; it boots the new system when it does", "on the target: systemctl list-jobs, systemd-inhibit --list"))
	case b.tried:
		return b.Fail(session.Reboot, session.Unknown, session.Hint(failed.Error(), "power cycle it: its boot default is the old system"))
	}
	return b.Fail(session.Reboot, session.Unknown, session.Hint(failed.Error(), "somebody has to look at its console; the boot menu has the old system"))
}

// forget removes what is left of a trial on a target that runs the old system, and gives why it is over.
func (b *rebooting) forget(ctx context.Context, why *session.Error) error {
	var got agent.BootOnceResult
	log := &run.LineWriter{Emit: b.log.Emit}
	// It can be asked for again by whoever is connected, in whichever boot.
	err := b.Link.Do(ctx, func(conn *agent.Session) error {
		request := b.request()
		request.Offset = log.Total
		var err error
		got, err = conn.ForgetBootOnce(ctx, request, log)
		return err
	})
	log.Flush()
	if err == nil && got.Status != 0 {
		err = errors.New(got.Error)
	}
	if err != nil {
		why.State = session.Unknown
		why.Err = fmt.Errorf("%w; what was prepared for the new one could not be removed: %w", why.Err, err)
	}
	return why
}

// booted waits, at most for limit, until the target has finished booting, and tells its units.
func (b *rebooting) booted(ctx context.Context, limit time.Duration) (got agent.BootedResult, err error) {
	err = b.Link.Do(ctx, func(conn *agent.Session) error {
		var err error
		got, err = conn.Booted(ctx, limit)
		return err
	})
	return got, err
}

// check waits until the new system has finished booting, judges its units, and makes the node's checks.
func (b *rebooting) check(ctx context.Context) error {
	done := b.Start(session.Confirm)
	got, err := b.booted(ctx, b.opts.Limits.Activation)
	if err != nil {
		return err
	}
	if !got.Finished {
		return fmt.Errorf("the boot is not over after %v", b.opts.Limits.Activation)
	}
	if err := judgeUnits(b.Node.Checks.Units, got.Failed, append(got.Before, b.failed...)); err != nil {
		return err
	}
	done("")
	checks, err := b.Inventory.ChecksOf(ctx, b.Node)
	if err != nil {
		return err
	}
	if err := runChecks(ctx, checks, b.Link, b.Emit); err != nil {
		return b.Fail(session.Check, session.Unknown, err)
	}
	return nil
}

// judgeUnits tells what a policy says of the units that are in the failed state, and of those that were.
func judgeUnits(policy health.UnitPolicy, failed, before []string) error {
	switch policy {
	case health.Ignore:
		return nil
	case health.None:
		before = nil
	}
	failed = slices.DeleteFunc(slices.Clone(failed), func(unit string) bool { return slices.Contains(before, unit) })
	if len(failed) > 0 {
		return errors.New("units failed: " + strings.Join(failed, ", "))
	}
	return nil
}

// rollBack reboots a target whose new system is not good enough into the old one, which is still the default.
func (b *rebooting) rollBack(ctx context.Context, why error) error {
	step := session.Confirm
	var inner *session.Error
	if errors.As(why, &inner) {
		step, why = inner.Step, inner.Err
	}
	if ctx.Err() != nil {
		return b.lost(ctx, ctx.Err())
	}
	if !b.tried {
		return b.Fail(step, session.Unknown, session.Hint(why.Error()+"; the new system runs, and boots by default", "ferry generations "+b.Node.Name+" lists the systems to return to"))
	}
	b.Note(why.Error() + "; rolling back to the old system")
	done := b.Start(session.RollBack)
	facts, err := b.again(ctx, b.Link.Facts().BootID)
	if err != nil {
		return b.lost(ctx, fmt.Errorf("%w; rolling back: %w", why, err))
	}
	if facts.Booted == string(b.ready.Toplevel) {
		return b.Fail(session.RollBack, session.Unknown, fmt.Errorf("%w; the target was rebooted, and runs the new system again", why))
	}
	done("runs " + session.SystemName(facts.Booted))
	return b.forget(ctx, b.Fail(step, session.RolledBack, fmt.Errorf("%w; the target rolled back to %s", why, session.SystemName(facts.Booted))))
}
