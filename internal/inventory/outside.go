package inventory

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/secret"
)

// refuseOutside refuses private material that an impure evaluation has read elsewhere than in the source and the pin: files and folders
// that became sources of a derivation, and text that became a part of one.
func (ev *evaluation) refuseOutside(ctx context.Context, bundle, pin nix.StorePath) error {
	o := outside{ctx: ctx, scanner: secret.New(), pin: pin, sources: map[nix.StorePath]bool{}}
	if err := o.derivations(bundle); err != nil {
		return failed(ev.node.Name, err)
	}
	for _, known := range []nix.StorePath{ev.source.Path, ev.inv.Source.Path, pin} {
		delete(o.sources, known)
	}
	var paths []nix.StorePath
	for p := range o.sources {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	added, err := ev.inv.client.NotBuilt(ctx, paths)
	if err != nil {
		return failed(ev.node.Name, err)
	}
	for _, p := range added {
		if err := o.source(p); err != nil {
			return failed(ev.node.Name, err)
		}
	}
	if len(o.found) == 0 {
		return nil
	}
	var names []string
	for _, f := range o.found {
		names = append(names, f.rel+" ("+f.kind+")")
	}
	return failed(ev.node.Name, &Error{
		Text: "the impure evaluation has put private material from outside of the source in the store, which is readable for everyone: " + someText(names),
	}, "name secrets by paths in quotes, which nothing copies: \"/run/keys/…\"; or keep them encrypted in the source (agenix, sops-nix)",
		"it was not sent anywhere; take it out of the store here as well: nix-store --delete "+run.Quote(o.paths[0]))
}

// refusePin refuses private material in a pin that Nix itself has copied to the store, as "${/home/me/nixpkgs}" does: it takes all that
// is there, whatever git knows of it. What is nixpkgs' own is not read.
func (ev *evaluation) refusePin(ctx context.Context, pin nix.StorePath) error {
	if pin == ev.source.Path || pin == ev.inv.Source.Path {
		return nil
	}
	_, err := ev.inv.looked.get(ctx, pin, func() (struct{}, error) { return struct{}{}, ev.readPin(ctx, pin) })
	return err
}

// readPin reads all of a pin, unless it was built.
func (ev *evaluation) readPin(ctx context.Context, pin nix.StorePath) error {
	added, err := ev.inv.client.NotBuilt(ctx, []nix.StorePath{pin})
	if err != nil || len(added) == 0 {
		return err
	}
	entries, err := folderEntries(ctx, string(pin), ".")
	if err != nil {
		return err
	}
	keys := tree{root: string(pin)}.newKeys(entries)
	for _, e := range entries {
		if !e.mode.IsRegular() || keys.isPublic(e.rel) {
			continue
		}
		if err := keys.readFile(filepath.Join(string(pin), e.rel), e.rel); err != nil {
			return err
		}
	}
	if len(keys.found) == 0 {
		return nil
	}
	var names []string
	for _, f := range keys.found {
		names = append(names, string(pin)+"/"+printable(f.rel)+" ("+f.kind+")")
	}
	return &Error{
		Node: ev.node.Name, Attribute: "nixpkgs",
		Text: "the pin was copied to the store with private material in it, which is readable for everyone: " + someText(names),
		Advice: []string{"name a checkout by its path in quotes: ferry takes what git knows of it; or take these files out of it",
			"it was not sent anywhere; take it out of the store here as well: nix-store --delete " + run.Quote(string(pin))},
	}
}

// outside looks for private material in what a derivation needs.
type outside struct {
	ctx     context.Context
	scanner *secret.Scanner
	pin     nix.StorePath
	sources map[nix.StorePath]bool
	found   []privateFile
	paths   []string // the store paths of found
}

// derivations reads drv and all that it needs.
func (o *outside) derivations(drv nix.StorePath) error {
	seen := map[nix.StorePath]bool{drv: true}
	for todo := []nix.StorePath{drv}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := o.ctx.Err(); err != nil {
			return err
		}
		text, err := os.ReadFile(string(next))
		if err != nil {
			return err
		}
		d, err := nix.ParseDerivation(string(text))
		if err != nil {
			return err
		}
		var all bytes.Buffer
		for _, word := range d.Args {
			all.WriteString(word + "\n\n")
		}
		for _, value := range d.Env {
			all.WriteString(value + "\n\n")
		}
		if kind := o.scanner.Read(string(next), all.Bytes(), true); kind != "" {
			o.add(string(next), string(next), kind)
		}
		for _, s := range d.Sources {
			o.sources[s] = true
		}
		for input := range d.Inputs {
			if !seen[input] {
				seen[input] = true
				todo = append(todo, input)
			}
		}
	}
	return nil
}

func (o *outside) add(path, shown, kind string) {
	o.found = append(o.found, privateFile{printable(shown), kind})
	o.paths = append(o.paths, path)
}

// source looks at what was added to the store under path.
func (o *outside) source(path nix.StorePath) error {
	info, err := os.Lstat(string(path))
	if err != nil {
		return err
	}
	var entries []entry
	if info.IsDir() {
		if entries, err = folderEntries(o.ctx, string(path), "."); err != nil {
			return err
		}
	}
	keys := tree{root: string(path)}.newKeys(entries)
	// A single file is known by its name in the store.
	name := func(rel string) string {
		if rel == "" {
			return path.Name()
		}
		return rel
	}
	_, _, err = nix.TreePath(o.ctx, path.Name(), string(path), nix.Selection{Reads: func(rel string, part []byte, last bool) {
		keys.read(name(rel), part, last)
	}})
	if err != nil {
		return err
	}
	for _, f := range keys.found {
		if info.IsDir() {
			o.add(string(path), string(path)+"/"+f.rel, f.kind)
		} else if !o.inPin(path) {
			o.add(string(path), string(path), f.kind)
		}
	}
	return nil
}

// inPin tells whether a file of the store is the copy of one in the pin, which everyone has.
func (o *outside) inPin(path nix.StorePath) bool {
	text, err := os.ReadFile(string(path))
	if err != nil || o.pin == "" {
		return false
	}
	is := false
	_ = filepath.WalkDir(string(o.pin), func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() != path.Name() {
			return err
		}
		other, err := os.ReadFile(file)
		if err == nil && bytes.Equal(text, other) {
			is = true
			return fs.SkipAll
		}
		return err
	})
	return is
}

// someText is some of names, and how many more there are.
func someText(names []string) string {
	if len(names) > 5 {
		names = append(names[:5:5], "and more")
	}
	return strings.Join(names, ", ")
}
