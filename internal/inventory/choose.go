package inventory

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Choose gives the nodes that words mean, each once, in the order of words and by name within a word. A word is a name, a
// pattern (`web*`), or a tag behind an `@`; behind a `!` it leaves out what the others have chosen, wherever it stands. With
// all, every node is chosen to begin with. A word that means no node is an error. Of a flake, only a name means a node whose target is
// not written down.
func (inv *Inventory) Choose(words []string, all bool) ([]Node, error) {
	var chosen []Node
	left := map[string]bool{}
	if all {
		if chosen = inv.declared(); len(chosen) == 0 && len(inv.nodes) > 0 {
			return nil, inv.undeclared()
		}
	}
	for _, word := range words {
		rest, leave := strings.CutPrefix(word, "!")
		nodes, err := inv.meant(rest)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			switch {
			case leave:
				left[n.Name] = true
			case !slices.ContainsFunc(chosen, func(c Node) bool { return c.Name == n.Name }):
				chosen = append(chosen, n)
			}
		}
	}
	return slices.DeleteFunc(chosen, func(n Node) bool { return left[n.Name] }), nil
}

// meant are the nodes that one word means.
func (inv *Inventory) meant(word string) ([]Node, error) {
	tag, tagged := strings.CutPrefix(word, "@")
	if !tagged && !IsPattern(word) {
		n, err := inv.Node(word)
		return []Node{n}, err
	}
	pattern := tag
	if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
		return nil, inv.wrong(word, "is not a pattern", "for example 'web*', 'web[12]' or @web")
	}
	var nodes []Node
	declared := inv.declared()
	for _, n := range declared {
		names := []string{n.Name}
		if tagged {
			names = n.Tags
		}
		if slices.ContainsFunc(names, func(s string) bool { return matches(pattern, s) }) {
			nodes = append(nodes, n)
		}
	}
	switch {
	case len(nodes) > 0:
		return nodes, nil
	case len(declared) == 0 && len(inv.nodes) > 0:
		return nil, inv.undeclared()
	case tagged:
		tags := inv.Tags()
		advice := didYouMean(tag, tags)
		if len(advice) == 0 && len(tags) > 0 {
			advice = orKnown(nil, tags)
		}
		return nil, inv.wrong(word, "is not a tag of any node", advice...)
	}
	return nil, inv.wrong(word, "matches no node", "ferry nodes shows what there is")
}

func (inv *Inventory) wrong(word, what string, advice ...string) error {
	return &Error{Text: fmt.Sprintf("%s: %s %s", filepath.Base(inv.File), printable(word), what), Advice: advice}
}

// Tags are the tags of all nodes, each once, sorted.
func (inv *Inventory) Tags() []string {
	var tags []string
	for _, n := range inv.nodes {
		tags = append(tags, n.Tags...)
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// IsPattern tells whether a word that chooses nodes may mean several by its shape: it has a character of a pattern, which
// no name has.
func IsPattern(word string) bool { return strings.ContainsAny(word, `*?[\`) }

// matches tells whether pattern, which is valid, means name.
func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}
