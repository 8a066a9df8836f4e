package inventory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"ferry/internal/nix"
)

// read reads the nodes' metadata: purely if possible, else impurely with a note.
func (inv *Inventory) read(ctx context.Context) error {
	var l listing
	err := inv.ask(ctx, ".all", &l)
	if what, impure := nix.IsPurity(err); impure {
		inv.Impure = what
		inv.options.Note(fmt.Sprintf("%s is not pure (%s): it is read impurely", inv.place.rel, what))
		err = inv.ask(ctx, ".all", &l)
	}
	if err != nil {
		return inv.blame(ctx, err)
	}
	if err := l.Shape.check(inv.place.rel); err != nil {
		return err
	}
	if _, err := inv.readable(l.WorldReadable); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(l.Nodes)) {
		n, err := inv.decode(ctx, name, l)
		if err != nil {
			return err
		}
		inv.nodes = append(inv.nodes, n)
	}
	return nil
}

func (inv *Inventory) decode(ctx context.Context, name string, l listing) (Node, error) {
	v := l.Nodes[name]
	if v.Type != "set" {
		return Node{}, &Error{Node: name, Text: "expected an attribute set, found " + v.found(),
			Advice: []string{"nodes." + name + " = { configuration = ./" + name + ".nix; };"}}
	}
	return decoder{
		name: name, attributes: v.Attributes, system: inv.System,
		hasTopPin:    slices.Contains(l.Shape.Attributes, "nixpkgs"),
		locateConfig: func(value string) (string, error) { return inv.locateFile(ctx, value) },
		locate: func(value string) (string, error) {
			rel, _, err := inv.locateInSource(ctx, value)
			return rel, err
		},
	}.node()
}

// blame finds the node and the attribute whose evaluation failed with err, by asking for each alone. That costs one Nix
// process each, but only when something is wrong, and it does not depend on how a version of Nix words its traces.
func (inv *Inventory) blame(ctx context.Context, err error) error {
	var eval *nix.EvalError
	if !errors.As(err, &eval) || ctx.Err() != nil {
		return err
	}
	about := func(node, attribute string, err error) error {
		e := &Error{Node: node, Attribute: attribute, Err: err, Advice: inv.evalHints(ctx, err)}
		if errors.As(err, &eval) {
			e.Err, e.Trace = inv.explained(eval), inv.trace(eval)
		}
		if node == "" {
			e.Text = inv.place.rel
		}
		return e
	}
	var s shape
	if err := inv.ask(ctx, ".shape", &s); err != nil {
		return about("", "", err)
	}
	if err := s.check(inv.place.rel); err != nil {
		return err
	}
	for _, name := range s.Nodes.Names {
		var v description
		nodeErr := inv.ask(ctx, ".node "+nix.Quote(name), &v)
		if nodeErr == nil {
			continue
		}
		var attributes []string
		if err := inv.ask(ctx, ".attributes "+nix.Quote(name), &attributes); err == nil {
			for _, a := range attributes {
				if err := inv.ask(ctx, ".attribute "+nix.Quote(name)+" "+nix.Quote(a), &v); err != nil {
					return about(name, printable(a), err)
				}
			}
		}
		return about(name, "", nodeErr)
	}
	return about("", "", err)
}
