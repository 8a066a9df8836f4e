// Package cause finds why two derivations differ: the smallest set of differences that all others follow from, each in words
// that need no knowledge of derivations.
package cause

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ferry/internal/nix"
)

// Cause is a difference that follows from no other.
type Cause struct {
	// Name is the derivation's, or "" where many share the cause.
	Name string `json:"name"`
	// PartOf names what it is a part of, up to the system, the nearest first.
	PartOf []string `json:"part_of"`
	Kind   Kind     `json:"kind"`
	// Text says what differs, and what that usually comes from.
	Text string `json:"text"`
	// Before and After are the parts that differ, shortened; both may be "".
	Before string `json:"before"`
	After  string `json:"after"`
}

// Kind sorts causes.
type Kind string

// The kinds.
const (
	Version   Kind = "version" // NixOS's own version or revision
	Order     Kind = "order"   // the same things in another order
	Modules   Kind = "modules" // another set of modules
	Folder    Kind = "folder"  // a file or folder under another name
	Content   Kind = "content" // a file or folder with other content
	Place     Kind = "place"   // a path is mentioned, and is another one
	NixItself Kind = "nix"     // Nix's own version
	Impure    Kind = "impure"  // the time, the environment, the machine
	Platform  Kind = "system"  // built on or for another system
	Input     Kind = "input"   // more inputs, or fewer
	Fetched   Kind = "fetched" // what is fetched by hash
	Setting   Kind = "setting" // an attribute has another value
	Unread    Kind = "unread"  // it could not be looked into
)

// Report is what was found.
type Report struct {
	Causes []Cause `json:"causes"` // by kind, those of the system as a whole first
	// Differing counts the derivations that differ, Compared those that were read on both sides.
	Differing int `json:"differing"`
}

// Source gives the texts of derivations. Those that it cannot give are left out.
type Source func(ctx context.Context, drvs []nix.StorePath) (map[nix.StorePath]string, error)

// Facts are what is known of the two evaluations, for the words.
type Facts struct {
	NixBefore, NixAfter string // versions of Nix; "": not known
}

// maxPairs is how many pairs of derivations are read at most.
const maxPairs = 5000

// pair is a derivation of each side that stand for each other.
type pair struct {
	before, after nix.StorePath
	parent        *pair
	a, b          *nix.Derivation // nil: not read
	children      []*pair
	// Inputs without a counterpart.
	gone, come []nix.StorePath
}

// Explain compares two derivations and all that they are made from, as far as it differs.
func Explain(ctx context.Context, before, after nix.StorePath, textsBefore, textsAfter Source, facts Facts) (*Report, error) {
	root := &pair{before: before, after: after}
	pairs, err := collect(ctx, root, textsBefore, textsAfter)
	if err != nil {
		return nil, err
	}
	report := &Report{Causes: []Cause{}}
	x := explainer{facts: facts}
	if root.a != nil && root.b != nil {
		_, x.versionBefore = splitSystem(root.a.Env["name"])
		_, x.versionAfter = splitSystem(root.b.Env["name"])
	}
	report.Differing = len(pairs)
	if root.a != nil && root.b != nil && root.a.System != root.b.System {
		// Everything follows from that.
		pairs = []*pair{{before: root.before, after: root.after, a: &nix.Derivation{System: root.a.System}, b: &nix.Derivation{System: root.b.System}}}
	}
	for _, p := range pairs {
		for _, c := range x.explain(p) {
			c.PartOf = p.partOf()
			report.Causes = append(report.Causes, c)
		}
	}
	report.Causes = fold(report.Causes)
	return report, nil
}

// collect reads the derivations that differ, level by level from the root, each once.
func collect(ctx context.Context, root *pair, textsBefore, textsAfter Source) ([]*pair, error) {
	seen := map[[2]nix.StorePath]*pair{{root.before, root.after}: root}
	var all []*pair
	for level := []*pair{root}; len(level) > 0 && len(all) < maxPairs; {
		var before, after []nix.StorePath
		for _, p := range level {
			before, after = append(before, p.before), append(after, p.after)
		}
		was, err := textsBefore(ctx, before)
		if err != nil {
			return nil, err
		}
		is, err := textsAfter(ctx, after)
		if err != nil {
			return nil, err
		}
		var next []*pair
		for _, p := range level {
			p.a, p.b = parse(was[p.before]), parse(is[p.after])
			if p.a != nil && p.b != nil && sameOutputs(p.a, p.b) {
				// What is fetched by the same hash is the same, however it is fetched.
				continue
			}
			all = append(all, p)
			if p.a == nil || p.b == nil {
				continue
			}
			p.match()
			for i, child := range p.children {
				key := [2]nix.StorePath{child.before, child.after}
				if known := seen[key]; known != nil {
					p.children[i] = known
					continue
				}
				seen[key] = child
				next = append(next, child)
			}
		}
		level = next
	}
	return all, nil
}

