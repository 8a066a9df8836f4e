package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// Rollback returns a node's target to a system that it has: to what ran before the last deployment if to is empty, else to
// the generation with that number or to that toplevel. It is guarded like any other switch, and nothing is built or shipped. A
// failure is an [*Error].
func Rollback(ctx context.Context, inv *inventory.Inventory, node inventory.Node, to string, opts Options) (Result, error) {
	opts.Action = Switch
	d, err := newDeployment(inv, node, opts, true)
	if err != nil {
		return Result{}, err
	}
	d.what = agent.ActionRollback
	defer d.link.close()
	facts, err := d.connect(ctx)
	if err != nil {
		return Result{}, err
	}
	var have agent.GenerationsResult
	err = d.link.do(ctx, func(conn *agent.Session) error {
		have, err = conn.Generations(ctx)
		return err
	})
	if err != nil {
		return Result{}, d.fail(Connect, Unchanged, err)
	}
	list := "ferry generations " + node.Name + " lists what is there"
	back, err := findSystem(to, facts, have, list)
	if err != nil {
		return Result{}, d.fail(Connect, Unchanged, err)
	}
	result := Result{Bundle: back.bundle, Toplevel: back.toplevel, Outcome: Nothing}
	if facts.Current == string(back.toplevel) && facts.Profile == facts.Current {
		return result, nil
	}
	if err := goesBack(facts, d.opts); err != nil {
		return result, d.fail(Connect, Unchanged, err)
	}
	if err = d.complete(ctx, back.toplevel, d.isOurs(ctx, back.bundle, back.toplevel)); err == nil {
		err = d.checkLockout(ctx, back.toplevel)
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
func findSystem(to string, facts agent.Facts, have agent.GenerationsResult, list string) (built, error) {
	toplevel := to
	switch number, err := strconv.Atoi(to); {
	case to == "" && (facts.Previous == nil || facts.Previous.Current == ""):
		return built{}, hint("the target does not know what ran before the last deployment", list, "name one of them: --to GENERATION")
	case to == "":
		toplevel = facts.Previous.Current
	case err == nil:
		i := slices.IndexFunc(have.Generations, func(g agent.Generation) bool { return g.Number == number })
		if i < 0 || have.Generations[i].Toplevel == "" {
			return built{}, hint(fmt.Sprintf("the target has no generation %d", number), list)
		}
		g := have.Generations[i]
		return built{bundle: nix.StorePath(g.Bundle), toplevel: nix.StorePath(g.Toplevel)}, nil
	}
	path, err := nix.ParseStorePath(toplevel)
	if err != nil {
		return built{}, hint(fmt.Sprintf("--to %s is neither the number of a generation nor a store path", run.Clean(to)), list)
	}
	back := built{toplevel: path}
	// The newest that was the same system says best what it was made of.
	for _, g := range slices.Backward(have.Generations) {
		if g.Toplevel == toplevel && g.Bundle != "" {
			back.bundle = nix.StorePath(g.Bundle)
			break
		}
	}
	if back.bundle == "" && to == "" {
		back.bundle = nix.StorePath(facts.Previous.Bundle)
	}
	return back, nil
}
