package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) abandonCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "abandon",
		Short: "Print how to go on without ferry on a target",
		Long: `Print the line that goes on from a deployment with plain nixos-rebuild, on the target itself. The configuration and the
nixpkgs that the deployment was evaluated from are there, so nothing is rebuilt.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.Out, abandonText)
			return err
		},
	}
}

const abandonText = `# on the target: build and switch to the deployed configuration again, without ferry
sudo nixos-rebuild switch \
  -I nixpkgs=/etc/nixos/current-configuration/nixpkgs \
  -I nixos-config=/etc/nixos/current-configuration/configuration.nix
# to edit it there, copy it out of the store first
cp -RL /etc/nixos/current-configuration/source ./source && chmod -R u+w ./source
`
