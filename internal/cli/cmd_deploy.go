package cli

import (
	"context"
	"fmt"

	"ferry/internal/deploy"

	"github.com/spf13/cobra"
)

// deployOptions are the flags of ferry deploy.
type deployOptions struct {
	nodeFlags
	nixFlags
	action             string
	method             string
	substituteOnTarget bool
	forceNotNixOS      bool
}

func (a *app) deployCommand() *cobra.Command {
	var o deployOptions
	cmd := &cobra.Command{
		Use:   "deploy [NODE]",
		Short: "Build a node's system here, ship it, and switch the node to it",
		Long: `Build a node's system on this machine, ship what its target lacks, and switch the target to it. NODE may be left out when
the inventory has only one.

The connection is made at once, and the password for sudo asked for and checked, while evaluation and build go on. The
boot default moves last. If the target has what is asked for already, nothing is touched. There is no automatic way
back yet: what a failed activation leaves, and the command that goes back, is said.

Actions:
  switch        run the new system now and boot it from now on (default)
  boot          boot it from now on, change nothing now
  test          run it now; the next boot brings the old one back
  dry-activate  say what would change; change nothing

Methods:
  agent         one login, one sudo, one compressed stream (default)
  plain         nix-copy-closure, and ssh with a terminal for sudo; no agent on the target. The target's Nix has to
                trust the user that logs in.`,
		Example: `  ferry deploy pi
  ferry deploy --action test pi
  ferry deploy --sudo-password-command 'pass show pi' pi
  ferry deploy --configuration ./configuration.nix --nixpkgs ./nixpkgs --system aarch64-linux alice@raspberry-pi.local`,
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runDeploy(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&o.action, "action", "a", "switch", "the `ACTION`: switch, boot, test or dry-activate")
	o.nodeFlags.add(flags)
	flags.StringVar(&a.sshConfig, "ssh-config", "", "let ssh read `FILE` instead of ~/.ssh/config")
	a.password.add(flags)
	o.nixFlags.add(flags)
	flags.BoolVar(&o.substituteOnTarget, "substitute-on-target", false, "let the target fetch what its own caches have, before the rest is shipped")
	flags.BoolVar(&o.forceNotNixOS, "force-not-nixos", false, "deploy to a machine that is not NixOS, and mark it as one with /etc/NIXOS")
	flags.StringVar(&o.method, "method", "agent", "the `METHOD`: agent or plain")
	complete(cmd, "action", "switch", "boot", "test", "dry-activate")
	complete(cmd, "method", "agent", "plain")
	return cmd
}

func complete(cmd *cobra.Command, flag string, values ...cobra.Completion) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) runDeploy(ctx context.Context, o deployOptions, args []string) error {
	action, err := deploy.ParseAction(o.action)
	if err != nil {
		return &usageError{err: err}
	}
	if o.method != "agent" && o.method != "plain" {
		return usagef("", "unknown method %q: expected agent or plain", o.method)
	}
	client, err := o.client(a)
	if err != nil {
		return err
	}
	inv, node, err := a.openNode(ctx, client, o.nodeFlags, args)
	if err != nil {
		return err
	}
	roots, err := a.roots()
	if err != nil {
		return err
	}
	opts := deploy.Options{
		Action: action, Nix: client, Dialer: a.dialer(), Roots: roots, Password: a.ask, Who: a.who(),
		SubstituteOnTarget: o.substituteOnTarget, ForceNotNixOS: o.forceNotNixOS, Observe: a.printer.Observe,
	}
	var result deploy.Result
	if o.method == "plain" {
		result, err = deploy.RunPlain(ctx, inv, node, opts, a.In, a.Out, a.Err)
	} else {
		result, err = deploy.Run(ctx, inv, node, opts)
	}
	if err != nil {
		return err
	}
	a.printer.Print(summary(node.Name, node.Target, result))
	return nil
}

func summary(node, target string, r deploy.Result) string {
	system := r.Toplevel.Name()
	switch r.Outcome {
	case deploy.Nothing:
		if target == "local" {
			target = "this machine"
		}
		return fmt.Sprintf("%s: nothing to do: %s has %s", node, target, system)
	case deploy.RootMoved:
		return fmt.Sprintf("%s: same system, new configuration kept; nothing was activated", node)
	case deploy.Activated:
		return fmt.Sprintf("%s: runs %s until the next boot", node, system)
	case deploy.Described:
		return fmt.Sprintf("%s: nothing was changed", node)
	}
	done := node + ": done: "
	if r.Generation > 0 {
		done += fmt.Sprintf("generation %d, ", r.Generation)
	}
	done += system
	if r.Outcome == deploy.Installed {
		done += ", from the next boot on"
	}
	return done
}
