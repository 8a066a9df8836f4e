package cli

import (
	"context"
	"fmt"

	"ferry/internal/deploy"

	"github.com/spf13/cobra"
)

// byHandOptions are the flags of ferry by-hand.
type byHandOptions struct {
	nodeFlags
	nixFlags
	action string
}

func (a *app) byHandCommand() *cobra.Command {
	var o byHandOptions
	cmd := &cobra.Command{
		Use:   "by-hand [NODE]",
		Short: "Print the commands that deploy a node without ferry",
		Long: `Evaluate a node and print the few commands that build, copy and switch without ferry, ready to paste into a shell.
Nothing is built, and nothing on the target is touched: it is not even connected to.`,
		Example: `  ferry by-hand pi
  ferry by-hand --action boot pi > deploy-pi.sh`,
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runByHand(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&o.action, "action", "a", "switch", "the `ACTION`: switch, boot, test or dry-activate")
	o.nodeFlags.add(flags)
	flags.StringVar(&a.sshConfig, "ssh-config", "", "let ssh read `FILE` instead of ~/.ssh/config")
	o.nixFlags.add(flags)
	complete(cmd, "action", "switch", "boot", "test", "dry-activate")
	return cmd
}

func (a *app) runByHand(ctx context.Context, o byHandOptions, args []string) error {
	action, err := deploy.ParseAction(o.action)
	if err != nil {
		return &usageError{err: err}
	}
	client, err := o.client(a)
	if err != nil {
		return err
	}
	inv, node, err := a.openNode(ctx, client, o.nodeFlags, args)
	if err != nil {
		return err
	}
	text, err := deploy.ByHand(ctx, inv, node, a.dialer(), action, a.printer.Observe)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(a.Out, text)
	return err
}
