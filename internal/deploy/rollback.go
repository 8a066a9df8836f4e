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
// failure is an [*Error].
func Rollback(ctx context.Context, with Session, inv *inventory.Inventory, node inventory.Node, opts RollbackOptions) (Result, error) {
	v, err := with.Visit(inv, node, Exclusive)
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
	err = d.Link.do(ctx, func(conn *agent.Session) error {
		have, err = conn.Generations(ctx)
		return err
	})
	if err != nil {
		return Result{}, d.fail(Connect, Unchanged, err)
	}
	list := "ferry generations " + node.Name + " lists what is there"
	back, err := findSystem(opts.To, facts, have, list)
	if err != nil {
		return Result{}, d.fail(Connect, Unchanged, err)
	}
	result := Result{Bundle: back.Bundle, Toplevel: back.Toplevel, Outcome: Nothing}
	if facts.Current == string(back.Toplevel) && facts.Profile == facts.Current {
		return result, nil
	}
	if err := d.opts.unguarded(facts); err != nil {
		return result, d.fail(Connect, Unchanged, err)
	}
	if err = d.complete(ctx, back.Toplevel, d.isOurs(ctx, back.Bundle, back.Toplevel)); err == nil {
		err = d.checkLockout(ctx, back.Toplevel)
	}
	var response *agent.ResponseError
	if errors.As(err, &response) && response.Kind == agent.KindInvalid {
		return result, &Error{Node: node.Name, Step: Connect, State: Unchanged, Err: hint(response.Text, list)}
	}
	if err != nil {
		return result, err
	}
	if err := d.guarded(ctx, back, facts, &result); err != nil {
		return result, err
	}
	if result.Bundle == "" {
		d.note("what this system was made of is not known on the target: no configuration is kept there")
	}
	d.keepIfOurs(ctx, result)
	return result, nil
}

// findSystem finds what to return to among what a target has; list says how that is listed.
func findSystem(to string, facts agent.Facts, have agent.GenerationsResult, list string) (Built, error) {
	toplevel := to
	switch number, err := strconv.Atoi(to); {
	case to == "" && (facts.Previous == nil || facts.Previous.Current == ""):
		return Built{}, hint("the target does not know what ran before the last deployment", list, "name one of them: --to GENERATION")
	case to == "":
		toplevel = facts.Previous.Current
	case err == nil:
		i := slices.IndexFunc(have.Generations, func(g agent.Generation) bool { return g.Number == number })
		if i < 0 || have.Generations[i].Toplevel == "" {
			return Built{}, hint(fmt.Sprintf("the target has no generation %d", number), list)
		}
		g := have.Generations[i]
		return Built{Bundle: nix.StorePath(g.Bundle), Toplevel: nix.StorePath(g.Toplevel)}, nil
	}
	path, err := nix.ParseStorePath(toplevel)
	if err != nil {
		return Built{}, hint(fmt.Sprintf("--to %s is neither the number of a generation nor a store path", run.Clean(to)), list)
	}
	back := Built{Toplevel: path}
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
