package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"ferry/internal/agent"
	"ferry/internal/health"
	"ferry/internal/inventory"
	"ferry/internal/session"
)

// Attach follows the switch on a node's target that was begun last, from its first line on, and finishes it as the deployment
// that began it would have. The checks that it makes are those of inv: what the target says is not asked of anybody. A failure is
// an [*session.Error].
func Attach(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, leave Leave) (Result, error) {
	v, err := with.Visit(inv, node, session.Shared)
	if err != nil {
		return Result{}, err
	}
	defer v.Close()
	d := &deployment{Visit: v, opts: Options{Switching: Switching{Leave: leave}}}
	// Before anything is followed: a target that waits must not wait for a source to be copied.
	checks, err := inv.ChecksOf(ctx, node)
	if err != nil {
		return Result{}, d.Fail(session.Connect, session.Unchanged, err)
	}
	return d.attach(ctx, checks)
}

// attach is Attach with the node's checks.
func (d *deployment) attach(ctx context.Context, checks health.Checks) (Result, error) {
	facts, err := d.Reach(ctx)
	if err != nil {
		return Result{}, err
	}
	s := d.newSwitching("", "", facts)
	shielded, release := shield(ctx, d.opts.Leave, func() { s.Note(s.afterLeaving()) })
	defer release()
	s.enter(session.Activate)
	var got agent.SwitchResult
	err = d.Link.Do(shielded, func(conn *agent.Session) error {
		var err error
		got, err = conn.Switch(shielded, agent.Request{Job: s.job, Token: &s.expect, Offset: s.log.Total}, s.log, s.phase)
		return err
	})
	if err == nil {
		s.job, s.toplevel, s.before.Current = got.Job, got.Toplevel, got.Before
		if got.Outcome == "" {
			if source := session.BundleLink(got.Bundle, "source"); source != "" && d.IsOurs(ctx, got.Bundle, got.Toplevel) {
				// What they run is there in the source that was shipped, not in the one that is here now.
				checks = d.Inventory.ChecksIn(d.Node, source)
			}
			if err = s.judgeBy(checks, string(got.Awaits)); err == nil {
				if d.Link.Interactive() {
					d.Note(provesLess)
				}
				d.Link.BearWith(time.Duration(got.Left) * time.Second)
				got, err = s.finish(shielded, d.Link.Do, got)
			}
		}
	}
	s.log.Flush()
	result := Result{Bundle: got.Bundle, Toplevel: got.Toplevel}
	if err != nil {
		return result, s.broken(err, &result)
	}
	if err := s.conclude(got, &result); err != nil {
		return result, err
	}
	d.keepIfOurs(ctx, result)
	return result, nil
}

// judgeBy makes checks what the switch is judged by that awaits those of a name. Where it awaits none, it is committed without; where
// it awaits some and the inventory has none, this ferry has nothing to say: another one may still be there, and else it rolls back.
func (s *switching) judgeBy(checks health.Checks, awaits string) error {
	mine, err := nameOf(checks)
	if err != nil {
		return err
	}
	switch {
	case mine == awaits:
		s.checks = checks
	case awaits == "":
		s.Note("this deployment was begun without checks: those that the inventory has for " + s.Node.Name + " are not made")
	case mine == "":
		s.watching = true
		s.Note("this deployment waits for checks, and the inventory has none for " + s.Node.Name +
			": it is only watched, and rolls back unless the ferry that started it is still there")
		s.failure = &session.Advised{Text: "the inventory has no checks", Advice: []string{
			"attach with the inventory that it was deployed with: checks are only made as one's own inventory has them",
		}}
	default:
		s.checks = checks
		s.Note("this deployment was begun with other checks than the inventory has for " + s.Node.Name + ": those of the inventory are made")
	}
	return nil
}

// nameOf is a name for what checks ask, by which the same ones are known again: a hash; "" for none.
func nameOf(checks health.Checks) (string, error) {
	if checks.Empty() {
		return "", nil
	}
	text, err := json.Marshal(checks)
	if err != nil {
		return "", fmt.Errorf("the checks: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// keepIfOurs is keepHere where the target says which bundle it has.
func (d *deployment) keepIfOurs(ctx context.Context, result Result) {
	if !d.IsOurs(context.WithoutCancel(ctx), result.Bundle, result.Toplevel) {
		result.Bundle = ""
	}
	d.keepHere(ctx, result)
}
