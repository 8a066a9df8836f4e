package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/inventory"
	"ferry/internal/prose"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// elevateFlags are how nixos-rebuild and others are told to become root. ferry does so when it must, and asks for the password: only
// --elevate with another program says something new.
type elevateFlags struct{ program string }

func (f *elevateFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.program, "elevate", "", "become root on the target with `PROGRAM` instead of the node's elevate: sudo, doas, or a command with its arguments")
	for _, name := range []string{"sudo", "use-remote-sudo"} {
		flags.Bool(name, false, "accepted; ferry uses sudo where it needs root")
		_ = flags.MarkHidden(name)
	}
	flags.BoolP("ask-sudo-password", "S", false, "accepted; ferry asks where sudo wants a password")
	_ = flags.MarkHidden("ask-sudo-password")
}

// apply sets the program for all nodes.
func (f *elevateFlags) apply(nodes []inventory.Node) error {
	if f.program == "" {
		return nil
	}
	words := strings.Fields(f.program)
	if len(words) == 0 || strings.HasPrefix(words[0], "-") {
		return usagef("for example --elevate doas", "--elevate %q: expected a program", f.program)
	}
	for i := range nodes {
		nodes[i].Elevate = words
	}
	return nil
}

// choiceFlags are how colmena and morph are told which nodes: --on web1,@db and --tagged web,eu. They mean the same as words.
type choiceFlags struct{ on, tagged []string }

func (f *choiceFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.on, "on", nil, "accepted; the same as words")
	flags.StringSliceVar(&f.tagged, "tagged", nil, "accepted; the same as @words")
	_ = flags.MarkHidden("on")
	_ = flags.MarkHidden("tagged")
}

// words are args with what the flags choose.
func (f *choiceFlags) words(args []string) []string {
	words := slices.Concat(args, f.on)
	for _, tag := range f.tagged {
		words = append(words, "@"+tag)
	}
	return words
}

// flagHints says what ferry has instead of a flag of another tool's: of nixos-rebuild, colmena, deploy-rs, morph and nh.
func flagHints() map[string]string {
	const (
		builds  = "ferry builds on this machine, or on the builders that Nix knows: a line \"ssh://USER@HOST SYSTEM\" in /etc/nix/machines, or --builders"
		lock    = "ferry writes no lock file: nix flake update"
		plan    = "ferry plan shows what a deployment would do; --action dry-activate lets the target say it"
		words   = "name the nodes: ferry deploy web1 '@db'"
		always  = "it is always on; --confirm-timeout and --activation-timeout say how long the target waits"
		attr    = "ferry reads ferry.nix and flakes; for one configuration: ferry deploy --configuration FILE --nixpkgs PATH USER@HOST"
		verbose = "-v shows every command, and build logs"
	)
	return map[string]string{
		"build-host": builds, "remote-build": builds, "build-on-target": builds,
		"recreate-lock-file": lock, "commit-lock-file": lock, "update-input": lock, "upgrade": "the inventory's pin says which nixpkgs is built: move it",
		"dry-run": plan, "dry": plan, "dry-activate": plan, "n": plan,
		"nodes": words, "limit": words, "target": words, "hostname": words, "H": words, "on": words, "tagged": words,
		"target-host": "name the target behind the node: ferry deploy --flake .#pi alice@pi, or nodes.NAME.target in ferry.nix",
		"attr":        attr, "A": attr, "as": attr, "accept-flake-config": "ferry does not read nixConfig: put its caches into nix.conf, or use --option", "targets": words,
		"magic-rollback": always, "auto-rollback": always, "rollback-succeeded": always,
		"print-build-logs": verbose, "L": verbose, "debug-logs": verbose, "show-logs": verbose,
		"skip-health-checks":             "no flag skips checks: take them out of nodes.NAME.checks",
		"skip-pre-deploy-checks":         "ferry has none; ferry check looks for what would make a deployment fail",
		"skip-checks":                    "ferry runs no checks of a flake",
		"checksigs":                      "the agent puts paths into the target's store as root: no signature is asked for",
		"keep-result":                    "ferry keeps the last bundle of each node; ferry build -o LINK makes a link to it",
		"rollback":                       "ferry rollback NODE",
		"upload-keys":                    "ferry uploads no keys: agenix or sops-nix",
		"no-keys":                        "ferry uploads no keys, and leaves those on the target as they are",
		"use-substitutes":                "--substitute-on-target",
		"substitute-on-destination":      "--substitute-on-target",
		"substitutes-on-target":          "--substitute-on-target",
		"no-substitute":                  "--substitute=false",
		"no-substitutes":                 "--substitute=false",
		"ssh-user":                       "write the user into the target: USER@HOST",
		"ssh-opts":                       "ferry runs your ssh: put options into ~/.ssh/config, or name another file with --ssh-config",
		"no-build-nix":                   "ferry uses this machine's Nix; leave it out",
		"fast":                           "ferry uses this machine's Nix; leave it out",
		"eval-node-limit":                "ferry evaluates as many nodes at once as cores and memory allow; leave it out",
		"evaluator":                      "ferry evaluates as many nodes at once as cores and memory allow; leave it out",
		"passwd":                         "--sudo-password-file or --sudo-password-command",
		"interactive-sudo":               "ferry asks where sudo wants a password; leave it out",
		"reboot-change-factor":           "deploy nodes in batches: --batch 1,10%,rest",
		"force-replace-unknown-profiles": "--replace-unknown",
		"V":                              "ferry version",
	}
}

