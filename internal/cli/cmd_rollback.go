package cli

import (
	"context"

	"ferry/internal/deploy"
	"ferry/internal/inventory"

	"github.com/spf13/cobra"
)

// rollbackOptions are the flags of ferry rollback.
type rollbackOptions struct {
	nodeFlags
	nixFlags
	switchFlags
	elevateFlags
	to string
}

func (a *app) rollbackCommand() *cobra.Command {
	var o rollbackOptions
	cmd := &cobra.Command{
		Use:   "rollback [NODE]",
		Short: "Return to a system that a node had before",
		Long: `Make a node run and boot a system that it already has: the one that ran before the last deployment, or another with --to.
Nothing is built or shipped. A rollback is as careful as a deployment: unless the target can be reached over a new
connection afterwards, it returns to the system that runs now.

"The one that ran before" is exactly that system, not the generation with the next lower number. A second rollback has
nothing to do.`,
		Example: `  ferry rollback pi
  ferry generations pi
  ferry rollback --to 41 pi`,
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runRollback(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.to, "to", "", "return to `SYSTEM`: the number of a generation, or a toplevel's store path")
	o.nodeFlags.add(flags)
	a.addLogin(flags)
	o.switchFlags.add(flags)
	o.elevateFlags.add(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runRollback(ctx context.Context, o rollbackOptions, args []string) error {
	inv, node, with, err := a.openOne(ctx, o.nixFlags, o.nodeFlags, args)
	if err != nil {
		return err
	}
	nodes := []inventory.Node{node}
	if err := o.elevateFlags.apply(nodes); err != nil {
		return err
	}
	node = nodes[0]
	a.beginLog("rollback", inv, nodes)
	switching, err := o.switchFlags.switching(a)
	if err != nil {
		return err
	}
	result, err := deploy.Rollback(ctx, with, inv, node, deploy.RollbackOptions{Switching: switching, To: o.to})
	return a.concludeOne(node, result, err)
}
