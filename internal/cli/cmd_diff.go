package cli

import (
	"context"
	"strings"

	"ferry/internal/preview"

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

ferry reads the systems in this machine's store. If a system is only on the target, ferry asks for the names of its store
paths, and shows packages and sizes. If A is the running system, ferry asks which units run; otherwise it assumes the units
that A starts at boot. A unit that is stopped and started again is called restarted.

What happens to units is decided as B's own switch program decides: today's program of NixOS, the first version from 24.11,
or the one in Perl. ferry recognises the program by its files; where that leaves a doubt, it names the units that may
differ. Units of users are handled only where the user is logged in and the units run.

With --source, ferry compares the two sources instead, as a unified diff made by git.

With --json the output is one object: node; before and after, each with name, toplevel, bundle, source and here (it is
in this machine's store); closure, with packages (name, change: added, removed, upgraded, downgraded, changed or
rebuilt, and the versions before and after), paths_before, paths_after, size_before and size_after in bytes; system,
with units (stop, restart, reload, start, again: not changed, not running and started all the same, skip: goes on as
its configuration says, left: goes on because no switch does anything to it, idle: changed and not running), etc,
users, groups, mounts (of fstab, and "swap DEVICE") and user_units, with added, removed and changed each,
user_unit_actions, as units, swapoff (devices), reexec (systemd starts itself anew), program (2026, 2024-09 or perl)
and may_differ (what another one does that it may be), refused (why the program would do nothing, or ""), problems
(what of that cannot go well), and boot, what only a reboot brings; needs_reboot, why a switch is not possible, or "";
units_judged, whether what runs was not asked; and unknown, what could not be found out. closure and system are null
where a system is not here.`,
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
			return []cobra.Completion{preview.SideRunning, preview.SideBooted, preview.SideDefault, preview.SideTree}, cobra.ShellCompDirectiveNoFileComp
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
	with, err := a.openWork(o.nixFlags)
	if err != nil {
		return err
	}
	inv, node, err := a.openNode(ctx, with.Nix, o.nodeFlags, args[:min(len(args), 1)])
	if err != nil {
		return err
	}
	before, after := preview.SideRunning, preview.SideTree
	if len(args) > 1 {
		before = strings.TrimSpace(args[1])
	}
	if len(args) > 2 {
		after = strings.TrimSpace(args[2])
	}
	if o.source {
		return preview.DiffSource(ctx, with, inv, node, before, after, a.Out)
	}
	c, err := preview.Diff(ctx, with, inv, node, before, after)
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(a.Out, c)
	}
	return writeComparison(a.Out, c)
}
