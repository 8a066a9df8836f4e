package cli

import (
	"context"
	"fmt"

	"ferry/internal/nix"
	"ferry/internal/session"

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
		Use:   "build [NODES]",
		Short: "Build a node's bundle and print its store path",
		Long: `Build a node's bundle: the one store path that holds its configuration, nixpkgs, system and switch script. No target is
needed.

Standard output is the bundle's store path and nothing else. ferry keeps the last bundle of each node from being garbage
collected; with -o, a link of your own keeps this one.

` + chooseHelp + `

With --all, or with several nodes, there is one line per node, in their order: its name, a space, and the store path. The
links of -o are then called LINK-NODE. A node that fails does not stop the others; ferry exits with 3, or with 1 if none
was built.`,
		Example: `  ferry build pi
  ferry build -o result pi && ls result/
  ferry build --all | while read -r node bundle; do nix path-info -S "$bundle"; done`,
		ValidArgsFunction: a.completeMany(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runBuild(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&o.link, "out-link", "o", "", "make `LINK` point at the bundle and keep it; with several nodes, LINK-NODE for each of them")
	o.nodeFlags.addMany(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runBuild(ctx context.Context, o buildOptions, args []string) error {
	with, err := a.openWork(o.nixFlags)
	if err != nil {
		return err
	}
	inv, nodes, err := a.openNodes(ctx, with.Nix, o.nodeFlags, args)
	if err != nil {
		return err
	}
	named := len(nodes) > 1 || o.all
	bundles := make([]nix.StorePath, len(nodes))
	errs, err := a.eachNode(ctx, inv, nodes, func(ctx context.Context, i int, turn session.Turn) error {
		link := o.link
		if link != "" && named {
			link += "-" + nodes[i].Name
		}
		with := with
		with.Turn = turn
		v := with.At(inv, nodes[i])
		ready, err := v.EvaluateAndBuild(ctx)
		bundles[i] = ready.Bundle
		if err != nil || link == "" {
			return err
		}
		return v.Keep(ctx, link, ready.Bundle)
	})
	for i, bundle := range bundles {
		line := string(bundle)
		if named {
			line = nodes[i].Name + " " + line
		}
		if errs[i] != nil {
			continue
		}
		if _, err := fmt.Fprintln(a.Out, line); err != nil {
			return err
		}
	}
	return err
}
