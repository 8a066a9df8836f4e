// Package flake reads flakes that were not written for ferry. Nix itself copies a flake's source to the store and says what its lock
// is, without writing it; a small reader in Nix then calls the flake from there as Nix would, and says which of its inputs were looked at.
package flake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"ferry/internal/nix"
)

// Options say how a flake is read.
type Options struct {
	Overrides [][2]string // inputs, and the references that take their place
	Refresh   bool        // ask again what references stand for
}

// Args are the options of nix that say the same.
func (o Options) Args() []string {
	var args []string
	for _, override := range o.Overrides {
		args = append(args, "--override-input", override[0], override[1])
	}
	if o.Refresh {
		args = append(args, "--refresh")
	}
	return args
}

// Flake is a flake whose source is in the store.
type Flake struct {
	Reference Reference
	Source    nix.StorePath
	NarHash   string
	Dir       string // the folder of flake.nix in the source, "" for its root
	Revision  string // the git commit it is from, "" if it is from none
	Dirty     bool   // it differs from Revision
	Lock      Lock
	// Unlocked are the nodes of Lock that the flake.lock in the source lacks, or has otherwise.
	Unlocked []string

	self  map[string]any // what is known of the source, by the attributes of a lock
	trees map[string]tree
	// As this Nix has it; see reader.nix.
	subfolders, relativeSources bool
}

// tree is where the tree of an input is.
type tree struct {
	path    nix.StorePath
	narHash string
	// fetched is the expression that fetches it, where it is not in the store.
	fetched string
}

// metadata is what nix flake metadata says.
type metadata struct {
	Locked map[string]any `json:"locked"`
	Locks  Lock           `json:"locks"`
	Path   string         `json:"path"`
}

