package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"ferry/internal/nix"
	"ferry/internal/run"
)

// Evaluation is what a node evaluates to. The derivations are in the store, nothing is built.
type Evaluation struct {
	Bundle, Toplevel             nix.StorePath // derivations
	BundleOut, ToplevelOut       nix.StorePath // what they will build
	BundleSystem, ToplevelSystem string        // where they are built; another platform than the node's if it is cross compiled
	System                       string        // what it runs on
	Impure                       string        // what was impure; "" if the evaluation is pure
	NixpkgsVersion               string        // NixOS's version, as nixos-version prints it
}

// answer is what evaluate.nix says: derivations, or what is wrong with the pin.
type answer struct {
	Bundle, BundleOut, BundleSystem       string
	Toplevel, ToplevelOut, ToplevelSystem string
	Version                               string

	Outside      string    // the pin is a path that is not in the store, or not known to be
	Wrong        *wrongPin // the pin is something else than a tree
	WithoutNixos string    // the pin is not nixpkgs
	Tree         string    // where the pin is
}

// Evaluate evaluates node to its bundle: purely, or, if its configuration is impure, impurely with a note. Nix's messages
// go to log, which may be nil, as they come. Nodes that are evaluated at the same time share processes of Nix, and wait for their turn:
// begun, which may be nil, is called when it has come, once or several times.
func (inv *Inventory) Evaluate(ctx context.Context, node Node, log io.Writer, begun func()) (*Evaluation, error) {
	if inv.flake != nil {
		return inv.evaluateFlake(ctx, flakeEvaluation{inv: inv, node: node, log: log, begun: begun, pure: !node.Impure})
	}
	source, err := inv.SourceOf(ctx, node)
	if err != nil {
		return nil, err
	}
	ev := evaluation{inv: inv, node: node, source: source, log: log, begun: begun, pure: !node.Impure}
	if node.Impure {
		ev.why, ev.known = []string{"impure = true"}, true
	}
	a, err := ev.answer(ctx)
	if err != nil {
		return nil, err
	}
	e := &Evaluation{
		System: node.System, BundleSystem: a.BundleSystem, ToplevelSystem: a.ToplevelSystem, NixpkgsVersion: a.Version, Impure: strings.Join(ev.why, "; "),
	}
	for _, p := range []struct {
		to   *nix.StorePath
		from string
	}{{&e.Bundle, a.Bundle}, {&e.BundleOut, a.BundleOut}, {&e.Toplevel, a.Toplevel}, {&e.ToplevelOut, a.ToplevelOut}} {
		if *p.to, err = nix.ParseStorePath(p.from); err != nil {
			return nil, failed(node.Name, fmt.Errorf("answer of Nix: %w", err))
		}
	}
	if !ev.pure {
		var pin nix.StorePath
		if tree, _, err := nix.SplitStorePath(a.Tree); err == nil {
			pin = tree
		}
		if err := ev.refuseOutside(ctx, e.Bundle, pin); err != nil {
			return nil, err
		}
	}
	if len(ev.why) > 0 && !ev.known {
		inv.options.Note(fmt.Sprintf("node %s is not pure: %s", node.Name, e.Impure))
	}
	return e, nil
}

// evaluation is one node's way to an answer, which may take several attempts.
type evaluation struct {
	inv    *Inventory
	node   Node
	source Source // the node's
	log    io.Writer
	begun  func()

	pure   bool
	handed *pin     // the pin, if it is not read from the inventory
	why    []string // what is impure
	known  bool     // the user knows all of why
}

