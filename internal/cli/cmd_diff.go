package cli

import (
	"context"
	"strings"

	"ferry/internal/deploy"

	"github.com/spf13/cobra"
)

// diffOptions are the flags of ferry diff.
type diffOptions struct {
	nodeFlags
	nixFlags
	source bool
	json   bool
}

func (a *app) diffCommand() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff [NODE [A [B]]]",
		Short: "Show how two systems of a node differ",
		Long: `Show how two systems of a node differ: packages by version, the closure's size, what a switch from A to B does to units,
files in /etc, users and groups, mounts, users' own units, and what takes a reboot. Nothing is changed on the target.

A and B are each a generation's number, the store path of a bundle or toplevel, or a word:
  running   what runs on the target (default for A)
  booted    what was booted there
  default   what boots there next
  tree      what the working tree builds (default for B)

The systems are read in this machine's store. Of one that is only on the target the names of its store paths are asked, so
packages and sizes are shown. Which units run is asked if A is what runs; else those count that A starts by itself. A unit
that is stopped and started again is called restarted.

What is done to units is what the switch program of B does: today's of NixOS, the one that 24.11 began with, or the one in
Perl. Which one it is, is told by what it is made of; where that leaves it open, what may differ is named. Users' own units
are handled where a user is logged in and they run.

With --source the two sources are compared instead, as a unified diff made by git.

With --json it is one object: node; before and after, each with name, toplevel, bundle, source and here (it is in this
machine's store); closure, with packages (name, change: added, removed, upgraded, downgraded, changed or rebuilt, and the
versions before and after), paths_before, paths_after, size_before and size_after in bytes; system, with units (stop,
restart, reload, start, again: not changed, not running and started all the same, skip: goes on as its configuration says,
left: goes on because no switch does anything to it, idle: changed and not running), etc, users, groups, mounts (of fstab,
and "swap DEVICE") and user_units, with added, removed and changed each, user_unit_actions, as units, swapoff (devices),
reexec (systemd starts itself anew), program (2026, 2024-09 or perl) and may_differ (what another one does that it may be),
refused (why the program would do nothing, or ""), problems (what of that cannot go well), and boot, what only a reboot
brings; needs_reboot, why a switch is not possible, or ""; units_judged, whether what runs was not asked; and unknown, what
could not be found out. closure and system are null where a system is not here.`,
		Example: `  ferry diff pi
  ferry diff pi 41 42
  ferry diff --source pi
  ferry diff --json pi running tree | jq '.system.units.restart'`,
		Args: cobra.MaximumNArgs(3),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeNodes(&o.nodeFlags)(cmd, args, toComplete)
			}
			if len(args) > 2 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []cobra.Completion{deploy.SideRunning, deploy.SideBooted, deploy.SideDefault, deploy.SideTree}, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runDiff(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.source, "source", false, "compare the sources")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.add(flags)
	a.addLogin(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runDiff(ctx context.Context, o diffOptions, args []string) error {
	if o.source && o.json {
		return usagef("", "--source and --json exclude each other")
	}
	opts, err := a.openWork(o.nixFlags)
	if err != nil {
		return err
	}
	inv, node, err := a.openNode(ctx, opts.Nix, o.nodeFlags, args[:min(len(args), 1)])
	if err != nil {
		return err
	}
	before, after := deploy.SideRunning, deploy.SideTree
	if len(args) > 1 {
		before = strings.TrimSpace(args[1])
	}
	if len(args) > 2 {
		after = strings.TrimSpace(args[2])
	}
	if o.source {
		return deploy.DiffSource(ctx, inv, node, before, after, opts, a.Out)
	}
	c, err := deploy.Diff(ctx, inv, node, before, after, opts)
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(a.Out, c)
	}
	return writeComparison(a.Out, c)
}
