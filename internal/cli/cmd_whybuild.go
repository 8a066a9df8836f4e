package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"ferry/internal/preview"
	"ferry/internal/prose"

	"github.com/spf13/cobra"
)

// whyBuildOptions are the flags of ferry why-build.
type whyBuildOptions struct {
	nodeFlags
	nixFlags
	json bool
}

func (a *app) whyBuildCommand() *cobra.Command {
	var o whyBuildOptions
	cmd := &cobra.Command{
		Use:   "why-build [NODE]",
		Short: "Say why a node's system has to be built again",
		Long: `Evaluate a node, and show what would be built and what would be fetched for it, what is built under emulation or by a
remote builder, and what has changed since the system that was last deployed from here: the smallest set of changes that
explains all others. ferry does not connect to the target, and builds nothing.

With --json the output is one object: node; deployed and new, two toplevels; same; build and fetch, lists of store
paths; foreign, a list of derivation, system and emulated; report, null or causes (kind, name of the derivation,
part_of, text, before, after) and differing, how many derivations differ; and unknown, why there is no report.`,
		Example: `  ferry why-build pi
  ferry why-build --json pi | jq -r '.build[]'`,
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runWhyBuild(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.add(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runWhyBuild(ctx context.Context, o whyBuildOptions, args []string) error {
	inv, node, with, err := a.openOne(ctx, o.nixFlags, o.nodeFlags, args)
	if err != nil {
		return err
	}
	why, err := preview.WhyBuild(ctx, with, inv, node)
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(a.Out, why)
	}
	return writeBuilding(a.Out, why)
}

func writeBuilding(w io.Writer, why *preview.BuildReasons) error {
	var b strings.Builder
	switch n := len(why.Build); {
	case n == 0 && len(why.Fetch) == 0:
		fmt.Fprintf(&b, "%s: nothing is to be built\n", why.Node)
	default:
		fmt.Fprintf(&b, "%s: %s to be built, %s to be fetched\n", why.Node, prose.Count(n, "derivation"), prose.Count(len(why.Fetch), "path"))
	}
	emulated, elsewhere := map[string][]string{}, map[string][]string{}
	var systems []string
	for _, f := range why.Foreign {
		if len(emulated[f.System])+len(elsewhere[f.System]) == 0 {
			systems = append(systems, f.System)
		}
		if f.Emulated {
			emulated[f.System] = append(emulated[f.System], f.Name())
		} else {
			elsewhere[f.System] = append(elsewhere[f.System], f.Name())
		}
	}
	for _, system := range systems {
		if names := emulated[system]; len(names) > 0 {
			list(&b, "emulated", append([]string{fmt.Sprintf("%d for %s: %s", len(names), system, names[0])}, names[1:]...))
		}
		if names := elsewhere[system]; len(names) > 0 {
			list(&b, "by a builder", append([]string{fmt.Sprintf("%d for %s: %s", len(names), system, names[0])}, names[1:]...))
		}
	}
	var names []string
	for _, drv := range why.Build {
		names = append(names, strings.TrimSuffix(drv.Name(), ".drv"))
	}
	list(&b, "to build", names)
	if why.Same {
		field(&b, "deployed", "the system is the deployed one")
	}
	if why.Report != nil {
		writeReport(&b, why.Report)
	}
	field(&b, "not known", why.Unknown)
	_, err := io.WriteString(w, b.String())
	return err
}