// answer evaluates until there is an answer with derivations. What one attempt finds out, the next one is given: a pin
// outside of the store, an impure pin, an impure configuration. Each can happen once, so the loop ends.
func (ev *evaluation) answer(ctx context.Context) (answer, error) {
	if path := ev.inv.options.Nixpkgs; path != "" {
		if !filepath.IsAbs(path) {
			path = filepath.Join(ev.inv.options.Dir, path)
		}
		if err := ev.hand(ctx, path); err != nil {
			return answer{}, err
		}
	} else if ev.pure && ev.inv.Impure != "" {
		if err := ev.handImpurePin(ctx, "the inventory: "+ev.inv.Impure); err != nil {
			return answer{}, err
		}
		ev.known = true
	} else if ev.node.narrowed() {
		if err := ev.handPin(ctx); err != nil {
			return answer{}, err
		}
	}
	for {
		var a answer
		err := ev.ask(ctx, &a)
		what, impure := nix.IsPurity(err)
		switch {
		case impure && ev.pure:
			if err := ev.impurity(ctx, what); err != nil {
				return a, err
			}
		case err != nil:
			return a, ev.explain(ctx, err)
		case a.Bundle != "":
			return a, nil
		case a.Wrong != nil:
			return a, a.Wrong.error(ev.node.Name)
		case ev.handed != nil:
			return a, ev.inv.withoutNixos(ev.node.Name, a.WithoutNixos)
		case a.Outside != "":
			if err := ev.hand(ctx, a.Outside); err != nil {
				return a, err
			}
		default:
			// A symbolic link in the source may lead to a checkout outside of it.
			if err := ev.hand(ctx, a.WithoutNixos); err != nil {
				return a, err
			}
		}
	}
}

// hand puts the tree at path in the store and has it used as the pin from now on.
func (ev *evaluation) hand(ctx context.Context, path string) error {
	if below, inside := strings.CutPrefix(path, string(ev.inv.Source.Path)+"/"); inside && ev.node.narrowed() {
		if _, err := os.Stat(filepath.Join(string(ev.source.Path), below, "nixos", "default.nix")); err == nil {
			ev.handed = &pin{tree: ev.source, rest: "/" + below}
			return nil
		}
		// What the node's source leaves out does not come along as its pin: that is a tree of its own.
		path = filepath.Join(ev.inv.Root, below)
	}
	p, err := ev.inv.putPin(ctx, ev.node.Name, path)
	if err != nil {
		return err
	}
	ev.handed = &p
	return nil
}

// handPin reads the pin before the rest, so that the evaluation of a narrowed source depends on where the pin is, and not on the
// inventory that names it.
func (ev *evaluation) handPin(ctx context.Context) error {
	a, err := ev.askPin(ctx, ev.pure)
	if what, impure := nix.IsPurity(err); impure && ev.pure {
		return ev.handImpurePin(ctx, "the pin: "+what)
	}
	if err != nil {
		return ev.explain(ctx, err)
	}
	return ev.handAnswer(ctx, a)
}

// handAnswer hands the pin that a is about.
func (ev *evaluation) handAnswer(ctx context.Context, a answer) error {
	switch {
	case a.Wrong != nil:
		return a.Wrong.error(ev.node.Name)
	case a.Outside != "":
		return ev.hand(ctx, a.Outside)
	}
	return ev.hand(ctx, a.Tree)
}

// impurity finds out what the impurity what is part of, the pin or the configuration, so that the next attempt is as
// pure as can be.
func (ev *evaluation) impurity(ctx context.Context, what string) error {
	if ev.handed == nil {
		_, err := ev.askPin(ctx, true)
		if whatPin, impure := nix.IsPurity(err); impure {
			return ev.handImpurePin(ctx, "the pin: "+whatPin)
		}
	}
	ev.pure, ev.known = false, false
	ev.why = append(ev.why, what)
	return nil
}

// handImpurePin reads the pin impurely. With the pin in the store, everything else may still be pure.
func (ev *evaluation) handImpurePin(ctx context.Context, why string) error {
	a, err := ev.askPin(ctx, false)
	if err != nil {
		return ev.explain(ctx, err)
	}
	ev.why = append(ev.why, why)
	if err := ev.handAnswer(ctx, a); err != nil || a.Outside != "" {
		// What ferry itself puts in the store it has looked at.
		return err
	}
	return ev.refusePin(ctx, ev.handed.tree.Path)
}