// Open has Nix copy the flake that reference names to the store, and reads its lock. Nothing is written to the flake, and nothing is added to
// its repository.
func Open(ctx context.Context, client *nix.Client, reference Reference, o Options) (*Flake, error) {
	version, err := client.Version(ctx)
	if err != nil {
		return nil, err
	}
	f := &Flake{Reference: reference, trees: map[string]tree{}}
	f.subfolders = version.Major > 2 || version.Minor >= 14
	f.relativeSources = version.Major == 2 && version.Minor < 34 || version.Edition == "Lix"
	text, err := client.FlakeMetadata(ctx, reference.URL, o.Args()...)
	var m metadata
	switch {
	case err == nil:
		if err = decode(text, &m); err != nil {
			return nil, fmt.Errorf("nix flake metadata: %w", err)
		}
	case unreadable(err) && len(o.Overrides) == 0:
		if m, err = f.byHand(ctx, client); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	if err := f.set(m); err != nil {
		return nil, err
	}
	if err := f.findSource(ctx, client); err != nil {
		return nil, err
	}
	return f, f.findTrees(ctx, client, version)
}

// facts are the attributes of a source that the reader passes on, or makes others of.
var facts = []string{"dirtyRev", "dirtyShortRev", "lastModified", "narHash", "rev", "revCount", "submodules", "type"}

// set takes over what Nix says.
func (f *Flake) set(m metadata) (err error) {
	if err := m.Locks.check(); err != nil {
		return err
	}
	f.Lock, f.self = m.Locks, maps.Clone(m.Locked)
	f.Dir, _ = f.self["dir"].(string)
	f.NarHash, _ = f.self["narHash"].(string)
	if f.Revision, _ = f.self["rev"].(string); f.Revision == "" {
		dirty, _ := f.self["dirtyRev"].(string)
		f.Revision, f.Dirty = strings.TrimSuffix(dirty, "-dirty"), dirty != ""
	}
	maps.DeleteFunc(f.self, func(name string, _ any) bool {
		// Where a flake is on this machine is no part of what it is.
		return name == "dir" || name == "__final" || f.Reference.Folder != "" && !slices.Contains(facts, name)
	})
	if m.Path == "" {
		return nil
	}
	if f.Source, err = nix.ParseStorePath(m.Path); err != nil {
		return fmt.Errorf("nix flake metadata: path: %w", err)
	}
	return nil
}

// findSource makes sure that the source is in the store and stays there.
func (f *Flake) findSource(ctx context.Context, client *nix.Client) error {
	if f.Source == "" && f.NarHash != "" {
		// A tree that is read where it is, and not copied.
		path, err := nix.FetchedPath(f.NarHash)
		if err != nil {
			return fmt.Errorf("nix flake metadata: narHash: %w", err)
		}
		f.Source = path
	}
	if f.Source == "" {
		return errors.New("nix flake metadata: it does not say where the source is in the store")
	}
	valid, err := client.Keep(ctx, f.Source)
	if err == nil && !valid {
		err = fmt.Errorf("nix flake metadata: the source %s is not in the store", f.Source)
	}
	if err != nil {
		return err
	}
	// The hash that Nix has said is that of the source if it leads there. Else, as in Nix before 2.20 for a work tree, it is asked for.
	if path, err := nix.FetchedPath(f.NarHash); err != nil || path != f.Source {
		if f.NarHash, err = client.NarHash(ctx, f.Source); err != nil {
			return err
		}
	}
	f.self["narHash"] = f.NarHash
	f.Unlocked, err = f.unwritten()
	if len(f.Unlocked) > 0 || err != nil {
		// To Nix the tree is not what is committed then.
		f.Dirty = f.Revision != ""
		delete(f.self, "rev")
		delete(f.self, "revCount")
	}
	return err
}

// unwritten says in which nodes the lock is not the one that is in the source.
func (f *Flake) unwritten() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(string(f.Source), f.Dir, "flake.lock"))
	var written Lock
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := decode(text, &written); err != nil {
			return nil, &LockError{Text: err.Error()}
		}
	}
	var keys []string
	for key, node := range f.Lock.Nodes {
		if key == f.Lock.Root && len(node.Inputs) == 0 && len(written.Nodes) == 0 {
			continue // it has no inputs, and needs no lock
		}
		if !reflect.DeepEqual(node, written.Nodes[key]) {
			keys = append(keys, key)
		}
	}
	for key := range written.Nodes {
		if _, is := f.Lock.Nodes[key]; !is {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// findTrees finds out which inputs are in the store already, and keeps them.
func (f *Flake) findTrees(ctx context.Context, client *nix.Client, version nix.Version) error {
	var paths []nix.StorePath
	for _, node := range f.Lock.Nodes {
		if p := node.path(); p != "" && !node.relative() {
			paths = append(paths, p)
		}
	}
	valid, err := client.KeepValid(ctx, paths...)
	if err != nil {
		return err
	}
	for key, node := range f.Lock.Nodes {
		if node.Locked == nil || node.relative() {
			continue
		}
		t := tree{path: node.path(), narHash: node.text("narHash")}
		if !slices.Contains(valid, t.path) {
			if t.fetched, err = fetch(node, version); err != nil {
				return err
			}
		}
		f.trees[key] = t
	}
	return nil
}

// fetch is the expression that fetches the tree of a node.
func fetch(node LockNode, version nix.Version) (string, error) {
	locked := maps.Clone(node.Locked)
	delete(locked, "dir")
	delete(locked, "__final")
	if t := node.text("type"); version.Major == 2 && version.Minor < 17 && (t == "tarball" || t == "file") {
		// The older ones do not know that a tarball may have it.
		delete(locked, "lastModified")
	}
	text, err := json.Marshal(locked)
	if err != nil {
		return "", err
	}
	return "builtins.fetchTree (builtins.fromJSON " + nix.Quote(string(text)) + ")", nil
}

// unreadable tells whether Nix has refused a flake because of a lock that a later Nix has written.
func unreadable(err error) bool {
	var e *nix.EvalError
	if !errors.As(err, &e) {
		return false
	}
	return strings.Contains(e.Trace, "input attribute 'lastModified'") || strings.Contains(e.Trace, "contains mutable lock")
}

// byHand finds out what Nix does not say because it cannot read the lock: the source by the fetcher that takes no notice of the lock, and
// the lock from there.
func (f *Flake) byHand(ctx context.Context, client *nix.Client) (m metadata, err error) {
	place, query, _ := strings.Cut(f.Reference.URL, "?")
	var words []string
	dir := ""
	for word := range strings.SplitSeq(query, "&") {
		if value, is := strings.CutPrefix(word, "dir="); is {
			dir = value
		} else if word != "" {
			words = append(words, word)
		}
	}
	text, err := client.Eval(ctx, nix.Expression{Instantiate: true, Text: "let tree = builtins.fetchTree " +
		nix.Quote(place+question(strings.Join(words, "&"))) + "; in removeAttrs tree [ \"outPath\" ] // { path = tree.outPath; }", Flakes: true})
	if err != nil {
		return m, err
	}
	if err = decode(text, &m.Locked); err != nil {
		return m, fmt.Errorf("answer of Nix: %w", err)
	}
	m.Path, _ = m.Locked["path"].(string)
	for _, name := range []string{"path", "lastModifiedDate", "shortRev"} {
		delete(m.Locked, name)
	}
	m.Locked["type"], _, _ = strings.Cut(place, ":")
	if _, is := m.Locked["submodules"]; is {
		m.Locked["type"] = "git"
	}
	if dir != "" {
		m.Locked["dir"] = dir
	}
	lock, err := os.ReadFile(filepath.Join(m.Path, dir, "flake.lock"))
	if err != nil {
		return m, err
	}
	if err = decode(lock, &m.Locks); err != nil {
		return m, &LockError{Text: err.Error()}
	}
	return m, nil
}