func parse(text string) *nix.Derivation {
	d, err := nix.ParseDerivation(text)
	if err != nil {
		return nil
	}
	return d
}

func sameOutputs(a, b *nix.Derivation) bool {
	return maps.EqualFunc(a.Outputs, b.Outputs, func(x, y nix.Output) bool { return x.Path != "" && x.Path == y.Path })
}

// match pairs the inputs that differ by their names.
func (p *pair) match() {
	byName := map[string][]nix.StorePath{}
	for _, drv := range slices.Sorted(maps.Keys(p.b.Inputs)) {
		if _, both := p.a.Inputs[drv]; !both {
			byName[drv.Name()] = append(byName[drv.Name()], drv)
		}
	}
	for _, drv := range slices.Sorted(maps.Keys(p.a.Inputs)) {
		if _, both := p.b.Inputs[drv]; both {
			continue
		}
		if others := byName[drv.Name()]; len(others) > 0 {
			p.children = append(p.children, &pair{before: drv, after: others[0], parent: p})
			byName[drv.Name()] = others[1:]
			continue
		}
		p.gone = append(p.gone, drv)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		p.come = append(p.come, byName[name]...)
	}
	p.matchVersions()
}

// matchVersions pairs what is left if it is the same package in another version, such as the label in a system's name.
func (p *pair) matchVersions() {
	var gone []nix.StorePath
	for _, drv := range p.gone {
		i := slices.IndexFunc(p.come, func(other nix.StorePath) bool { return packageName(other) == packageName(drv) })
		if i < 0 {
			gone = append(gone, drv)
			continue
		}
		p.children = append(p.children, &pair{before: drv, after: p.come[i], parent: p})
		p.come = slices.Delete(p.come, i, i+1)
	}
	p.gone = gone
}

func (p *pair) partOf() []string {
	names := []string{}
	for at := p.parent; at != nil; at = at.parent {
		names = append(names, drvName(at.before))
	}
	return names
}

// drvName is the name of what a derivation makes.
func drvName(drv nix.StorePath) string { return strings.TrimSuffix(drv.Name(), ".drv") }

func packageName(drv nix.StorePath) string {
	name, _ := splitVersion(drvName(drv))
	return name
}

// splitVersion splits a name before the first digit that follows a dash.
func splitVersion(name string) (pkg, version string) {
	for i := 1; i+1 < len(name); i++ {
		if name[i] == '-' && '0' <= name[i+1] && name[i+1] <= '9' {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

// splitSystem is splitVersion for the name of a system; others have no version of NixOS.
func splitSystem(name string) (system, version string) {
	if !strings.HasPrefix(name, "nixos-system-") {
		return name, ""
	}
	return splitVersion(name)
}

// maxSame is how many causes of the same words are told one by one.
const maxSame = 5

// fold makes one cause of many that say the same, and sorts them.
func fold(causes []Cause) []Cause {
	rank := []Kind{Platform, NixItself, Version, Modules, Impure, Folder, Content, Place, Order, Input, Fetched, Setting, Unread}
	slices.SortStableFunc(causes, func(x, y Cause) int { return slices.Index(rank, x.Kind) - slices.Index(rank, y.Kind) })
	var folded []Cause
	for len(causes) > 0 {
		first := causes[0]
		var group, others []Cause
		for _, c := range causes {
			if c.Kind == first.Kind && c.Text == first.Text {
				group = append(group, c)
			} else {
				others = append(others, c)
			}
		}
		causes = others
		n := len(group)
		switch {
		case n > 1 && (first.Kind == Version || first.Kind == Platform || first.Kind == NixItself):
			// Where it shows is of no interest.
			first.Name, first.PartOf = "", []string{}
			folded = append(folded, first)
		case n > maxSame:
			folded = append(folded, group[:maxSame]...)
			folded = append(folded, Cause{Kind: first.Kind, PartOf: []string{}, Text: fmt.Sprintf("the same in %d more", n-maxSame)})
		default:
			folded = append(folded, group...)
		}
	}
	return folded
}
