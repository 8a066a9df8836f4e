package inventory

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"ferry/internal/flake"
	"ferry/internal/run"
)

// fileName is what an inventory is called when it is not named.
const fileName = "ferry.nix"

// place is where an inventory, or a single configuration, is: the root of its source and its path below it.
type place struct {
	root string
	rel  string
	git  *workTree // nil outside git
}

// finder finds places.
type finder struct {
	runner *run.Runner
	note   func(string) // may be nil
}

// locate finds the root of the source that file belongs to: its git work tree, or else its folder. Symbolic links in the
// folder's path are resolved, the file itself may be one.
func (f finder) locate(ctx context.Context, file string) (place, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return place{}, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return place{}, err
	}
	p := place{root: dir, rel: filepath.Base(file)}
	work, ok, err := findWorkTree(ctx, f.runner, dir, f.note)
	if err != nil || !ok {
		return p, err
	}
	p.root, p.git = work.root, &work
	p.rel, err = filepath.Rel(work.root, filepath.Join(dir, p.rel))
	return p, err
}

// findInventory finds the inventory: named, which may also be the folder it is in, or else the first ferry.nix in dir and
// the folders above it up to the root of the git work tree.
func (f finder) findInventory(ctx context.Context, dir, named string) (place, error) {
	if named != "" {
		return f.namedInventory(ctx, dir, named)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return place{}, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return place{}, err
	}
	work, inGit, err := findWorkTree(ctx, f.runner, dir, nil)
	if err != nil {
		return place{}, err
	}
	for d := dir; ; d = filepath.Dir(d) {
		file := filepath.Join(d, fileName)
		if _, err := os.Lstat(file); err == nil {
			return f.locate(ctx, file)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return place{}, &Error{Err: err}
		}
		if !inGit || d == work.root {
			break
		}
	}
	where := "in " + printable(dir)
	if inGit && dir != work.root {
		where += " and above it up to " + printable(work.root)
	}
	return place{}, &Error{Err: &noneError{where: where, root: work.root}, Advice: []string{
		"write one, or name another file with -f",
		"without inventory: ferry deploy --flake REFERENCE#NODE TARGET, or --configuration FILE --nixpkgs PATH TARGET",
	}}
}

// noneError is that there is no ferry.nix.
type noneError struct {
	where string
	root  string // the work tree's root that was looked in, "" outside git
}

func (e *noneError) Error() string { return "no " + fileName + " " + e.where }

// foundFlake is the flake in dir, or in a git work tree above it, where there is no ferry.nix; else the error is missing.
func (f finder) foundFlake(dir string, none *noneError, missing error) (*flake.Reference, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if none.root == "" {
		if _, err := os.Lstat(filepath.Join(dir, flake.FileName)); err != nil {
			return nil, missing
		}
	}
	reference, err := flake.Parse(".", dir)
	if noFlake := new(flake.NoneError); errors.As(err, &noFlake) {
		return nil, missing
	}
	if err != nil {
		return nil, &Error{Err: err}
	}
	return &reference, nil
}

// namedFlake is the flake that is named.
func (f finder) namedFlake(o Options) (*flake.Reference, error) {
	if o.File != "" || o.Configuration != "" {
		return nil, &Error{Text: "a flake excludes an inventory and --configuration"}
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	reference, err := flake.Parse(o.Flake.Reference, dir)
	if err != nil {
		return nil, &Error{Text: "flake", Err: err}
	}
	return &reference, nil
}

func (f finder) namedInventory(ctx context.Context, dir, named string) (place, error) {
	if !filepath.IsAbs(named) {
		named = filepath.Join(dir, named)
	}
	info, err := os.Stat(named)
	if err == nil && info.IsDir() {
		named = filepath.Join(named, fileName)
		info, err = os.Stat(named)
	}
	switch {
	case err != nil:
		return place{}, &Error{Text: "inventory", Err: err}
	case !info.Mode().IsRegular():
		return place{}, &Error{Text: "inventory " + printable(named) + " is not a file"}
	}
	return f.locate(ctx, named)
}

// namedConfiguration locates the configuration of a machine without inventory.
func (f finder) namedConfiguration(ctx context.Context, o Options) (place, error) {
	if o.File != "" {
		return place{}, &Error{Text: "an inventory and --configuration exclude each other"}
	}
	for _, need := range [][2]string{{o.Nixpkgs, "--nixpkgs PATH"}, {o.Target, "a target"}} {
		if need[0] == "" {
			return place{}, &Error{Text: "--configuration needs " + need[1],
				Advice: []string{"ferry deploy --configuration FILE --nixpkgs PATH [--system SYSTEM] TARGET"}}
		}
	}
	file := o.Configuration
	if !filepath.IsAbs(file) {
		file = filepath.Join(o.Dir, file)
	}
	info, err := os.Stat(file)
	if err == nil && info.IsDir() {
		file = filepath.Join(file, "default.nix")
		_, err = os.Stat(file)
	}
	if err != nil {
		return place{}, &Error{Text: "--configuration", Err: err}
	}
	return f.locate(ctx, file)
}

// notFolder tells whether a path could not be looked up because something in the middle of it is not a folder.
func notFolder(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
