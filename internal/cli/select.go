package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"ferry/internal/deploy"
	"ferry/internal/inventory"
	"ferry/internal/nix"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// nodeFlags say which node a command is about.
type nodeFlags struct {
	file          string
	configuration string
	nixpkgs       string
	system        string
}

func (f *nodeFlags) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.file, "file", "f", "", "the inventory `FILE` (default: ferry.nix here, or in a folder above it in the same git work tree)")
	flags.StringVar(&f.configuration, "configuration", "", "without an inventory: the NixOS configuration `FILE` of one machine")
	flags.StringVar(&f.nixpkgs, "nixpkgs", "", "without an inventory: the nixpkgs `PATH` to build from")
	flags.StringVar(&f.system, "system", "", "without an inventory: the target's `SYSTEM`, such as aarch64-linux (default: this machine's)")
}

// nixFlags reach Nix.
type nixFlags struct {
	substitute bool
	maxJobs    string
	cores      string
	builders   string
	options    []string
	showTrace  bool
	keepFailed bool
	flags      *pflag.FlagSet
}

func (f *nixFlags) add(flags *pflag.FlagSet) {
	f.flags = flags
	flags.BoolVar(&f.substitute, "substitute", true, "let Nix fetch finished paths from its substituters here; =false keeps it from that")
	flags.StringVarP(&f.maxJobs, "max-jobs", "j", "", "build `N` derivations at once on this machine")
	flags.StringVar(&f.cores, "cores", "", "let each build use `N` cores")
	flags.StringVar(&f.builders, "builders", "", "remote `BUILDERS`, as nix.conf has them: 'ssh://user@host aarch64-linux'")
	flags.StringArrayVar(&f.options, "option", nil, "set an option of Nix, `NAME=VALUE`; may be repeated")
	flags.BoolVar(&f.showTrace, "show-trace", false, "show the whole trace of an evaluation error")
	flags.BoolVarP(&f.keepFailed, "keep-failed", "K", false, "keep the folder of a failed build")
}

func (f *nixFlags) client(a *app) (*nix.Client, error) {
	o := nix.Options{MaxJobs: f.maxJobs, Cores: f.cores, Builders: f.builders, ShowTrace: f.showTrace, KeepFailed: f.keepFailed}
	if f.flags.Changed("substitute") {
		o.Substitute = &f.substitute
	}
	for _, option := range f.options {
		name, value, ok := strings.Cut(option, "=")
		if !ok {
			return nil, usagef("for example --option cores=4", "--option %q: expected NAME=VALUE", option)
		}
		o.Settings = append(o.Settings, [2]string{name, value})
	}
	return &nix.Client{Runner: a.runner, Options: o}, nil
}

// open opens the inventory and picks the one node that args name, or the only one there is.
func (a *app) openNode(ctx context.Context, client *nix.Client, f nodeFlags, args []string) (*inventory.Inventory, inventory.Node, error) {
	if _, err := client.Version(ctx); err != nil {
		return nil, inventory.Node{}, err
	}
	o := inventory.Options{
		File: f.file, FerryVersion: Version, Configuration: f.configuration, Nixpkgs: f.nixpkgs, System: f.system,
		Note: func(text string) { a.printer.Print("ferry: note: " + text) },
	}
	if a.password.file != "" {
		o.Private = []string{a.password.file}
	}
	single := f.configuration != ""
	switch {
	case single && f.file != "":
		return nil, inventory.Node{}, usagef("", "--file and --configuration exclude each other")
	case !single && (f.nixpkgs != "" || f.system != ""):
		return nil, inventory.Node{}, usagef("in an inventory they are attributes of the node", "--nixpkgs and --system go with --configuration")
	case single && len(args) != 1:
		return nil, inventory.Node{}, usagef("for example: ferry deploy --configuration ./configuration.nix --nixpkgs ./nixpkgs alice@host",
			"with --configuration, name one target")
	case single:
		o.Target = args[0]
	case len(args) > 1:
		return nil, inventory.Node{}, usagef("deploy them one after another", "one node at a time: %s", strings.Join(args, " "))
	}
	inv, err := inventory.Open(ctx, client, o)
	if err != nil {
		return nil, inventory.Node{}, err
	}
	nodes := inv.Nodes()
	if single {
		return inv, nodes[0], nil
	}
	if len(args) == 1 {
		node, err := inv.Node(args[0])
		return inv, node, err
	}
	if len(nodes) != 1 {
		names := make([]string, len(nodes))
		for i, n := range nodes {
			names[i] = n.Name
		}
		if len(names) == 0 {
			return nil, inventory.Node{}, usagef("add one: nodes.NAME = { configuration = ./configuration.nix; };", "%s has no nodes", inv.File)
		}
		return nil, inventory.Node{}, usagef("name one of them", "which node? %s has %s", inv.File, strings.Join(names, ", "))
	}
	return inv, nodes[0], nil
}

// completeNodes completes a node's name in the shell.
func (a *app) completeNodes(f *nodeFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 || f.configuration != "" {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		a.open()
		inv, err := inventory.Open(cmd.Context(), &nix.Client{Runner: a.runner}, inventory.Options{File: f.file, FerryVersion: Version})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []cobra.Completion
		for _, n := range inv.Nodes() {
			if strings.HasPrefix(n.Name, toComplete) {
				names = append(names, cobra.CompletionWithDesc(n.Name, n.Target))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// roots is ferry's folder of GC roots.
func (a *app) roots() (deploy.Roots, error) {
	state := a.Getenv("XDG_STATE_HOME")
	if state == "" || !filepath.IsAbs(state) {
		home := a.Getenv("HOME")
		if home == "" {
			return deploy.Roots{}, errors.New("neither XDG_STATE_HOME nor HOME is set: no place for GC roots")
		}
		state = filepath.Join(home, ".local", "state")
	}
	return deploy.Roots{Dir: filepath.Join(state, "ferry")}, nil
}

// who names the person and machine that deploy, for those who find the target locked.
func (a *app) who() string {
	name := a.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s@%s", name, host)
}
