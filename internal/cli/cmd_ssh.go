package cli

import (
	"context"
	"errors"

	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"

	"github.com/spf13/cobra"
)

func (a *app) sshCommand() *cobra.Command {
	var f nodeFlags
	cmd := &cobra.Command{
		Use:   "ssh [NODE] [-- COMMAND [ARG...]]",
		Short: "Open a session on a node",
		Long: `Open a session on a node with your own ssh, at the first of its addresses that answers, or run a command there. Arguments
are passed unchanged.

The exit status is ssh's: that of the session or command, or 255.`,
		Example: `  ferry ssh web1
  ferry ssh web1 -- journalctl -u nginx -f
  ferry ssh web1 -- cat /etc/nixos/current-configuration/ferry.json > web1.json`,
		ValidArgsFunction: a.completeNodes(&f),
		RunE: func(cmd *cobra.Command, args []string) error {
			words, argv := args, []string(nil)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				words, argv = args[:dash], args[dash:]
			}
			return a.runSSH(cmd.Context(), f, words, argv)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.add(flags)
	flags.StringVar(&a.sshConfig, "ssh-config", "", "let ssh read `FILE` instead of ~/.ssh/config")
	return cmd
}

func (a *app) runSSH(ctx context.Context, f nodeFlags, words, argv []string) error {
	_, node, err := a.openNode(ctx, a.newNix(nix.Options{}), f, words)
	if err != nil {
		return err
	}
	dialer := a.dialer()
	address, err := session.Answers(ctx, node, dialer, a.note)
	if err != nil {
		return err
	}
	if address.Local() {
		return usagef("", "%s is this machine", node.Name)
	}
	err = dialer.Session(ctx, address, argv, a.In, a.Out, a.Err)
	var ended *run.Error
	if errors.As(err, &ended) && ended.Status >= 0 {
		return &reportedError{ended.Status}
	}
	return err
}
