package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"ferry/internal/flake"
	"ferry/internal/health"
	"ferry/internal/nix"
)

// FlakeOptions say which flake is an inventory, and how it is read.
type FlakeOptions struct {
	Reference string      // as Nix takes it; "" for none
	Overrides [][2]string // inputs, and the references that take their place
	Refresh   bool        // ask again what references stand for
	Impure    bool        // evaluate impurely
}

// openFlake opens a flake, whose configurations are the nodes.
func (inv *Inventory) openFlake(ctx context.Context, reference flake.Reference) error {
	var err error
	if inv.place, err = (finder{inv.client.Runner, inv.options.Note}).flake(ctx, reference); err != nil {
		return err
	}
	inv.Root, inv.File = inv.place.root, reference.URL
	if reference.Folder != "" {
		inv.File = filepath.Join(inv.place.root, inv.place.rel)
	}
	var group sync.WaitGroup
	var settings nix.Settings
	var settingsErr error
	group.Go(func() { settings, settingsErr = inv.client.Settings(ctx) })
	group.Go(func() { _, _ = inv.client.Keep(ctx) })
	err = inv.readFlake(ctx, reference)
	group.Wait()
	inv.System, inv.settings = settings.System, settings.Evaluation
	if err = errors.Join(settingsErr, err); err != nil {
		return err
	}
	return inv.readConfigurations(ctx, reference.Node)
}

// readConfigurations reads which configurations the flake has, and what its output ferry.nodes says of them. The options' target is that of
// the node called named.
func (inv *Inventory) readConfigurations(ctx context.Context, named string) error {
	names, said, err := inv.configurations(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		if said[name].Type != "set" {
			return &Error{Node: name, Text: "expected an attribute set, found " + said[name].found(),
				Advice: []string{"ferry.nodes." + name + " = { target = \"alice@" + name + "\"; };"}}
		}
		n, err := decoder{name: name, attributes: said[name].Attributes, flake: true}.node()
		if err != nil {
			return err
		}
		if !slices.Contains(names, n.Attribute) {
			return &Error{Node: name, Text: "the flake has no nixosConfigurations." + printable(n.Attribute),
				Advice: didYouMean(n.Attribute, names)}
		}
		inv.nodes = append(inv.nodes, n)
	}
	for _, name := range names {
		if _, is := said[name]; !is && checkName(name) == nil {
			inv.nodes = append(inv.nodes, Node{Name: name, Attribute: name, Target: name, Checks: health.Default()})
		}
	}
	slices.SortFunc(inv.nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	for i := range inv.nodes {
		n := &inv.nodes[i]
		n.Impure = n.Impure || inv.options.Flake.Impure
		if n.Name == named && inv.options.Target != "" {
			if err := checkTarget(inv.options.Target); err != nil {
				return &Error{Node: n.Name, Attribute: "target", Err: err}
			}
			n.Target, n.Fallbacks, n.Declared = inv.options.Target, nil, true
		}
	}
	return nil
}

// flake is the place of a flake: its flake.nix in the tree that Nix takes. What is elsewhere has the reference as its root.
func (f finder) flake(ctx context.Context, reference flake.Reference) (place, error) {
	if reference.Folder == "" {
		root, _, _ := strings.Cut(reference.URL, "?")
		return place{root: root, rel: flake.FileName}, nil
	}
	file := filepath.Join(reference.Folder, flake.FileName)
	if strings.HasPrefix(reference.URL, "path:") {
		return place{root: reference.Folder, rel: flake.FileName}, nil
	}
	p, err := f.locate(ctx, file)
	if err == nil && p.git == nil {
		err = &Error{Text: printable(reference.URL) + " is no git repository", Advice: []string{"name the folder itself: path:" + reference.Folder}}
	}
	return p, err
}

// readFlake looks for private material in the work tree, then has Nix copy it and say what it is.
func (inv *Inventory) readFlake(ctx context.Context, reference flake.Reference) error {
	local := reference.Folder != ""
	if local {
		if err := inv.lookForSecrets(ctx, inv.place.root, inv.place.git); err != nil {
			return err
		}
	}
	var err error
	if inv.flake, err = flake.Open(ctx, inv.client, reference, inv.flakeOptions()); err != nil {
		return inv.notRead(ctx, err)
	}
	f := inv.flake
	inv.Source = Source{Path: f.Source, NarHash: f.NarHash, Revision: f.Revision, Dirty: f.Dirty, Size: inv.Source.Size}
	if inv.place.git != nil {
		// Not every version of Nix says what a dirty tree is based on.
		if inv.Source.Revision, inv.Source.Dirty, err = inv.place.git.revision(ctx); err != nil {
			return err
		}
		inv.Source.Dirty = inv.Source.Dirty || f.Dirty
	}
	if len(f.Unlocked) > 0 {
		inputs := slices.DeleteFunc(slices.Clone(f.Unlocked), func(key string) bool { return key == f.Lock.Root })
		if len(inputs) == 0 {
			inputs = f.Unlocked
		}
		inv.options.Note("flake.lock is not up to date (" + someOf(inputs) + "), and ferry does not write it: nix flake lock does")
	}
	if !local {
		return inv.lookForSecrets(ctx, string(f.Source), nil)
	}
	return nil
}

// lookForSecrets refuses private material in a flake's tree at root: what git knows of it, or all of it. Nix takes the tree as it is, so
// what a filter of git's has decrypted there is only told.
func (inv *Inventory) lookForSecrets(ctx context.Context, root string, git *workTree) error {
	t := tree{root: root, git: git, note: inv.options.Note, own: filepath.Dir(inv.place.rel), private: inv.privateFiles()}
	entries, err := t.entries(ctx)
	if err != nil {
		return err
	}
	inv.Source.Size = noteSize(entries, t.note)
	if err := t.refusePrivate(entries); err != nil {
		return err
	}
	opened, err := t.decrypted(ctx, entries)
	if err != nil {
		return err
	}
	if len(opened) > 0 {
		var names []string
		for _, f := range opened {
			names = append(names, f.rel)
		}
		t.note("source: a filter of git's has decrypted " + someOf(names) + ": everyone can read that in the store, here and on the target")
	}
	keys := t.newKeys(entries)
	for _, e := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !e.mode.IsRegular() {
			continue
		}
		if err := keys.readFile(filepath.Join(root, e.rel), e.rel); err != nil {
			return err
		}
	}
	err = keys.refusal()
	var refusal *Error
	if errors.As(err, &refusal) {
		refusal.Advice = []string{refusal.Advice[0], "a file that git does not know is not taken: git rm --cached FILE"}
	}
	return err
}

