package cli

import (
	"context"
	"fmt"

	"ferry/internal/deploy"

	"github.com/spf13/cobra"
)

// buildOptions are the flags of ferry build.
type buildOptions struct {
	nodeFlags
	nixFlags
	link string
}

func (a *app) buildCommand() *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build [NODE]",
		Short: "Build a node's bundle and print its store path",
		Long: `Build a node's bundle: the one store path that holds its configuration, nixpkgs, system and switch script. No target is
needed.

Its store path is all that is printed on standard output. ferry keeps the last bundle of each node from being
collected; with -o, a link of your own keeps this one.`,
		Example: `  ferry build pi
  ferry build -o result pi && ls result/`,
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runBuild(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&o.link, "out-link", "o", "", "make `LINK` point at the bundle and keep it")
	o.nodeFlags.add(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runBuild(ctx context.Context, o buildOptions, args []string) error {
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
	bundle, err := deploy.BuildOnly(ctx, inv, node, client, roots, o.link, a.printer.Observe)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.Out, bundle)
	return err
}
