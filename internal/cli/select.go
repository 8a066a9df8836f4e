package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/session"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// nodeFlags say which node a command is about.
type nodeFlags struct {
	file          string
	configuration string
	nixpkgs       string
	system        string
	all           bool
	noCache       bool
	choice        choiceFlags
	flake         string
	override      []string
	impure        bool
	refresh       bool
}

func (f *nodeFlags) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.file, "file", "f", "", "the inventory `FILE` (default: ferry.nix here, or in a folder above it in the same git work tree)")
	flags.StringVarP(&f.flake, "flake", "F", "", "the flake `REFERENCE`, or REFERENCE#NODE with the node's target as the only argument")
	flags.StringArrayVar(&f.override, "override-input", nil, "take another flake for an input, `INPUT=REFERENCE`; may be repeated")
	flags.BoolVar(&f.impure, "impure", false, "evaluate a flake impurely")
	flags.BoolVar(&f.refresh, "refresh", false, "have Nix ask again what a flake's references stand for")
	flags.StringVar(&f.configuration, "configuration", "", "without an inventory: the NixOS configuration `FILE` of one machine")
	flags.StringVar(&f.nixpkgs, "nixpkgs", "", "without an inventory: the nixpkgs `PATH` to build from")
	flags.BoolVar(&f.noCache, "no-cache", false, "evaluate again instead of using the cache of evaluations")
	flags.StringVar(&f.system, "system", "", "without an inventory: the target's `SYSTEM`, such as aarch64-linux (default: this machine's)")
}

// addMany is add for a command that works on several nodes.
func (f *nodeFlags) addMany(flags *pflag.FlagSet) {
	flags.BoolVar(&f.all, "all", false, "all nodes of the inventory; with '!NAME', all except that one")
	f.choice.add(flags)
	f.add(flags)
}

// chooseHelp says in the help of a command how several nodes are named.
const chooseHelp = `Each of NODES is a name, a pattern ('web*'), or a tag (@web, '@eu-*'). Prefix a word with ! to exclude the nodes it
matches ('!web3'). --all chooses every node. With none of these, the inventory's only node is used.`

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
	flags.BoolVar(&f.substitute, "substitute", true, "let Nix on this machine fetch finished paths from its substituters; =false turns that off")
	flags.StringVarP(&f.maxJobs, "max-jobs", "j", "", "build `N` derivations at once on this machine")
	flags.StringVar(&f.cores, "cores", "", "let each build use `N` cores")
	flags.StringVar(&f.builders, "builders", "", "remote `BUILDERS`, written as in nix.conf: 'ssh://user@host aarch64-linux'")
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
	return a.newNix(o), nil
}

// openNode opens the inventory and picks the one node that args name, or the only one there is.
func (a *app) openNode(ctx context.Context, client *nix.Client, f nodeFlags, args []string) (*inventory.Inventory, inventory.Node, error) {
	chosen, err := f.choose(args)
	if err != nil {
		return nil, inventory.Node{}, err
	}
	if args = chosen.words; f.configuration == "" && len(args) > 1 {
		return nil, inventory.Node{}, usagef("deploy them one after another", "one node at a time: %s", strings.Join(args, " "))
	}
	inv, err := a.openInventory(ctx, client, f, chosen)
	if err != nil {
		return nil, inventory.Node{}, err
	}
	nodes := inv.Nodes()
	switch {
	case f.configuration != "":
		return inv, nodes[0], nil
	case len(args) == 1 && isChoice(args[0]):
		if nodes, err = inv.Choose(args, false); err == nil && len(nodes) != 1 {
			err = usagef("name one of them", "one node at a time: %s means %s", args[0], nodeNames(nodes))
		}
		if err != nil {
			return nil, inventory.Node{}, err
		}
		return inv, nodes[0], nil
	case len(args) == 1:
		node, err := inv.Node(args[0])
		return inv, node, err
	case len(nodes) == 0:
		return nil, inventory.Node{}, noNodes(inv)
	case len(nodes) > 1 || inv.Flake() && !nodes[0].Declared:
		return nil, inventory.Node{}, usagef("name one of them", "which node? %s has %s", inv.File, nodeNames(nodes))
	}
	return inv, nodes[0], nil
}

// openNodes opens the inventory and picks the nodes that args mean: names, patterns, @tags, and what is left out behind a !.
// There is at least one. None is guessed: without args it is the only node there is, or all of them with --all.
func (a *app) openNodes(ctx context.Context, client *nix.Client, f nodeFlags, args []string) (*inventory.Inventory, []inventory.Node, error) {
	if f.configuration != "" && f.all {
		return nil, nil, usagef("", "--all and --configuration exclude each other")
	}
	args = f.choice.words(args)
	chosen, err := f.choose(args)
	if err != nil {
		return nil, nil, err
	}
	inv, err := a.openInventory(ctx, client, f, chosen)
	if err != nil {
		return nil, nil, err
	}
	nodes, err := chooseNodes(inv, f, chosen.words)
	return inv, nodes, err
}

