package cli

import "github.com/spf13/cobra"

// usageTemplate is cobra's own without what ferry has no use for, and with commands and topics named as such.
const usageTemplate = `Usage:
{{if .HasAvailableSubCommands}}  {{.CommandPath}} COMMAND [FLAGS]{{else}}  {{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasHelpSubCommands}}

Topics:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of all commands:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if and .HasAvailableSubCommands (not .HasParent)}}

"{{.CommandPath}} help COMMAND" says more about a command.{{end}}
`

// inventoryTopic is "ferry help inventory".
func inventoryTopic() *cobra.Command {
	topic := &cobra.Command{
		Use:   "inventory",
		Short: "How ferry.nix describes the machines",
		Long: `ferry.nix is the inventory: the machines, and the nixpkgs they are built from.

  {
    # Any nixpkgs tree: fetchTarball with a hash, npins, niv, a checkout.
    nixpkgs = fetchTarball { url = "https://…"; sha256 = "…"; };

    nodes.pi = {
      configuration = ./pi/configuration.nix;    # an ordinary NixOS configuration
      system = "aarch64-linux";
      target = "alice@raspberry-pi.local";
    };
  }

Without a ferry.nix, the nixosConfigurations of a flake.nix are the nodes, and their targets are called as they are; see
"ferry deploy --flake .#pi alice@pi".

Attributes of a node:
  configuration   the path of its NixOS configuration; must be in the inventory's folder or git work tree
  nixpkgs         the nixpkgs tree for this node; default: the inventory's
  system          its platform; default: this machine's
  target          what ssh takes as a destination, ~/.ssh/config included, or "local"; default: its name. Of a list,
                  they are tried in order
  elevate         what makes the user root there: "sudo" (default), "doas", or a list of words
  tags            a list of words that choose it: ferry deploy @web
  source          a list of the paths that it is made from, such as [ ./common ./web1 ]: an edit elsewhere then does not
                  change the node; default: the whole source
  passwordFor     a word, such as "db": nodes with different words have different passwords; default: nodes with the
                  same user share one
  impure          true: evaluate it impurely, without trying a pure evaluation first
  checks          what must hold after a switch; otherwise the node is rolled back:

    checks = {
      units.failed = "none";    # default "no-new": no unit fails that did not fail before; or "ignore"
      http = [ { url = "http://web1/healthz"; status = 200; contains = "ok"; from = "here"; timeout = 10; } ];
      commands = [ { run = [ "pg_isready" "-q" ]; timeout = 20; } ];
    };

A request is repeated until it succeeds or its timeout is over, from this machine or, with from = "target", from the node.
A command runs on the node as root and must exit with status 0. Everything except url and run may be left out.

The inventory may be a function; it is called with those of these arguments that it names: "source", the snapshot's store
path, and "system", this machine's platform.

In a git work tree, the source is the files that git knows, with their present content, committed or not. Elsewhere it is
the whole folder. All of it goes to the store here and on the target, where everyone can read it: keep secrets out of it. A
file that looks like a secret is refused, unless the inventory lists it: worldReadable = [ ./tests/snakeoil.key ];`,
	}
	topic.SetHelpTemplate("{{.Long}}\n")
	return topic
}

// nameCompletion gives cobra's completion command ferry's own words, and leaves out a shell that runs where Nix does not.
func nameCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		cmd.Short = "Print a script for shell completion of ferry's commands, flags and nodes"
		cmd.Long = `Print a script that makes a shell complete ferry's commands, flags and nodes. Put it where your shell looks, and start a
new shell:

  mkdir -p ~/.local/share/bash-completion/completions
  ferry completion bash > ~/.local/share/bash-completion/completions/ferry

  mkdir -p ~/.config/fish/completions
  ferry completion fish > ~/.config/fish/completions/ferry.fish

  ferry completion zsh > "${fpath[1]}/_ferry"

bash needs the package bash-completion; zsh needs "autoload -U compinit; compinit" in ~/.zshrc.`
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := "ferry completion bash, zsh or fish"
			if near := nearestCommand(cmd, args[0]); near != "" {
				hint = "did you mean: ferry completion " + near
			}
			return usagef(hint, "unknown shell %q", args[0])
		}
		for _, shell := range cmd.Commands() {
			shell.Long = ""
			if shell.Name() == "powershell" {
				cmd.RemoveCommand(shell)
			}
		}
	}
}
