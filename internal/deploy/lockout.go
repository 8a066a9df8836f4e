package deploy

import (
	"context"
	"strings"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/session"
)

// confirms tells whether the system will have to be confirmed by a new login that needs nobody, or by what stands for one.
func (d *deployment) confirms() bool {
	switch d.opts.Action {
	case action.Switch, action.Test:
		return true
	case action.Boot:
		return d.opts.Reboot.Timeout > 0 && !d.Link.Interactive()
	}
	return false
}

// checkLockout finds out whether the new system, which is on the target, may lock this login out, and meanwhile, whether a new login
// is possible at all.
func (d *deployment) checkLockout(ctx context.Context, toplevel nix.StorePath) error {
	login := func() error { return nil }
	if d.confirms() {
		trial, stop := context.WithCancel(ctx)
		login = inAdvance(trial, d.mayConfirm)
		defer func() {
			stop()
			_ = login()
		}()
	}
	var risks []agent.Risk
	err := d.Link.Do(ctx, func(conn *agent.Session) error {
		var err error
		risks, err = conn.CheckLockout(ctx, toplevel, string(d.opts.Action))
		return err
	})
	if err == nil && d.opts.Action == action.DryActivate {
		for _, r := range risks {
			d.Note("it may lock this very login out: " + r.Text)
		}
		return nil
	}
	if err == nil {
		// Nobody need answer a question about a system that could not be confirmed.
		err = login()
	}
	if err == nil {
		err = lockout(ctx, risks, d.opts.AllowLockout, d.opts.Ask)
	}
	if err != nil {
		return d.Fail(session.Activate, session.Unchanged, err)
	}
	return nil
}

// lockout decides whether to go on with a system that may lock out the login that deploys it: if it may not, if that is
// allowed, or if the person that ask asks says so. Without one, ask is nil. No other permission answers it.
func lockout(ctx context.Context, risks []agent.Risk, allow bool, ask func(ctx context.Context, question string) (bool, error)) error {
	if len(risks) == 0 || allow {
		return nil
	}
	texts := make([]string, len(risks))
	for i, r := range risks {
		texts[i] = r.Text
	}
	const what = "the new system may lock this very login out"
	if ask != nil {
		question := what + ":\n  " + strings.Join(texts, "\n  ") + "\nactivate it all the same?"
		agreed, err := ask(ctx, question)
		if err != nil {
			return err
		}
		if agreed {
			return nil
		}
	}
	return session.Hint(what+": "+strings.Join(texts, "; "), "correct the configuration; if you mean it, use --allow-lockout")
}