// askPin has one Nix process say where the pin is. What it says purely is asked once for all nodes that have the inventory's.
func (ev *evaluation) askPin(ctx context.Context, pure bool) (answer, error) {
	inv, owner := ev.inv, ""
	expression := inv.expression(pure) + ".inventory.nixpkgs"
	if ev.node.OwnPin {
		owner, expression = ev.node.Name, inv.nixpkgsExpression(ev.node.Name, pure)
	}
	// Nothing that differs between nodes with the same pin.
	text := nix.Call(evaluateNix, [][2]string{
		{"source", treeExpression(inv.Source, pure)},
		{"nixpkgs", expression},
		{"system", nix.Quote(inv.System)},
		{"configuration", "null"}, {"inventory", "null"}, {"nodes", "null"}, {"manifest", "null"}, {"builder", "null"}, {"switchScript", "null"},
	})
	find := func() (a answer, err error) {
		err = ev.eval(ctx, text+".pin", pure, inv.client.Eval, &a)
		return a, err
	}
	if !pure {
		return find()
	}
	return inv.pinAnswers.get(ctx, owner, find)
}

// ask has one Nix process evaluate the node.
func (ev *evaluation) ask(ctx context.Context, a *answer) error {
	inv, node, pure := ev.inv, ev.node, ev.pure
	nixpkgs := inv.nixpkgsExpression(node.Name, pure)
	if ev.handed != nil {
		nixpkgs = ev.handed.expression(pure)
	}
	inventory, nodes := inv.expression(pure)+".inventory", inv.nodesExpression()
	if node.narrowed() {
		// They are made from all of the source.
		inventory, nodes = "null", "null"
	}
	manifest := [][2]string{
		{"dirty", nix.Bool(ev.source.Dirty)},
		{"ferryVersion", nix.Quote(inv.options.FerryVersion)},
		{"format", "1"},
		{"node", nix.Quote(node.Name)},
		{"revision", nix.Quote(ev.source.Revision)},
	}
	text := nix.Call(evaluateNix, [][2]string{
		{"source", treeExpression(ev.source, pure)},
		{"configuration", nix.Quote(node.Configuration)},
		{"nixpkgs", nixpkgs},
		{"system", nix.Quote(node.System)},
		{"inventory", inventory},
		{"nodes", nodes},
		{"manifest", nix.Set(manifest)},
		{"builder", nix.Quote(buildBundle)},
		{"switchScript", nix.Quote(switchScript)},
	})
	return ev.eval(ctx, text+".answer", pure, inv.evaluators.value, a)
}

// eval has Nix evaluate text to an answer, by the function by.
func (ev *evaluation) eval(ctx context.Context, text string, pure bool, by evaluator, a *answer) error {
	out, err := ev.inv.eval(ctx, nix.Expression{
		Text: text, Pure: pure, Instantiate: true, Log: ev.log, Begun: ev.begun,
	}, by, madeInStore)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, a); err != nil {
		return failed(ev.node.Name, fmt.Errorf("answer of Nix: %w", err))
	}
	return nil
}

// madeInStore is what an answer of evaluate.nix has put in the store. What that needs is there as long as it is.
func madeInStore(text []byte) []nix.StorePath {
	var a answer
	var paths []nix.StorePath
	if json.Unmarshal(text, &a) != nil {
		return nil
	}
	for _, drv := range []string{a.Bundle, a.Toplevel} {
		if p, err := nix.ParseStorePath(drv); err == nil {
			paths = append(paths, p)
		}
	}
	if tree, _, err := nix.SplitStorePath(a.Tree); err == nil {
		paths = append(paths, tree)
	}
	return paths
}

// nixpkgsExpression is the pin of the node as the inventory has it.
func (inv *Inventory) nixpkgsExpression(node string, pure bool) string {
	return "(let inventory = " + inv.expression(pure) + ".inventory; in inventory.nodes." + nix.Quote(node) +
		".nixpkgs or inventory.nixpkgs)"
}

// nodesExpression is what evaluate.nix is told of all nodes.
func (inv *Inventory) nodesExpression() string {
	var all [][2]string
	for _, n := range inv.nodes {
		all = append(all, [2]string{nix.Quote(n.Name), nix.Set([][2]string{
			{"configuration", nix.Quote(n.Configuration)}, {"system", nix.Quote(n.System)},
		})})
	}
	return nix.Set(all)
}

// explained is the message of an evaluation error, with the user's paths instead of those in the store.
// Of a message of many lines it is the first: all of them are told with the trace.
func (inv *Inventory) explained(err *nix.EvalError) error {
	text := nix.UserPaths(err.Summary(), inv.Source.Path, inv.Root)
	if lines := messageLines(text); len(lines) > fewLines {
		text = strings.TrimSuffix(strings.TrimSpace(lines[0]), ":")
	}
	return &evalError{text: text, err: err}
}

