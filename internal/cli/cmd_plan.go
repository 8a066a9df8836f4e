package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"

	"ferry/internal/action"
	"ferry/internal/fleet"
	"ferry/internal/inventory"
	"ferry/internal/preview"
	"ferry/internal/prose"
	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/ship"

	"github.com/spf13/cobra"
)

// planOptions are the flags of ferry plan.
type planOptions struct {
	nodeFlags
	nixFlags
	elevateFlags
	parallel int
	json     bool
}

func (a *app) planCommand() *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan [NODES]",
		Short: "Show what a deployment would do, and change nothing",
		Long: `Evaluate and build nodes, compare each with the system that runs on its target, and show what "ferry deploy" would do:
packages and closure size; units that would be stopped, restarted, reloaded and started, new ones included; files in /etc,
users and mounts; what would be shipped; whether a reboot is needed; and what would stop the deployment, such as a new
system that may lock this login out. Nothing is changed on the targets. If ferry's agent is already there, no sudo is
needed; otherwise it is needed once, to copy the agent there.

What happens to units is decided as the new system's own switch program decides ("ferry help diff" says more): "run again"
are units that it starts although nothing changed, "changed, left" are units that it leaves as they are, and PROBLEM is
something that it cannot do.

` + chooseHelp + `

Several nodes are planned at the same time, as in a deployment, and shown in the order in which they are named; a node
that fails does not stop the others.

With --json the output is one object per node, one after another: the keys of "ferry diff --json", and nothing (the target
already has what is asked for), same_system (only the configuration that is kept would change), ship (paths, bytes: of
their NARs, wire: bytes to send, differences: how many paths are sent as differences, seconds: at bytes_per_second, the
speed of the last ship there; 0: unknown), lockout (kind and text of each thing that may lock the login out) and warnings.
With several nodes, a node that failed has only node and error (step, message, output and hints).`,
		Example: `  ferry plan pi
  ferry plan @web
  ferry plan --json --all | jq -r 'select(.needs_reboot > "").node'`,
		ValidArgsFunction: a.completeMany(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runPlan(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.addMany(flags)
	flags.IntVar(&o.parallel, "parallel", defaultParallel, "connect to, and compare, `N` nodes at once")
	a.addLogin(flags)
	o.elevateFlags.add(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runPlan(ctx context.Context, o planOptions, args []string) error {
	if o.parallel < 1 {
		return usagef("for example --parallel 10", "--parallel %d: expected a number above 0", o.parallel)
	}
	with, err := a.openWork(o.nixFlags)
	if err != nil {
		return err
	}
	inv, nodes, err := a.openNodes(ctx, with.Nix, o.nodeFlags, args)
	if err != nil {
		return err
	}
	if err := o.elevateFlags.apply(nodes); err != nil {
		return err
	}
	if err := a.onePassword(ctx, nodes); err != nil {
		return err
	}
	opts := preview.Options{Action: action.Switch, Measure: true}
	if len(nodes) == 1 {
		planned, err := preview.Plan(ctx, with, inv, nodes[0], opts)
		if err != nil {
			return err
		}
		return a.showPlan(planned, o.json)
	}
	return a.planSeveral(ctx, with, inv, nodes, opts, o)
}

func (a *app) showPlan(planned *preview.Planned, json bool) error {
	if json {
		return writeJSON(a.Out, planned)
	}
	return writePlan(a.Out, planned)
}

// planSeveral plans nodes side by side, and shows their plans, and what failed, in their order.
func (a *app) planSeveral(ctx context.Context, with session.Session, inv *inventory.Inventory, nodes []inventory.Node, opts preview.Options, o planOptions) error {
	secrets := a.sharePasswords(nodes, &with)
	defer secrets.forget()
	opts.Memory = new(ship.Memory)
	several := fleet.PlanOptions{Preview: opts, Parallel: o.parallel, Cores: runtime.NumCPU(), Ended: func(o fleet.Outcome) {
		secrets.settle(o.Node.Name, false)
		a.printer.Ended(o.Node.Name, o.Err != nil)
	}}
	a.showSeveral(nodes)
	var wrote error
	outcomes := fleet.Plan(ctx, with, inv, nodes, several, func(node inventory.Node, planned *preview.Planned, err error) {
		if wrote != nil || ctx.Err() != nil {
			return
		}
		// The plans and what is going on may be on the same terminal.
		resume := a.printer.Suspend()
		defer resume()
		switch {
		case err == nil:
			wrote = a.showPlan(planned, o.json)
			return
		case o.json:
			wrote = writeJSON(a.Out, failedPlan{node.Name, newErrorJSON(err)})
		}
		for _, line := range explanation(err) {
			fmt.Fprintln(a.Err, line)
		}
	})
	switch status := fleetStatus(ctx, outcomes, false); {
	case wrote != nil:
		return wrote
	case ctx.Err() != nil:
		return ctx.Err()
	case status != exitOK:
		failed := 0
		for _, o := range outcomes {
			if o.Err != nil {
				failed++
			}
		}
		a.printer.Print(fmt.Sprintf("ferry: error: no plan for %d of %s", failed, prose.Count(len(nodes), "node")))
		return &reportedError{status}
	}
	return nil
}

// failedPlan is what --json has in place of the plan of one of several nodes.
type failedPlan struct {
	Node  string     `json:"node"`
	Error *errorJSON `json:"error"`
}

// writePlan writes what a deployment would do: what needs a person first.
func writePlan(w io.Writer, p *preview.Planned) error {
	var b strings.Builder
	switch {
	case p.Nothing:
		fmt.Fprintf(&b, "%s: nothing to do: the target has %s\n", p.Node, p.After.Toplevel.Name())
	default:
		fmt.Fprintf(&b, "%s: from %s to %s\n", p.Node, run.Clean(p.Before.Name), run.Clean(p.After.Name))
		for _, text := range p.Warnings {
			field(&b, "WARNING", text)
		}
		writeDifferences(&b, &p.Comparison)
		field(&b, "to ship", shipLine(p.Ship))
		activationLine(&b, p)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func activationLine(b *strings.Builder, p *preview.Planned) {
	if p.SameSystem {
		field(b, "activation", "none: only the configuration that is kept there changes")
	}
}

func shipLine(s preview.ToShip) string {
	if len(s.Paths) == 0 {
		return "nothing, everything is there"
	}
	text := fmt.Sprintf("%s in %s", prose.Size(s.Bytes), prose.Count(len(s.Paths), "path"))
	if s.Wire == 0 {
		return text + ", before compression"
	}
	if s.Differences > 0 {
		text += fmt.Sprintf(", %d as differences", s.Differences)
	}
	text = prose.Size(s.Wire) + " to send: " + text
	if s.PerSecond > 0 {
		text += fmt.Sprintf("; %s at the %s/s of the last time", about(s.Seconds), prose.Size(s.PerSecond))
	}
	return text
}

// about is a time that is not known exactly.
func about(seconds float64) string {
	switch {
	case seconds < 1:
		return "less than a second"
	case seconds < 120:
		return fmt.Sprintf("about %.0f s", seconds)
	case seconds < 2*3600:
		return fmt.Sprintf("about %.0f min", seconds/60)
	}
	return fmt.Sprintf("about %.0f h", seconds/3600)
}