// copiedSource is where Nix has copied a flake's source to, in what it says of it.
var copiedSource = regexp.MustCompile(`/nix/store/[0-9a-z]{32}-source`)

// notRead says why Nix does not take a flake.
func (inv *Inventory) notRead(ctx context.Context, err error) error {
	var eval *nix.EvalError
	var lock *flake.LockError
	switch {
	case errors.As(err, &lock):
		return &Error{Err: err, Advice: lock.Advice}
	case errors.As(err, &eval):
		if copied, err := nix.ParseStorePath(copiedSource.FindString(eval.Trace)); err == nil {
			inv.Source.Path = copied
		}
		e := &Error{Text: "flake " + printable(inv.Root), Err: inv.explained(eval), Trace: inv.trace(eval)}
		if inv.place.git != nil && strings.Contains(eval.Summary(), flake.FileName) {
			if _, err := inv.place.git.git(ctx, "ls-files", "--error-unmatch", "--", inv.place.rel); err != nil {
				e.Advice = []string{"git does not know it: " + inv.place.git.addCommand(ctx, inv.place.rel)}
			}
		}
		return e
	}
	return err
}

// configurations are the names of all configurations of the flake, and what its output ferry.nodes says of nodes.
func (inv *Inventory) configurations(ctx context.Context) (names []string, said map[string]description, err error) {
	pure := !inv.options.Flake.Impure
	source := func([]byte) []nix.StorePath { return []nix.StorePath{inv.Source.Path} }
	text := "(let outputs = " + inv.flake.Outputs(pure) + "; in { names = builtins.attrNames (outputs.nixosConfigurations or { }); ferry = " +
		nix.Call(inventoryNix, [][2]string{
			{"source", "null"}, {"file", "null"}, {"system", "null"}, {"outputs", "({ nodes = { }; } // (outputs.ferry or { }))"},
		}) + ".all; })"
	out, err := inv.eval(ctx, nix.Expression{Text: text, Pure: pure, Flakes: true, Instantiate: true}, inv.client.Eval, source)
	if err != nil {
		return nil, nil, inv.flakeError(ctx, "", err)
	}
	var answer struct {
		Names []string
		Ferry listing
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, nil, fmt.Errorf("answer of Nix: %w", err)
	}
	const output = "the flake's output `ferry`"
	if err := answer.Ferry.Shape.check(output); err != nil {
		return nil, nil, err
	}
	for _, a := range answer.Ferry.Shape.Attributes {
		if a != "nodes" {
			return nil, nil, &Error{Text: output, Err: &Error{Attribute: printable(a), Text: "belongs into a ferry.nix; here are only `nodes`"}}
		}
	}
	names = answer.Names
	if len(names) == 0 {
		return nil, nil, &Error{Text: "flake " + printable(inv.Root) + " has no nixosConfigurations", Advice: []string{
			"nixosConfigurations.NAME = nixpkgs.lib.nixosSystem { modules = [ ./configuration.nix ]; };"}}
	}
	return names, answer.Ferry.Nodes, nil
}