// chooseNodes is openNodes for an inventory that is open.
func chooseNodes(inv *inventory.Inventory, f nodeFlags, args []string) ([]inventory.Node, error) {
	all := inv.Nodes()
	switch {
	case len(all) == 0:
		return nil, noNodes(inv)
	case f.configuration != "", len(args) == 0 && len(all) == 1 && (!inv.Flake() || all[0].Declared):
		return all, nil
	case !f.all && !slices.ContainsFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "!") }):
		hint := "name some of them, or add --all for all of them"
		if inv.Flake() {
			hint = "name some of them"
		}
		return nil, usagef(hint, "no node is chosen: %s has %s", inv.File, nodeNames(all))
	}
	nodes, err := inv.Choose(args, f.all)
	if err == nil && len(nodes) == 0 {
		err = usagef("", "no node is left: every chosen node is excluded again")
	}
	return nodes, err
}

// chosen is what a command is told about its nodes.
type chosen struct {
	words  []string // that choose nodes
	flake  string   // the flake that has them; "" for another inventory
	target string   // of the one node
}

// choose tells words for nodes from references to a flake, and from a target.
func (f *nodeFlags) choose(args []string) (chosen, error) {
	if f.configuration != "" {
		return chosen{words: args}, nil
	}
	if f.flake != "" {
		reference, node, _ := inventory.CutReference(f.flake)
		switch {
		case !strings.Contains(f.flake, "#"):
			return chosen{words: args, flake: f.flake}, nil
		case len(args) > 1:
			return chosen{}, usagef("for example: --flake .#pi alice@pi", "--flake %s: name one target, or none: %s", f.flake, strings.Join(args, " "))
		case len(args) == 1:
			return chosen{words: []string{node}, flake: reference + "#" + node, target: args[0]}, nil
		}
		return chosen{words: []string{node}, flake: reference + "#" + node}, nil
	}
	c := chosen{}
	for _, arg := range args {
		left, word := "", arg
		if rest, is := strings.CutPrefix(arg, "!"); is {
			left, word = "!", rest
		}
		reference, nodes, is := inventory.CutReference(word)
		if reference == "" && is {
			reference = "."
		}
		if is && c.flake == "" && len(c.words) == 0 {
			c.flake = reference
		}
		if reference != c.flake {
			return c, usagef("deploy them one after another", "nodes of two inventories at once: %s", strings.Join(args, " "))
		}
		if nodes != "" {
			c.words = append(c.words, left+nodes)
		}
	}
	return c, nil
}

func (a *app) openInventory(ctx context.Context, client *nix.Client, f nodeFlags, c chosen) (*inventory.Inventory, error) {
	if _, err := client.Version(ctx); err != nil {
		return nil, err
	}
	o := inventory.Options{
		File: f.file, FerryVersion: Version, Configuration: f.configuration, Nixpkgs: f.nixpkgs, System: f.system,
		Note: a.note, Cache: inventory.Cache{Dir: a.cacheFolder(), Afresh: f.noCache}, Target: c.target,
		Flake: inventory.FlakeOptions{Reference: c.flake, Refresh: f.refresh, Impure: f.impure},
	}
	for _, override := range f.override {
		input, reference, ok := strings.Cut(override, "=")
		if !ok {
			return nil, usagef("for example --override-input nixpkgs=../nixpkgs", "--override-input %q: expected INPUT=REFERENCE", override)
		}
		o.Flake.Overrides = append(o.Flake.Overrides, [2]string{input, reference})
	}
	if a.password.file != "" {
		o.Private = []string{a.password.file}
	}
	single := f.configuration != ""
	switch {
	case c.flake != "" && (single || f.file != ""):
		return nil, usagef("", "a flake excludes --file and --configuration")
	case single && f.file != "":
		return nil, usagef("", "--file and --configuration exclude each other")
	case !single && (f.nixpkgs != "" || f.system != ""):
		return nil, usagef("in an inventory they are attributes of the node", "--nixpkgs and --system go with --configuration")
	case single && len(c.words) != 1:
		return nil, usagef("for example: ferry deploy --configuration ./configuration.nix --nixpkgs ./nixpkgs alice@host",
			"with --configuration, name one target")
	case single:
		o.Target = c.words[0]
	}
	return inventory.Open(ctx, client, o)
}

