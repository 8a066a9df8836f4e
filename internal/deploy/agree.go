package deploy

import (
	"context"
	"fmt"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/preview"
	"ferry/internal/session"
)

// agree asks a person whether to do what is planned, where there is one to ask.
func (d *deployment) agree(ctx context.Context, ready session.Built, facts agent.Facts) error {
	if d.opts.Agree == nil || d.opts.Action == action.DryActivate {
		return nil
	}
	planned, err := preview.PlanOn(ctx, d.Visit, ready, facts, preview.Options{
		Action: d.opts.Action, Reboot: d.opts.reboots(), NoDelta: d.opts.NoDelta, Memory: d.opts.Memory,
		ReplaceUnknown: d.opts.ReplaceUnknown, AllowLockout: d.opts.AllowLockout, Unsafe: d.opts.Unsafe,
	})
	if err != nil {
		return err
	}
	agreed, err := d.opts.Agree(ctx, planned)
	if err != nil {
		return d.Fail(session.Connect, session.Unchanged, err)
	}
	if !agreed {
		return d.Fail(session.Connect, session.Unchanged, fmt.Errorf("cancelled; nothing was changed"))
	}
	return nil
}