// flakeError is an evaluation error of the flake, or of one of its nodes, in the user's words.
func (inv *Inventory) flakeError(ctx context.Context, node string, err error) error {
	var eval *nix.EvalError
	if !errors.As(err, &eval) {
		return at(node, err)
	}
	e := failed(node, inv.explained(eval), inv.evalHints(ctx, eval)...)
	e.Trace = inv.trace(eval)
	if what, impure := nix.IsPurity(err); impure {
		e.Advice = append(e.Advice, "a flake is evaluated purely, as nixos-rebuild does it; if "+printable(what)+" is meant to be read: --impure")
	}
	if node == "" {
		e.Text = inv.place.rel
	}
	return e
}

// Flake tells whether the inventory is a flake.
func (inv *Inventory) Flake() bool { return inv.flake != nil }

// ByNix is the derivation of a node's system that Nix itself makes of the flake, by none of ferry's ways.
func (inv *Inventory) ByNix(ctx context.Context, node Node) (nix.StorePath, error) {
	more := inv.flakeOptions().Args()
	if node.Impure {
		more = append(more, "--impure")
	}
	text, err := inv.client.FlakeValue(ctx, inv.flake.Reference.URL, "nixosConfigurations."+nix.Quote(node.Attribute)+".config.system.build.toplevel.drvPath", more...)
	if err != nil {
		return "", inv.flakeError(ctx, node.Name, err)
	}
	drv, err := nix.ParseStorePath(text)
	if err != nil {
		return "", failed(node.Name, fmt.Errorf("answer of Nix: %w", err))
	}
	kept, err := inv.client.Keep(ctx, drv)
	if err == nil && !kept {
		err = &nix.CollectedError{Path: drv}
	}
	return drv, err
}

func (inv *Inventory) flakeOptions() flake.Options {
	return flake.Options{Overrides: inv.options.Flake.Overrides, Refresh: inv.options.Flake.Refresh}
}

// CutReference takes apart a word that names a flake and, behind a #, what of its nodes is meant.
func CutReference(word string) (reference, nodes string, is bool) {
	if !flake.IsReference(word) {
		return "", word, false
	}
	reference, nodes, _ = strings.Cut(word, "#")
	return reference, flake.NodeName(nodes), true
}

// flakeEvaluation is one node's way from a flake to a bundle.
type flakeEvaluation struct {
	inv   *Inventory
	node  Node
	log   io.Writer
	begun func()
	pure  bool
}