// fewLines is how many lines of a message are told as one.
const fewLines = 2

// messageLines are the lines of a message that say something.
func messageLines(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.TrimSpace(line) == "" })
}

// evalError is an evaluation error in the user's words.
type evalError struct {
	text string
	err  error
}

func (e *evalError) Error() string { return e.text }
func (e *evalError) Unwrap() error { return e.err }

// explain makes an error of an evaluation one of the node.
func (ev *evaluation) explain(ctx context.Context, err error) error {
	var eval *nix.EvalError
	if !errors.As(err, &eval) {
		return at(ev.node.Name, err)
	}
	var hints []string
	if ev.node.narrowed() {
		hints = ev.leftOutHints(eval)
		// From here on it is about the files that the user has.
		whole := *eval
		whole.Trace = strings.ReplaceAll(eval.Trace, string(ev.source.Path)+"/", string(ev.inv.Source.Path)+"/")
		eval = &whole
	}
	e := failed(ev.node.Name, ev.inv.explained(eval), append(hints, ev.inv.evalHints(ctx, eval)...)...)
	e.Trace = ev.inv.trace(eval)
	return e
}

// trace is what of an evaluation's trace is shown: a message of many lines, and the part in the user's files, or all of it on demand.
// Where none of their files is in it, it is which options were being evaluated.
func (inv *Inventory) trace(err *nix.EvalError) []string {
	if inv.client.Options.ShowTrace {
		return run.LastLines(nix.UserPaths(err.Trace, inv.Source.Path, inv.Root), math.MaxInt)
	}
	var lines []string
	if message := messageLines(nix.UserPaths(err.Summary(), inv.Source.Path, inv.Root)); len(message) > fewLines {
		lines = message
	}
	own := err.UserTrace(inv.Source.Path, inv.Root)
	if len(own) == 0 && len(lines) == 0 {
		own = err.OptionTrace()
	}
	return append(lines, own...)
}

// evalHints says what to do about an evaluation error: a file that exists but is not in the source is the usual one.
func (inv *Inventory) evalHints(ctx context.Context, err error) []string {
	var eval *nix.EvalError
	if !errors.As(err, &eval) {
		return nil
	}
	var hints []string
	for _, rel := range missingFiles(eval, inv.Source.Path) {
		if command, known := inv.notInGit(ctx, rel); known {
			hints = append(hints, printable(rel)+" exists, but git does not know it: "+command)
			break
		}
	}
	if len(hints) == 0 && !inv.client.Options.ShowTrace && len(eval.UserTrace(inv.Source.Path, inv.Root)) == 0 && len(eval.OptionTrace()) > 0 {
		hints = append(hints, "--show-trace shows where that is")
	}
	return hints
}

// missingFiles are the paths below source that an evaluation error names and that are not there.
func missingFiles(err *nix.EvalError, source nix.StorePath) []string {
	pattern := regexp.MustCompile(regexp.QuoteMeta(string(source)) + `/([^"\n»]+?)(?:'|"|»|\n|$)`)
	var missing []string
	for _, m := range pattern.FindAllStringSubmatch(err.Trace, -1) {
		if _, err := os.Lstat(filepath.Join(string(source), m[1])); err != nil {
			missing = append(missing, m[1])
		}
	}
	return missing
}

// leftOutHints says what to do about an evaluation that wants a file which the node's source leaves out.
func (ev *evaluation) leftOutHints(err *nix.EvalError) []string {
	if strings.Contains(err.Summary(), asksForNodes) {
		return []string{"leave `source` out: other nodes' configurations are made from all of the source"}
	}
	file := ""
	for _, rel := range missingFiles(err, ev.source.Path) {
		// Of a file whose folder is missing, some versions of Nix name both.
		if _, err := os.Lstat(filepath.Join(string(ev.inv.Source.Path), rel)); err == nil && len(rel) > len(file) {
			file = rel
		}
	}
	if file == "" {
		return nil
	}
	return []string{ev.inv.leftOut(file)}
}
