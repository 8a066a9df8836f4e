package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"ferry/internal/inventory"

	"github.com/spf13/cobra"
)

func (a *app) nodesCommand() *cobra.Command {
	var nixes nixFlags
	var file string
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes of the inventory",
		Long: `List the nodes of the inventory, with system, target and tags. Every attribute of every node is checked; no
configuration is evaluated.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := nixes.client(a)
			if err != nil {
				return err
			}
			if _, err := client.Version(cmd.Context()); err != nil {
				return err
			}
			inv, err := inventory.Open(cmd.Context(), client, inventory.Options{
				File: file, FerryVersion: Version, Note: func(text string) { a.printer.Print("ferry: note: " + text) },
			})
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NODE\tSYSTEM\tTARGET\tTAGS")
			for _, n := range inv.Nodes() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Name, n.System, n.Target, strings.Join(n.Tags, " "))
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the inventory `FILE` (default: ferry.nix here, or in a folder above it in the same git work tree)")
	nixes.add(cmd.Flags())
	return cmd
}
