package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"ferry/internal/inventory"

	"github.com/spf13/cobra"
)

// nodesOptions are the flags of ferry nodes.
type nodesOptions struct {
	nodeFlags
	nixFlags
	json bool
}

func (a *app) nodesCommand() *cobra.Command {
	var o nodesOptions
	cmd := &cobra.Command{
		Use:   "nodes [NODES]",
		Short: "List the nodes of the inventory",
		Long: `List the nodes of the inventory, with system, target and tags. Every attribute of every node is checked; no
configuration is evaluated.

Without NODES, all nodes are listed. Otherwise those are listed that a deployment would choose, in the same order: each of
NODES is a name, a pattern ('web*'), or a tag (@web, '@eu-*'). Prefix a word with ! to exclude the nodes it matches.

With --json the output is one object: nodes, a list of objects with name, system, targets (in the order in which they are
tried), tags, configuration (its path below the source), source (the paths its source is limited to, or null) and impure.`,
		Example: `  ferry nodes
  ferry nodes @web '!web3'
  ferry nodes --json | jq -r '.nodes[].targets[0]'`,
		ValidArgsFunction: a.completeMany(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runNodes(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.StringVarP(&o.flake, "flake", "F", "", "the flake `REFERENCE`")
	flags.StringVarP(&o.file, "file", "f", "", "the inventory `FILE` (default: ferry.nix here, or in a folder above it in the same git work tree)")
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runNodes(ctx context.Context, o nodesOptions, args []string) error {
	client, err := o.client(a)
	if err != nil {
		return err
	}
	c, err := o.choose(args)
	if err != nil {
		return err
	}
	inv, err := a.openInventory(ctx, client, o.nodeFlags, c)
	if err != nil {
		return err
	}
	nodes := inv.Nodes()
	args = c.words
	if len(args) > 0 {
		leavesOut := func(arg string) bool { return strings.HasPrefix(arg, "!") }
		if nodes, err = inv.Choose(args, !slices.ContainsFunc(args, func(arg string) bool { return !leavesOut(arg) })); err != nil {
			return err
		}
	}
	if o.json {
		return writeNodesJSON(a.Out, nodes)
	}
	w := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSYSTEM\tTARGET\tTAGS")
	for _, n := range nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Name, cmp.Or(n.System, "-"), n.Target, strings.Join(n.Tags, " "))
	}
	return w.Flush()
}

// nodeJSON is a node as --json prints it.
type nodeJSON struct {
	Name          string   `json:"name"`
	System        string   `json:"system"`
	Targets       []string `json:"targets"`
	Tags          []string `json:"tags"`
	Configuration string   `json:"configuration"`
	Source        []string `json:"source"`
	Impure        bool     `json:"impure"`
}

func writeNodesJSON(w io.Writer, nodes []inventory.Node) error {
	list := []nodeJSON{}
	for _, n := range nodes {
		targets := append([]string{n.Target}, n.Fallbacks...)
		list = append(list, nodeJSON{n.Name, n.System, targets, append([]string{}, n.Tags...), n.Configuration, n.Source, n.Impure})
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		Nodes []nodeJSON `json:"nodes"`
	}{list})
}
