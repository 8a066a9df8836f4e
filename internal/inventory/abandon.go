package inventory

import (
	"context"
	_ "embed" // the Nix file
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ferry/internal/nix"
)

//go:embed abandon.nix
var abandonNix string

// NotEmptyError is a folder that was to be written to and has something in it.
type NotEmptyError struct{ Dir string }

func (e *NotEmptyError) Error() string {
	return fmt.Sprintf("%s is not empty, and nothing is written over", e.Dir)
}

// Hints says what the user can do about it.
func (e *NotEmptyError) Hints() []string { return []string{"name a folder that is not there yet"} }

// WriteByHand writes to the folder dir, which is made and has to be empty, what makes a node's bundle without ferry: its
// default.nix, the two scripts, and a copy of the source. nixpkgs is where the node's pin is.
func (inv *Inventory) WriteByHand(ctx context.Context, dir string, node Node, nixpkgs string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return &NotEmptyError{Dir: dir}
	}
	source, err := inv.SourceOf(ctx, node)
	if err != nil {
		return err
	}
	pin, err := pinByHand(nixpkgs, source.Path)
	if err != nil {
		return err
	}
	text := strings.NewReplacer(
		"@node@", node.Name, "@nodeString@", nix.Quote(node.Name), "@nixpkgs@", pin, "@configuration@", nix.Quote(node.Configuration),
		"@system@", nix.Quote(node.System), "@ferryVersion@", nix.Quote(inv.options.FerryVersion),
		"@revision@", nix.Quote(source.Revision), "@dirty@", nix.Bool(source.Dirty),
	).Replace(abandonNix)
	for name, content := range map[string]string{"default.nix": text, "build-bundle.sh": buildBundle, "nixos-rebuild-switch.sh": switchScript} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return copyOut(string(source.Path), filepath.Join(dir, "source"))
}

// pinByHand is the pin as a Nix expression that needs no inventory.
func pinByHand(nixpkgs string, source nix.StorePath) (string, error) {
	if below, inside := strings.CutPrefix(nixpkgs, string(source)+"/"); inside {
		return `"${source}/` + strings.TrimPrefix(nix.Quote(below), `"`), nil
	}
	path, rest, err := nix.SplitStorePath(nixpkgs)
	if err != nil {
		return "", err
	}
	text := "builtins.storePath " + nix.Quote(string(path))
	if rest != "" {
		text += " + " + nix.Quote(rest)
	}
	return text, nil
}

// copyOut copies a tree of the store to a place where it may be edited: all of it may be written to by its owner.
func copyOut(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		place := filepath.Join(to, name)
		switch {
		case entry.IsDir():
			return os.Mkdir(place, 0o755)
		case entry.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, place)
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return copyOutFile(path, place, 0o644|info.Mode().Perm()&0o111)
	})
}

func copyOutFile(from, to string, mode os.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
