package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"ferry/internal/action"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/target"
)

// PlainOptions say how to deploy by the classic commands. The streams are the user's: what the commands write goes there.
type PlainOptions struct {
	Action   action.Action
	In       io.Reader
	Out, Err io.Writer
}

// RunPlain deploys without the agent, by the classic commands: nix-copy-closure, and ssh with a terminal for sudo, over one
// login. A failure is an [*session.Error].
func RunPlain(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, opts PlainOptions) (Result, error) {
	p := plain{Visit: with.At(inv, node), opts: opts}
	address, err := target.ParseAddress(node.Target)
	if err != nil {
		return Result{}, p.Fail(session.Connect, session.Unchanged, err)
	}
	ready, err := p.EvaluateAndBuild(ctx)
	if err != nil {
		return Result{}, err
	}
	result := Result{Bundle: ready.Bundle, Toplevel: ready.Toplevel, Outcome: plainOutcome(opts.Action)}
	script := []string{string(ready.Bundle) + session.SwitchScript, string(opts.Action)}
	if address.Local() {
		if os.Geteuid() != 0 {
			script = append(session.Elevation(node), script...)
		}
		return result, p.activate(ctx, script)
	}
	var master *target.Master
	err = p.timed(session.Connect, func() error {
		master, err = p.Dialer.Master(ctx, address, opts.Err)
		return err
	})
	if err != nil {
		return result, p.Fail(session.Connect, session.Unchanged, err)
	}
	defer master.Close()
	if err := p.copy(ctx, master, address, ready.Bundle); err != nil {
		return result, err
	}
	if address.User() != "root" {
		script = append(session.Elevation(node), script...)
	}
	terminal := "-T"
	if p.Dialer.Terminal != nil {
		terminal = "-t"
	}
	return result, p.activate(ctx, append(append([]string{"ssh"}, master.Args...), terminal, "--", address.String(), run.QuoteAll(script)))
}

// plain is a deployment by the classic commands. They write to the user's terminal, so no step is announced, only its end.
type plain struct {
	*session.Visit
	opts PlainOptions
}

// timed does a step and tells its end.
func (p plain) timed(step session.Step, do func() error) error {
	begin := time.Now()
	if err := do(); err != nil {
		return err
	}
	p.Emit(session.Event{Kind: session.Finished, Step: step, Duration: time.Since(begin)})
	return nil
}

func (p plain) copy(ctx context.Context, master *target.Master, address target.Address, bundle nix.StorePath) error {
	err := p.timed(session.Ship, func() error {
		return p.Dialer.Runner.Run(ctx, run.Command{
			Argv: []string{"nix-copy-closure", "--to", address.Login(), string(bundle)}, Err: p.opts.Err,
			Env: []string{"NIX_SSHOPTS=" + strings.Join(master.Args, " ")},
		})
	})
	var failed *run.Error
	if errors.As(err, &failed) && strings.Contains(failed.Stderr, "lacks a ") && strings.Contains(failed.Stderr, "signature") {
		return p.Fail(session.Ship, session.Unchanged, session.Hint("the target's Nix takes unsigned paths only from root and trusted-users",
			"leave out --method plain, or log in as root"))
	}
	if err != nil {
		return p.Fail(session.Ship, session.Unchanged, shown(err))
	}
	return nil
}

// activate runs the bundle's script. Its exit status is switch-to-configuration's, or says what ssh and sudo met.
func (p plain) activate(ctx context.Context, argv []string) error {
	err := p.timed(session.Activate, func() error {
		return p.Dialer.Runner.Run(ctx, run.Command{Argv: argv, In: p.opts.In, Out: p.opts.Out, Err: p.opts.Err})
	})
	if err == nil {
		return nil
	}
	state := session.Unknown
	var failed *run.Error
	if errors.As(err, &failed) && (failed.Status == 1 || failed.Status == 100) {
		state = session.Unchanged
	}
	return p.Fail(session.Activate, state, shown(err))
}

// shown is the error of a command whose messages the user has seen already.
func shown(err error) error {
	var failed *run.Error
	if errors.As(err, &failed) && failed.Status >= 0 {
		return session.Hint(fmt.Sprintf("%s: exit status %d", failed.Argv[0], failed.Status))
	}
	return err
}

func plainOutcome(a action.Action) Outcome {
	switch a {
	case action.DryActivate:
		return Described
	case action.Test:
		return Activated
	case action.Boot:
		return Installed
	}
	return Committed
}
