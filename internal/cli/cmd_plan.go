package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"ferry/internal/deploy"
	"ferry/internal/run"

	"github.com/spf13/cobra"
)

// planOptions are the flags of ferry plan.
type planOptions struct {
	nodeFlags
	nixFlags
	json bool
}

func (a *app) planCommand() *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan [NODES]",
		Short: "Show what a deployment would do, and change nothing",
		Long: `Evaluate and build nodes, compare each with what runs on its target, and show what "ferry deploy" would do: packages and
closure size, units that would be stopped, restarted, reloaded and started, the new ones included, files in /etc, users,
what would be shipped, whether a reboot is needed, and what would stop the deployment. Nothing is changed on the targets.
If ferry's agent is there already, the login is enough; else sudo is needed once, to put it there.

Whether the new system would lock this login out is looked at by "ferry deploy" when the system has arrived.

` + chooseHelp + `

With --json it is one object per node, one after another: what "ferry diff --json" has, and nothing (the target is as
asked already), same_system (only the configuration that is kept would change), ship (paths, bytes: of their NARs, wire:
bytes to send, differences: how many paths are sent as such) and warnings.`,
		Example: `  ferry plan pi
  ferry plan @web
  ferry plan --json --all | jq -r 'select(.needs_reboot != "").node'`,
		ValidArgsFunction: a.completeMany(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runPlan(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.addMany(flags)
	a.addLogin(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runPlan(ctx context.Context, o planOptions, args []string) error {
	opts, err := a.openWork(o.nixFlags)
	if err != nil {
		return err
	}
	inv, nodes, err := a.openNodes(ctx, opts.Nix, o.nodeFlags, args)
	if err != nil {
		return err
	}
	failed := 0
	for _, node := range nodes {
		planned, err := deploy.Plan(ctx, inv, node, opts)
		switch {
		case err != nil && (len(nodes) == 1 || interrupted(ctx, err)):
			return err
		case err != nil:
			// The others are worth knowing all the same.
			a.report(ctx, err)
			failed++
			continue
		case o.json:
			err = writeJSON(a.Out, planned)
		default:
			err = writePlan(a.Out, planned)
		}
		if err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("no plan for %d of %s", failed, deploy.Count(len(nodes), "node"))
	}
	return nil
}

// writePlan writes what a deployment would do: what needs a person first.
func writePlan(w io.Writer, p *deploy.Planned) error {
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
		if p.SameSystem {
			field(&b, "activation", "none: only the configuration that is kept there changes")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func shipLine(s deploy.ToShip) string {
	if len(s.Paths) == 0 {
		return "nothing, everything is there"
	}
	text := fmt.Sprintf("%s in %s", deploy.Size(s.Bytes), deploy.Count(len(s.Paths), "path"))
	if s.Wire == 0 {
		return text + ", before compression"
	}
	if s.Differences > 0 {
		text += fmt.Sprintf(", %d as differences", s.Differences)
	}
	return deploy.Size(s.Wire) + " to send: " + text
}
