package cli

import (
	"context"

	"ferry/internal/deploy"
	"ferry/internal/inventory"

	"github.com/spf13/cobra"
)

// attachOptions are the flags of ferry attach.
type attachOptions struct {
	nodeFlags
	nixFlags
}

func (a *app) attachCommand() *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use:   "attach [NODE]",
		Short: "Follow a deployment that continues on its target, and finish it",
		Long: `Follow the last deployment on a node's target from its first line: after a lost connection, a Ctrl-C, or a laptop that
fell asleep. If the target is waiting to be confirmed, ferry confirms it over a new connection and commits, as the
original deployment would have done. If it is already over, ferry shows how it ended.

ferry runs the node's checks as this machine's inventory lists them, whatever the target says. If the deployment was
started with other checks, ferry says so. If the deployment waits for checks and the inventory has none for the node,
ferry only watches.`,
		Example:           "  ferry attach pi",
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runAttach(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	o.nodeFlags.add(flags)
	a.addLogin(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runAttach(ctx context.Context, o attachOptions, args []string) error {
	inv, node, with, err := a.openOne(ctx, o.nixFlags, o.nodeFlags, args)
	if err != nil {
		return err
	}
	a.beginLog("attach", inv, []inventory.Node{node})
	result, err := deploy.Attach(ctx, with, inv, node, a.Leave)
	return a.concludeOne(node, result, err)
}
