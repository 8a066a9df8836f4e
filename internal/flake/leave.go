package flake

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ferry/internal/nix"
)

// leaving is the flake that a bundle is: the source as an input, whose configurations are passed on, and a lock with all nodes of the
// source's own. Nix needs the trees of those only that are looked at.
func (f *Flake) leaving(b Bundle) (flakeNix, flakeLock string, err error) {
	original := map[string]any{"type": "path", "path": string(f.Source)}
	locked := map[string]any{"type": "path", "path": string(f.Source), "narHash": f.NarHash}
	if f.Dir != "" {
		original["dir"], locked["dir"] = f.Dir, f.Dir
	}
	for _, name := range []string{"rev", "revCount", "lastModified"} {
		if value, is := f.self[name]; is {
			locked[name] = value
		}
	}
	lock := Lock{Version: lockVersion, Root: f.key("root"), Nodes: map[string]LockNode{}}
	source := f.key(sourceName)
	for key, node := range f.Lock.Nodes {
		if key == f.Lock.Root {
			key, node.Original, node.Locked = source, original, locked
		}
		lock.Nodes[key] = f.moved(stored(node), source)
	}
	lock.Nodes[lock.Root] = LockNode{Inputs: map[string]any{sourceName: source}}
	text, err := json.MarshalIndent(lock, "", "  ")
	if err != nil {
		return "", "", err
	}
	var attributes [][2]string
	for _, name := range slices.Sorted(maps.Keys(original)) {
		attributes = append(attributes, [2]string{name, nix.Quote(original[name].(string))})
	}
	flakeNix = fmt.Sprintf(`# What ferry has deployed to %s, as a flake: the flake that it was deployed from is its input. In this folder,
#
#   sudo nixos-rebuild switch --flake '.#%s'
#
# builds nothing. To go on from here, copy the folder that source is a link to, and edit that.
{
  inputs.%s = %s;
  outputs = { self, %s }: { inherit (%s) nixosConfigurations; };
}
`, b.Node, b.Attribute, sourceName, nix.Set(attributes), sourceName, sourceName)
	return flakeNix, string(text) + "\n", nil
}

// stored is a node that Nix 2.8 can read as well: that refuses what later ones lock of a tarball or file. Its tree is in the store by now, or
// nobody asks for it.
func stored(node LockNode) LockNode {
	p := node.path()
	if kind := node.text("type"); p == "" || kind != "tarball" && kind != "file" {
		return node
	}
	locked := map[string]any{"type": "path", "path": string(p)}
	for _, name := range []string{"dir", "lastModified", "narHash", "rev", "revCount"} {
		if value, is := node.Locked[name]; is {
			locked[name] = value
		}
	}
	node.Locked = locked
	return node
}

// key is wanted, or a key like it that no node of the lock has, its root aside.
func (f *Flake) key(wanted string) string {
	key := wanted
	for n := 2; ; n++ {
		if _, taken := f.Lock.Nodes[key]; !taken || key == f.Lock.Root {
			return key
		}
		key = fmt.Sprintf("%s_%d", wanted, n)
	}
}

// moved is a node in a lock whose root has the lock's former root as an input: what leads from the root to a node is one step longer.
func (f *Flake) moved(node LockNode, source string) LockNode {
	if node.Parent != nil {
		parent := append([]string{sourceName}, *node.Parent...)
		node.Parent = &parent
	}
	inputs := map[string]any{}
	for name, input := range node.Inputs {
		switch input := input.(type) {
		case []any:
			inputs[name] = append([]any{sourceName}, input...)
		default:
			inputs[name] = input
			if input == f.Lock.Root {
				inputs[name] = source
			}
		}
	}
	node.Inputs = inputs
	return node
}

// withoutFlakes is the bundle's default.nix: its configurations, by the reader, for a Nix without flakes and for what a flake cannot say.
func (f *Flake) withoutFlakes(b Bundle, a Answer) string {
	var trees strings.Builder
	for _, key := range a.Inputs {
		if p := f.Tree(key); p != "" {
			fmt.Fprintf(&trees, "    %s.outPath = builtins.storePath %s;\n", nix.Quote(key), nix.Quote(string(p)))
		}
	}
	return strings.NewReplacer(
		"@node@", b.Node, "@attribute@", b.Attribute, "@reader@", strings.TrimRight(indented(readerNix), "\n"),
		"@start@", nix.Quote(f.key(sourceName)), "@source@", attributes(f.self), "@outPath@", nix.Quote(string(f.Source)),
		"@dir@", nix.Quote(f.Dir), "@trees@", trees.String(), "@subfolders@", nix.Bool(f.subfolders), "@relativeSources@", nix.Bool(f.relativeSources),
	).Replace(defaultNix)
}

// indented is a text with its lines moved to the right, as an argument in parentheses.
func indented(text string) string {
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
}

// attributes are those of a source as Nix writes them.
func attributes(source map[string]any) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(source)) {
		value := fmt.Sprint(source[name])
		if text, is := source[name].(string); is {
			value = nix.Quote(text)
		}
		fmt.Fprintf(&b, "      %s = %s;\n", name, value)
	}
	return b.String()
}

// manifest is the bundle's ferry.json.
func (f *Flake) manifest(b Bundle, a Answer) (string, error) {
	inputs := map[string]any{}
	for _, key := range a.Inputs {
		inputs[key] = f.Lock.Nodes[key].Locked
	}
	facts := map[string]any{
		"attribute": b.Attribute, "dirty": b.Dirty, "ferryVersion": b.FerryVersion, "flake": f.self, "format": 1, "inputs": inputs,
		"node": b.Node, "nixpkgs": a.Nixpkgs, "nixpkgsVersion": a.Version, "profile": a.Toplevel.Out,
		"revision": b.Revision, "source": f.Source, "system": a.System,
	}
	if b.Impure != "" {
		facts["impure"] = b.Impure
	}
	if f.Dir != "" {
		facts["dir"] = f.Dir
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(facts)) {
		value, err := json.Marshal(facts[name])
		if err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("  %q: %s", name, value))
	}
	return "{\n" + strings.Join(lines, ",\n") + "\n}\n", nil
}
