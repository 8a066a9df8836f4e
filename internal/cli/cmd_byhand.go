package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ferry/internal/action"
	"ferry/internal/leave"
	"ferry/internal/session"

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
		Use:   "by-hand [NODES]",
		Short: "Print the commands that deploy a node without ferry",
		Long: `Evaluate a node and print the few commands that build, copy and switch without ferry, ready to paste into a shell.
Nothing is built, and ferry does not connect to the target.

` + chooseHelp + `

The commands for several nodes follow each other. Put them in a file and run it with sh: if you paste them instead, the
first ssh reads the lines after it as its input. If a node cannot be evaluated, nothing is printed.`,
		Example: `  ferry by-hand pi
  ferry by-hand --action boot pi > deploy-pi.sh
  ferry by-hand --all > deploy.sh && sh deploy.sh`,
		ValidArgsFunction: a.completeMany(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runByHand(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&o.action, "action", "a", "switch", "the `ACTION`: switch, boot, test or dry-activate")
	o.nodeFlags.addMany(flags)
	flags.StringVar(&a.sshConfig, "ssh-config", "", "let ssh read `FILE` instead of ~/.ssh/config")
	o.nixFlags.add(flags)
	complete(cmd, "action", "switch", "boot", "test", "dry-activate")
	return cmd
}

func (a *app) runByHand(ctx context.Context, o byHandOptions, args []string) error {
	act, err := action.Parse(o.action)
	if err != nil {
		return &usageError{err: err}
	}
	client, err := o.client(a)
	if err != nil {
		return err
	}
	inv, nodes, err := a.openNodes(ctx, client, o.nodeFlags, args)
	if err != nil {
		return err
	}
	with := a.session(client, session.Roots{})
	texts := make([]string, len(nodes))
	_, err = a.eachNode(ctx, inv, nodes, func(ctx context.Context, i int, turn session.Turn) error {
		with := with
		with.Turn = turn
		var err error
		texts[i], err = leave.ByHand(ctx, with, inv, nodes[i], act)
		return err
	})
	var reported *reportedError
	if errors.As(err, &reported) {
		// A part of the commands would look like all of them.
		return &reportedError{exitFailed}
	}
	if err != nil {
		return err
	}
	text := strings.Join(texts, "\n")
	if len(nodes) > 1 {
		text = "# Put this in a file and run it with sh: if you paste it, the first ssh reads the lines after it as its input.\n\n" + text
	}
	_, err = fmt.Fprint(a.Out, text)
	return err
}