func noNodes(inv *inventory.Inventory) error {
	return usagef("add one: nodes.NAME = { configuration = ./configuration.nix; };", "%s has no nodes", inv.File)
}

// isChoice tells whether a word that stands for nodes is more than a name.
func isChoice(word string) bool {
	return strings.HasPrefix(word, "@") || strings.HasPrefix(word, "!") || inventory.IsPattern(word)
}

// maxListed is how many nodes a message names.
const maxListed = 24

func nodeNames(nodes []inventory.Node) string {
	if len(nodes) == 0 {
		return "none"
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return listed(names, maxListed)
}

// listed names the first of names, most of them at most, and says how many more there are.
func listed(names []string, most int) string {
	text := strings.Join(names[:min(len(names), most)], ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// completeNodes completes a node's name in the shell.
func (a *app) completeNodes(f *nodeFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completions(cmd.Context(), f, nil, toComplete, false), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeMany completes what chooses nodes, as often as there is something left: names, @tags, both also behind a !, and
// the names that a pattern means.
func (a *app) completeMany(f *nodeFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.completions(cmd.Context(), f, args, toComplete, true), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completions(ctx context.Context, f *nodeFlags, args []string, toComplete string, many bool) []cobra.Completion {
	if f.configuration != "" {
		return nil
	}
	a.open()
	inv, err := inventory.Open(ctx, a.newNix(nix.Options{}), inventory.Options{File: f.file, FerryVersion: Version})
	if err != nil {
		return nil
	}
	not, word := "", toComplete
	if many && strings.HasPrefix(word, "!") {
		not, word = "!", word[1:]
	}
	var found []cobra.Completion
	add := func(word, description string) {
		if !slices.Contains(args, word) {
			found = append(found, cobra.CompletionWithDesc(word, description))
		}
	}
	if many && strings.HasPrefix(word, "@") {
		for _, tag := range inv.Tags() {
			if strings.HasPrefix("@"+tag, word) {
				nodes, _ := inv.Choose([]string{"@" + tag}, false)
				add(not+"@"+tag, nodeNames(nodes))
			}
		}
		return found
	}
	nodes := inv.Nodes()
	if inventory.IsPattern(word) {
		// It may be a whole pattern, or the beginning of what is meant.
		if nodes, err = inv.Choose([]string{word}, false); err != nil {
			nodes, _ = inv.Choose([]string{word + "*"}, false)
		}
		word = ""
	}
	for _, n := range nodes {
		if strings.HasPrefix(n.Name, word) {
			add(not+n.Name, n.Target)
		}
	}
	return found
}

// roots is ferry's folder of GC roots.
func (a *app) roots() (session.Roots, error) {
	state := a.Getenv("XDG_STATE_HOME")
	if state == "" || !filepath.IsAbs(state) {
		home := a.Getenv("HOME")
		if home == "" {
			return session.Roots{}, errors.New("neither XDG_STATE_HOME nor HOME is set: no place for GC roots")
		}
		state = filepath.Join(home, ".local", "state")
	}
	return session.Roots{Dir: filepath.Join(state, "ferry")}, nil
}

// cacheFolder is where evaluations are kept; "" where there is no place for them.
func (a *app) cacheFolder() string {
	cache := a.Getenv("XDG_CACHE_HOME")
	if cache == "" || !filepath.IsAbs(cache) {
		home := a.Getenv("HOME")
		if !filepath.IsAbs(home) {
			return ""
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "ferry", "evaluations")
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

// addLogin adds the flags of the commands that log in to a target.
func (a *app) addLogin(flags *pflag.FlagSet) {
	flags.StringVar(&a.sshConfig, "ssh-config", "", "let ssh read `FILE` instead of ~/.ssh/config")
	a.password.add(flags)
}

// openWork is what the commands that build begin with: Nix by the flags, this machine's GC roots, and how a target is reached.
func (a *app) openWork(o nixFlags) (session.Session, error) {
	client, err := o.client(a)
	if err != nil {
		return session.Session{}, err
	}
	roots, err := a.roots()
	if err != nil {
		return session.Session{}, err
	}
	return a.session(client, roots), nil
}

// openOne is [app.openWork] with the inventory and the one node that args name.
func (a *app) openOne(ctx context.Context, n nixFlags, f nodeFlags, args []string) (*inventory.Inventory, inventory.Node, session.Session, error) {
	with, err := a.openWork(n)
	if err != nil {
		return nil, inventory.Node{}, with, err
	}
	inv, node, err := a.openNode(ctx, with.Nix, f, args)
	return inv, node, with, err
}
