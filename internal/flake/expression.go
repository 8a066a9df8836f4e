package flake

import (
	_ "embed" // the Nix files and the script
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"ferry/internal/nix"
)

// The Nix files and the script that Go completes.
var (
	//go:embed reader.nix
	readerNix string
	//go:embed evaluate.nix
	evaluateNix string
	//go:embed bundle.nix
	bundleNix string
	//go:embed build-bundle.sh
	buildBundle string
	//go:embed default.nix
	defaultNix string
)

// Mark is what the trace of an input that was looked at begins with, where an expression is to be told apart from all others: it is
// replaced by a word of one evaluation's own. It stands at the beginning of the expression, once.
const Mark = "@ferry-looked-at@"

// sourceName is the input of a bundle's flake that is the flake's source.
const sourceName = "source"

// Outputs is the expression of the flake's outputs.
func (f *Flake) Outputs(pure bool) string { return f.reader(pure, "_: path: path") + ".outputs" }

// Node is the expression of an [Answer] about the configuration called name.
func (f *Flake) Node(name string, pure bool) string {
	look := "key: path: builtins.trace (looked + key) path"
	return "(let looked = " + nix.Quote(Mark) + "; in " + nix.Call(evaluateNix, [][2]string{
		{"flake", f.reader(pure, look)}, {"name", nix.Quote(name)},
	}) + ")"
}

// reader is the expression of the flake, called.
func (f *Flake) reader(pure bool, look string) string {
	return nix.Call(readerNix, [][2]string{
		{"lock", fromJSON(f.Lock)},
		{"start", nix.Quote(f.Lock.Root)},
		{"source", fromJSON(f.self) + " // { outPath = " + nix.Tree(f.Source, f.NarHash, pure) + "; }"},
		{"dir", nix.Quote(f.Dir)},
		{"trees", f.treesExpression(pure)},
		{"look", look},
		{"subfolders", nix.Bool(f.subfolders)},
		{"relativeSources", nix.Bool(f.relativeSources)},
	})
}

func (f *Flake) treesExpression(pure bool) string {
	var pairs [][2]string
	for _, key := range slices.Sorted(maps.Keys(f.trees)) {
		t := f.trees[key]
		text := t.fetched
		if text == "" {
			text = "{ outPath = " + nix.Tree(t.path, t.narHash, pure) + "; }"
		}
		pairs = append(pairs, [2]string{nix.Quote(key), text})
	}
	return nix.Set(pairs)
}

// fromJSON is value as a Nix expression.
func fromJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		// All of it was read from JSON.
		panic(err)
	}
	return "builtins.fromJSON " + nix.Quote(string(text))
}

// Made is what a derivation makes.
type Made struct {
	Drv    string `json:"drv"`
	Out    string `json:"out"`
	Output string `json:"output"`
	System string `json:"system"`
}

func (m Made) expression() string {
	return nix.Set([][2]string{
		{"drv", nix.Quote(m.Drv)}, {"out", nix.Quote(m.Out)}, {"output", nix.Quote(m.Output)}, {"system", nix.Quote(m.System)},
	})
}

// Answer is what the evaluation of a configuration gives.
type Answer struct {
	Missing []string `json:"missing"` // there is none of that name, but these
	Without bool     `json:"without"` // it is no NixOS system

	Toplevel  Made   `json:"toplevel"`
	Tools     Made   `json:"tools"`
	Coreutils Made   `json:"coreutils"`
	Shell     Made   `json:"shell"`
	Nixpkgs   string `json:"nixpkgs"` // the tree of its packages
	System    string `json:"system"`  // what it runs on
	Version   string `json:"version"`

	// Inputs are the keys of the lock's nodes whose trees were looked at, sorted.
	Inputs []string `json:"inputs"`
}

// Paths are the store paths that an answer is about: derivations, and the trees that were looked at.
func (f *Flake) Paths(a Answer) []nix.StorePath {
	var paths []nix.StorePath
	for _, m := range []Made{a.Toplevel, a.Tools, a.Coreutils, a.Shell} {
		if p, err := nix.ParseStorePath(m.Drv); err == nil {
			paths = append(paths, p)
		}
	}
	for _, key := range a.Inputs {
		if p := f.Tree(key); p != "" {
			paths = append(paths, p)
		}
	}
	return paths
}

// Tree is the tree of an input, by its key in the lock; "" if that is not known.
func (f *Flake) Tree(key string) nix.StorePath { return f.trees[key].path }

// Bundle is what a node's bundle is made of, besides the answer about it.
type Bundle struct {
	Node         string
	Attribute    string // the configuration's name
	FerryVersion string
	Impure       string // what was impure; "" if nothing was
	SwitchScript string
	Revision     string
	Dirty        bool
}

// Bundle is the expression of the derivation of a node's bundle: of a [Made] without output.
func (f *Flake) Bundle(b Bundle, a Answer) (string, error) {
	nixpkgsTree, _, err := nix.SplitStorePath(a.Nixpkgs)
	if err != nil {
		return "", &NixpkgsError{Path: a.Nixpkgs}
	}
	flakeNix, flakeLock, err := f.leaving(b)
	if err != nil {
		return "", err
	}
	manifest, err := f.manifest(b, a)
	if err != nil {
		return "", err
	}
	return "(let bundle = " + nix.Call(bundleNix, [][2]string{
		{"node", nix.Quote(b.Node)},
		{"toplevel", a.Toplevel.expression()}, {"tools", a.Tools.expression()},
		{"coreutils", a.Coreutils.expression()}, {"shell", a.Shell.expression()},
		{"source", nix.Quote(string(f.Source))},
		{"inputs", f.inputsExpression(a)},
		{"nixpkgs", nix.Quote(a.Nixpkgs)}, {"nixpkgsTree", nix.Quote(string(nixpkgsTree))},
		{"json", nix.Quote(manifest)}, {"flakeNix", nix.Quote(flakeNix)}, {"flakeLock", nix.Quote(flakeLock)},
		{"defaultNix", nix.Quote(f.withoutFlakes(b, a))},
		{"builder", nix.Quote(buildBundle)}, {"switchScript", nix.Quote(b.SwitchScript)},
	}) + "; in { drv = bundle.drvPath; out = bundle.outPath; inherit (bundle) system; })", nil
}

// NixpkgsError is a package set that says it is from somewhere else than the store.
type NixpkgsError struct{ Path string }

func (e *NixpkgsError) Error() string {
	return "its packages are from " + e.Path + ", which is not in the store"
}

// inputsExpression lists the inputs that were looked at, each under a name that a file may have.
func (f *Flake) inputsExpression(a Answer) string {
	var b strings.Builder
	b.WriteString("[ ")
	for _, key := range a.Inputs {
		if p := f.Tree(key); p != "" {
			b.WriteString(nix.Set([][2]string{{"name", nix.Quote(inputName(key))}, {"path", nix.Quote(string(p))}}) + " ")
		}
	}
	b.WriteString("]")
	return b.String()
}

// inputName is the name of an input in the bundle's folder: its key, or what of it a file may be called.
func inputName(key string) string {
	plain := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.+", r) {
			return r
		}
		return '_'
	}
	return strings.TrimLeft(strings.Map(plain, key), ".")
}