// commandHints says what ferry has instead of a command of another tool's.
func commandHints() map[string]string {
	return map[string]string{
		"apply": "ferry deploy", "switch": "ferry deploy", "push": "ferry deploy; nothing ships without it", "boot": "ferry deploy --action boot",
		"test": "ferry deploy --action test", "dry-activate": "ferry deploy --action dry-activate", "dry-run": "ferry plan", "dry-build": "ferry plan, or ferry why-build",
		"apply-local": `ferry deploy, with target = "local"`, "list": "ferry nodes", "ls": "ferry nodes", "info": "ferry status", "run": "ferry exec",
		"list-generations": "ferry generations", "upload-keys": "ferry uploads no keys: agenix or sops-nix", "upload-secrets": "ferry uploads no keys: agenix or sops-nix",
		"os": "ferry deploy", "update": "the inventory's pin says which nixpkgs is built: move it", "reboot": "ferry deploy --reboot, or ferry exec NODE --sudo -- systemctl reboot",
		"check-health": "ferry status", "eval": "nix-instantiate --eval; ferry nodes shows the inventory",
	}
}

// flagError is the error of a command line whose flags are wrong: with the flag that was meant, or ferry's own way.
func flagError(cmd *cobra.Command, err error) error {
	if args := cmd.Flags().Args(); !cmd.HasParent() && len(args) > 0 {
		// The flag is of a command that there is not.
		return unknownCommand(cmd, args[0])
	}
	wrong := &usageError{err: err}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return wrong
	}
	name := unknown.GetSpecifiedName()
	if hint := flagHints()[name]; hint != "" {
		wrong.hints = []string{hint}
		return wrong
	}
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	if near := prose.Nearest(name, known); near != "" && len(name) > 1 {
		wrong.hints = []string{"did you mean: --" + near}
	} else {
		wrong.hints = []string{fmt.Sprintf("%s --help lists the flags", cmd.CommandPath())}
	}
	return wrong
}

// runRoot is ferry without a command: it shows help. With a word that is no command, it says so.
func (a *app) runRoot(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

func unknownCommand(root *cobra.Command, word string) error {
	hint := "ferry help lists the commands"
	if mine := commandHints()[word]; mine != "" {
		hint = "use: " + mine
	} else if near := nearestCommand(root, word); near != "" {
		hint = "did you mean: ferry " + near
	}
	return usagef(hint, "unknown command %q", word)
}

// nearestCommand is the command below cmd that word was most likely meant to be, or "".
func nearestCommand(cmd *cobra.Command, word string) string {
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	slices.Sort(names)
	return prose.Nearest(word, names)
}

// helpCommand is cobra's own, but that a word that is no command is an error.
func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command or topic",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var found []cobra.Completion
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && !c.Hidden && strings.HasPrefix(c.Name(), toComplete) {
					found = append(found, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return found, cobra.ShellCompDirectiveNoFileComp
		},
		PersistentPreRun: func(*cobra.Command, []string) { a.started = true },
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || found == nil || len(rest) > 0 {
				word := args[len(args)-max(len(rest), 1)]
				hint := "ferry help lists the commands and topics"
				if near := nearestCommand(found, word); near != "" {
					hint = "did you mean: ferry help " + strings.TrimSpace(strings.TrimPrefix(found.CommandPath(), "ferry")+" "+near)
				}
				return usagef(hint, "there is no help about %q", word)
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

// noteHabits says once what of another tool's ways is set and not read.
func (a *app) noteHabits(cmd *cobra.Command) {
	if cmd.Flags().Lookup("ssh-config") != nil && a.Getenv("NIX_SSHOPTS") != "" {
		a.note("NIX_SSHOPTS is set, and ferry does not read it: put its options into ~/.ssh/config")
	}
}