// evaluateFlake is Evaluate for a node of a flake: the configuration says which inputs it has looked at, and the bundle of those is made
// after that.
func (inv *Inventory) evaluateFlake(ctx context.Context, ev flakeEvaluation) (*Evaluation, error) {
	a, err := ev.answer(ctx)
	if err != nil {
		return nil, err
	}
	bundle, err := ev.bundle(ctx, a)
	if err != nil {
		return nil, err
	}
	e := &Evaluation{
		ToplevelSystem: a.Toplevel.System, BundleSystem: bundle.System, System: a.System, NixpkgsVersion: a.Version,
	}
	if !ev.pure {
		e.Impure = "--impure"
	}
	for _, p := range []struct {
		to   *nix.StorePath
		from string
	}{{&e.Bundle, bundle.Drv}, {&e.BundleOut, bundle.Out}, {&e.Toplevel, a.Toplevel.Drv}, {&e.ToplevelOut, a.Toplevel.Out}} {
		if *p.to, err = nix.ParseStorePath(p.from); err != nil {
			return nil, failed(ev.node.Name, fmt.Errorf("answer of Nix: %w", err))
		}
	}
	if !ev.pure {
		tree, _, _ := nix.SplitStorePath(a.Nixpkgs)
		outside := evaluation{inv: inv, node: ev.node, source: inv.Source}
		if err := outside.refuseOutside(ctx, e.Bundle, tree); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (ev flakeEvaluation) answer(ctx context.Context) (a flake.Answer, err error) {
	inv, f := ev.inv, ev.inv.flake
	needs := func(value []byte) []nix.StorePath {
		var a flake.Answer
		if json.Unmarshal(value, &a) != nil {
			return nil
		}
		return append(f.Paths(a), f.Source)
	}
	out, err := inv.eval(ctx, nix.Expression{
		Text: f.Node(ev.node.Attribute, ev.pure), Pure: ev.pure, Flakes: true, Instantiate: true, Log: ev.log, Begun: ev.begun,
	}, evaluator(f.Looking(inv.evaluators.value)), needs)
	if err != nil {
		return a, inv.flakeError(ctx, ev.node.Name, err)
	}
	if err := json.Unmarshal(out, &a); err != nil {
		return a, failed(ev.node.Name, fmt.Errorf("answer of Nix: %w", err))
	}
	switch {
	case a.Without:
		return a, failed(ev.node.Name, errors.New("nixosConfigurations."+ev.node.Attribute+" has no config.system.build.toplevel: it is no NixOS system"))
	case a.Toplevel.Drv == "":
		return a, &Error{Node: ev.node.Name, Text: "the flake has no nixosConfigurations." + ev.node.Attribute, Advice: didYouMean(ev.node.Attribute, a.Missing)}
	}
	return a, nil
}

// bundle is the derivation of the node's bundle.
func (ev flakeEvaluation) bundle(ctx context.Context, a flake.Answer) (b flake.Made, err error) {
	inv := ev.inv
	impure := ""
	if !ev.pure {
		impure = "--impure"
	}
	text, err := inv.flake.Bundle(flake.Bundle{
		Node: ev.node.Name, Attribute: ev.node.Attribute, FerryVersion: inv.options.FerryVersion, Impure: impure, SwitchScript: switchScript,
		Revision: inv.Source.Revision, Dirty: inv.Source.Dirty,
	}, a)
	if err != nil {
		return b, failed(ev.node.Name, err)
	}
	needs := func(value []byte) []nix.StorePath {
		var b flake.Made
		if json.Unmarshal(value, &b) != nil {
			return nil
		}
		if p, err := nix.ParseStorePath(b.Drv); err == nil {
			return []nix.StorePath{p}
		}
		return nil
	}
	select {
	case inv.narrowing <- struct{}{}:
		defer func() { <-inv.narrowing }()
	case <-ctx.Done():
		return b, at(ev.node.Name, context.Cause(ctx))
	}
	out, err := inv.eval(ctx, nix.Expression{Text: text, Pure: true, Instantiate: true}, inv.client.Eval, needs)
	if err != nil {
		return b, at(ev.node.Name, err)
	}
	if err := json.Unmarshal(out, &b); err != nil {
		return b, failed(ev.node.Name, fmt.Errorf("answer of Nix: %w", err))
	}
	return b, nil
}

// isSystem tells whether a value is the answer about a whole system.
func isSystem(value []byte) bool {
	var a flake.Answer
	return len(madeInStore(value)) > 0 || json.Unmarshal(value, &a) == nil && a.Toplevel.Drv != ""
}

// undeclared is the error for words that mean every node with a target, where none has one.
func (inv *Inventory) undeclared() error {
	var names []string
	for _, n := range inv.nodes {
		names = append(names, n.Name)
	}
	return &Error{Text: "no node has a target that is written down: " + someOf(names) + "; name those that are meant",
		Advice: []string{"ferry deploy " + names[0] + "; or --flake .#" + names[0] + " with its target",
			"the flake's output ferry.nodes." + names[0] + ".target = \"USER@HOST\"; writes it down"}}
}

// declared are the nodes that --all, patterns and tags may mean: all of ferry.nix, and of a flake those whose target is written down.
func (inv *Inventory) declared() []Node {
	if inv.flake == nil {
		return slices.Clone(inv.nodes)
	}
	return slices.DeleteFunc(slices.Clone(inv.nodes), func(n Node) bool { return !n.Declared })
}
