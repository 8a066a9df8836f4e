package cli

import (
	"context"
	"fmt"

	"ferry/internal/leave"

	"github.com/spf13/cobra"
)

// abandonOptions are the flags of ferry abandon.
type abandonOptions struct {
	nodeFlags
	nixFlags
	write string
}

func (a *app) abandonCommand() *cobra.Command {
	var o abandonOptions
	cmd := &cobra.Command{
		Use:   "abandon [NODE]",
		Short: "Print how to go on without ferry",
		Long: `Print the command that continues from a deployment with plain nixos-rebuild, on the target itself. The configuration and
the nixpkgs that the deployment was evaluated from are there, so nothing is rebuilt ("ferry verify" proves it).

With --write, ferry writes a folder that builds a node's bundle on this machine without ferry: a default.nix to read and
edit, the bundle's two scripts, and a copy of the source. ferry builds the folder, and fails unless the result is the same
store path that ferry makes. nixpkgs is used from the store, and the link "result" keeps it there.`,
		Example: `  ferry abandon
  ferry abandon --write ./by-hand pi && cd by-hand && nix-build`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.write == "" {
				_, err := fmt.Fprint(a.Out, abandonText)
				return err
			}
			return a.runAbandon(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.write, "write", "", "make the folder `DIR`, which builds the node's bundle without ferry")
	_ = cmd.MarkFlagDirname("write")
	o.nodeFlags.add(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runAbandon(ctx context.Context, o abandonOptions, args []string) error {
	inv, node, with, err := a.openOne(ctx, o.nixFlags, o.nodeFlags, args)
	if err != nil {
		return err
	}
	bundle, err := leave.Write(ctx, with, inv, node, o.write)
	if err != nil {
		return err
	}
	a.printer.Print(fmt.Sprintf("%s: %s builds the same bundle without ferry: nix-build, then result/nixos-rebuild-switch", node.Name, o.write))
	_, err = fmt.Fprintln(a.Out, bundle)
	return err
}

const abandonText = `# on the target: build and switch to the deployed configuration again, without ferry
sudo nixos-rebuild switch \
  -I nixpkgs=/etc/nixos/current-configuration/nixpkgs \
  -I nixos-config=/etc/nixos/current-configuration/configuration.nix
# the same where it was deployed from a flake, whose node is called NODE
cd /etc/nixos/current-configuration && sudo nixos-rebuild switch --flake '.#NODE'
# or, without flakes and for what was not committed
sudo nixos-rebuild switch --file /etc/nixos/current-configuration/default.nix --attr NODE
# to edit it there, copy it out of the store first
cp -RL /etc/nixos/current-configuration/source ./source && chmod -R u+w ./source
`
