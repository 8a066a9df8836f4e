package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
)

// RollbackOptions say to what a node returns, and how.
type RollbackOptions struct {
	Switching
	// ForceNotNixOS goes on where the machine is not marked as NixOS.
	ForceNotNixOS bool
	// To is the number of a generation, or a toplevel; "": what ran before the last deployment.
	To string
}

// Rollback returns a node's target to a system that it has. It is guarded like any other switch, and nothing is built or shipped. A
// failure is an [*session.Error].
func Rollback(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, opts RollbackOptions) (Result, error) {
	v, err := with.Visit(inv, node, session.Exclusive)
	if err != nil {
		return Result{}, err
	}
	defer v.Close()
	d := &deployment{Visit: v, opts: Options{Action: action.Switch, Switching: opts.Switching, ForceNotNixOS: opts.ForceNotNixOS}, what: agent.ActionRollback}
	facts, err := d.Connect(ctx, opts.ForceNotNixOS)
	if err != nil {
		return Result{}, err
	}
	var have agent.GenerationsResult
	err = d.Link.Do(ctx, func(conn *agent.Session) error {
		have, err = conn.Generations(ctx)
		return err
	})
	if err != nil {
		return Result{}, d.Fail(session.Connect, session.Unchanged, err)
	}
	list := "ferry generations " + node.Name + " lists what is there"
	back, err := findSystem(opts.To, facts, have, list)
	if err != nil {
		return Result{}, d.Fail(session.Connect, session.Unchanged, err)
	}
	result := Result{Bundle: back.Bundle, Toplevel: back.Toplevel, Outcome: Nothing}
	if facts.Current == string(back.Toplevel) && facts.Profile == facts.Current {
		return result, nil
	}
	if err := d.opts.unguarded(facts); err != nil {
		return result, d.Fail(session.Connect, session.Unchanged, err)
	}
	if err = d.complete(ctx, back.Toplevel, d.IsOurs(ctx, back.Bundle, back.Toplevel)); err == nil {
		err = d.checkLockout(ctx, back.Toplevel)
	}
	var response *agent.ResponseError
	if errors.As(err, &response) && response.Kind == agent.KindInvalid {
		return result, &session.Error{Node: node.Name, Step: session.Connect, State: session.Unchanged, Err: session.Hint(response.Text, list)}
	}
	if err != nil {
		return result, err
	}
	if err := d.guarded(ctx, back, facts, &result); err != nil {
		return result, err
	}
	if result.Bundle == "" {
		d.Note("what this system was made of is not known on the target: no configuration is kept there")
	}
	d.keepIfOurs(ctx, result)
	return result, nil
}

// findSystem finds what to return to among what a target has; list says how that is listed.
func findSystem(to string, facts agent.Facts, have agent.GenerationsResult, list string) (session.Built, error) {
	toplevel := to
	switch number, err := strconv.Atoi(to); {
	case to == "" && (facts.Previous == nil || facts.Previous.Current == ""):
		return session.Built{}, session.Hint("the target does not know what ran before the last deployment", list, "name one of them: --to GENERATION")
	case to == "":
		toplevel = facts.Previous.Current
	case err == nil:
		i := slices.IndexFunc(have.Generations, func(g agent.Generation) bool { return g.Number == number })
		if i < 0 || have.Generations[i].Toplevel == "" {
			return session.Built{}, session.Hint(fmt.Sprintf("the target has no generation %d", number), list)
		}
		g := have.Generations[i]
		return session.Built{Bundle: nix.StorePath(g.Bundle), Toplevel: nix.StorePath(g.Toplevel)}, nil
	}
	path, err := nix.ParseStorePath(toplevel)
	if err != nil {
		return session.Built{}, session.Hint(fmt.Sprintf("--to %s is neither the number of a generation nor a store path", run.Clean(to)), list)
	}
	back := session.Built{Toplevel: path}
	// The newest that was the same system says best what it was made of.
	for _, g := range slices.Backward(have.Generations) {
		if g.Toplevel == toplevel && g.Bundle != "" {
			back.Bundle = nix.StorePath(g.Bundle)
			break
		}
	}
	if back.Bundle == "" && to == "" {
		back.Bundle = nix.StorePath(facts.Previous.Bundle)
	}
	return back, nil
}
