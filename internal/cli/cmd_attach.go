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
		Short: "Follow a deployment that goes on at its target, and finish it",
		Long: `Follow the deployment on a node's target that was begun last, from its first line on: after a lost connection, a
Ctrl-C, or a laptop that fell asleep. If the target waits to be confirmed, it is confirmed over a new connection and
committed, as the deployment that began it would have done. A deployment that is over tells how it ended.

The node's checks are made as the inventory here has them, whatever the target says. Where the deployment was begun with
others, that is said; where it waits for checks and the inventory has none for the node, it is only watched.`,
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
	inv, node, opts, err := a.openOne(ctx, o.nixFlags, o.nodeFlags, args)
	if err != nil {
		return err
	}
	a.beginLog("attach", inv, []inventory.Node{node})
	result, err := deploy.Attach(ctx, inv, node, opts)
	return a.concludeOne(node, result, err)
}
