package inventory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ferry/internal/nix"
)

// pin is a nixpkgs tree in the store.
type pin struct {
	tree Source
	rest string // the path below tree, "" or starting with a slash
}

// expression is the pin's path as a Nix string with context.
func (p pin) expression(pure bool) string {
	return "(" + treeExpression(p.tree, pure) + " + " + nix.Quote(p.rest) + ")"
}

// wrongPin is what evaluate.nix found instead of a tree.
type wrongPin struct {
	Type     string `json:"type"`
	Value    string `json:"value"`
	Packages bool   `json:"packages"` // looks like the package set rather than the tree it comes from
}

const pinExample = `nixpkgs = fetchTarball { url = "https://…"; sha256 = "…"; };`

func (w wrongPin) error(node string) error {
	e := &Error{Node: node, Attribute: "nixpkgs", Advice: []string{pinExample}}
	switch {
	case w.Packages:
		e.Text = "expected a nixpkgs tree, found its packages"
		e.Advice = []string{"leave the import away: nixpkgs = TREE, not import TREE { }"}
	case w.Type == "set":
		e.Text = "expected a nixpkgs tree, found an attribute set without outPath"
	case w.Type == "string":
		e.Text = fmt.Sprintf("expected the absolute path of a nixpkgs tree, found the string %q", w.Value)
	default:
		e.Text = "expected a nixpkgs tree, found " + article(w.Type)
	}
	return e
}

// withoutNixos is the error for a tree that is not nixpkgs.
func (inv *Inventory) withoutNixos(node, tree string) error {
	shown := strings.TrimSuffix(nix.UserPaths(tree+"/", inv.Source.Path, inv.Root), "/")
	e := &Error{Node: node, Attribute: "nixpkgs", Text: printable(shown) + " is no nixpkgs tree: it has no nixos/default.nix"}
	if _, err := os.Stat(filepath.Join(tree, "nixpkgs", "nixos", "default.nix")); err == nil {
		e.Advice = []string{"did you mean " + printable(filepath.Join(shown, "nixpkgs")) + "?"}
	}
	return e
}

// putPin puts the nixpkgs tree at path in the store, if it is not there yet, once per path and inventory.
func (inv *Inventory) putPin(ctx context.Context, node, path string) (pin, error) {
	return inv.pins.get(ctx, path, func() (pin, error) { return inv.newPin(ctx, node, path) })
}

func (inv *Inventory) newPin(ctx context.Context, node, path string) (pin, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) || notFolder(err) {
		// ../x in the inventory is a path next to the source's store path by now; it was meant to be next to its root.
		rel, relErr := filepath.Rel(string(inv.Source.Path), path)
		if relErr == nil && strings.HasPrefix(rel, "../") {
			if meant, err := filepath.EvalSymlinks(filepath.Join(inv.Root, rel)); err == nil {
				return inv.newPin(ctx, node, meant)
			}
		}
		return pin{}, &Error{Node: node, Attribute: "nixpkgs", Text: printable(path) + " does not exist"}
	}
	if err != nil {
		return pin{}, &Error{Node: node, Attribute: "nixpkgs", Err: err}
	}
	if _, err := os.Stat(filepath.Join(resolved, "nixos", "default.nix")); err != nil {
		return pin{}, inv.withoutNixos(node, path)
	}
	if tree, rest, err := nix.SplitStorePath(resolved); err == nil {
		p := pin{tree: Source{Path: tree}, rest: rest}
		if _, err := inv.client.Keep(ctx, tree); err != nil {
			return p, err
		}
		p.tree.NarHash, err = inv.client.NarHash(ctx, tree)
		return p, err
	}
	t := tree{root: resolved}
	work, inGit, err := findWorkTree(ctx, inv.client.Runner, resolved, inv.options.Note)
	if err != nil {
		return pin{}, err
	}
	if inGit {
		// A tree that was unpacked where git ignores it is taken as it is, not as the nothing that git knows of it.
		git := work.in(resolved)
		known, err := git.knows(ctx, "nixos/default.nix")
		if err != nil {
			return pin{}, err
		}
		if known {
			t.git = &git
		}
	}
	if inGit && work.root == resolved {
		t.nixpkgs = &work
	}
	p := pin{}
	if p.tree, err = snapshot(ctx, inv.client, t); err != nil {
		return p, fmt.Errorf("pin %s: %w", path, err)
	}
	return p, nil
}

// versionSuffix is the file from which NixOS takes its version's suffix when there is no .git.
const versionSuffix = ".version-suffix"

// suffix is what that file has to say of a checkout of nixpkgs at a commit, in the way of nixos-rebuild; "": nothing. One in the checkout that
// git does not know is taken over: plain NixOS reads it too.
func (t workTree) suffix(commit string, dirty bool) string {
	if text, err := os.ReadFile(filepath.Join(t.root, versionSuffix)); err == nil {
		return string(text)
	}
	if len(commit) < 12 {
		return ""
	}
	suffix := ".git." + commit[:12]
	if dirty {
		suffix += "M"
	}
	return suffix
}
