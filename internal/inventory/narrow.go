package inventory

import (
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/health"
	"ferry/internal/nix"
)

// narrowed tells whether the inventory says what of the source the node is made from.
func (n Node) narrowed() bool { return n.Source != nil }

// SourceOf is the source that node is made from: the inventory's, or what the node's attribute `source` leaves of it, which is
// put in the store.
func (inv *Inventory) SourceOf(ctx context.Context, node Node) (Source, error) {
	if !node.narrowed() {
		return inv.Source, nil
	}
	whole := string(inv.Source.Path)
	paths, err := withLinks(whole, inv.needed(node))
	if err != nil {
		return Source{}, at(node.Name, err)
	}
	key := strings.Join(paths, "\x00")
	inv.narrowedLock.Lock()
	s, known := inv.narrowed[key]
	inv.narrowedLock.Unlock()
	if known {
		return s, nil
	}
	// Of the snapshot, not of the folder that it was taken of: they belong together.
	select {
	case inv.narrowing <- struct{}{}:
		defer func() { <-inv.narrowing }()
	case <-ctx.Done():
		return s, at(node.Name, context.Cause(ctx))
	}
	s, err = snapshot(ctx, inv.client, tree{root: whole, only: paths, checked: true})
	if err == nil {
		s.Revision, s.Dirty, err = inv.revisionOf(ctx, paths)
	}
	if err != nil {
		return s, at(node.Name, err)
	}
	inv.narrowedLock.Lock()
	defer inv.narrowedLock.Unlock()
	inv.narrowed[key] = s
	return s, nil
}

// needed are the paths in a narrowed source: what the inventory says, the configuration, and what the checks run.
func (inv *Inventory) needed(node Node) []string {
	paths := append(slices.Clone(node.Source), node.Configuration)
	for _, c := range node.Checks.Commands {
		for _, word := range c.Run {
			rel, inside := strings.CutPrefix(word, string(inv.Source.Path)+"/")
			if !inside {
				continue
			}
			// What is not there fails when it runs, as with a source that is not narrowed.
			if _, err := os.Stat(word); err == nil {
				paths = append(paths, rel)
			}
		}
	}
	return paths
}

// ChecksOf are the node's checks, with what they run in the source that the node has.
func (inv *Inventory) ChecksOf(ctx context.Context, node Node) (health.Checks, error) {
	s, err := inv.SourceOf(ctx, node)
	if err != nil {
		return node.Checks, err
	}
	return inv.ChecksIn(node, s.Path), nil
}

// ChecksIn are the node's checks, with what they run in source, which may be that of an earlier deployment.
func (inv *Inventory) ChecksIn(node Node, source nix.StorePath) health.Checks {
	checks := node.Checks
	if source == inv.Source.Path {
		return checks
	}
	checks.Commands = slices.Clone(checks.Commands)
	for i := range checks.Commands {
		run := slices.Clone(checks.Commands[i].Run)
		for j, word := range run {
			if rel, inside := strings.CutPrefix(word, string(inv.Source.Path)+"/"); inside {
				run[j] = string(source) + "/" + rel
			}
		}
		checks.Commands[i].Run = run
	}
	return checks
}

// revisionOf is the commit that has changed any of paths last, and whether they differ from it. Where none has, it is the commit
// that is checked out.
func (inv *Inventory) revisionOf(ctx context.Context, paths []string) (commit string, dirty bool, err error) {
	if inv.place.git == nil || inv.Source.Revision == "" {
		return inv.Source.Revision, inv.Source.Dirty, nil
	}
	commit, dirty, err = inv.place.git.revisionOf(ctx, inv.Source.Revision, inv.outOfSubmodules(paths))
	if err != nil || commit == "" {
		return inv.Source.Revision, inv.Source.Dirty, err
	}
	return commit, dirty, nil
}

// historyOf are the paths whose history is that of a node's narrowed source.
func (inv *Inventory) historyOf(node Node) ([]string, error) {
	paths, err := withLinks(string(inv.Source.Path), inv.needed(node))
	return inv.outOfSubmodules(paths), err
}

func (inv *Inventory) outOfSubmodules(paths []string) []string {
	var known []string
	for _, p := range paths {
		known = append(known, inv.inSubmodule(p))
	}
	return known
}

// inSubmodule is the submodule that rel is in, which is all that the work tree's history has of it, or rel.
func (inv *Inventory) inSubmodule(rel string) string {
	for i, c := range rel {
		if c != '/' {
			continue
		}
		if _, err := os.Lstat(filepath.Join(inv.Root, rel[:i], ".git")); err == nil {
			return rel[:i]
		}
	}
	return rel
}

// withLinks adds to paths, which are below root, the symbolic links that lead to them, replaces links by what they lead to, and
// leaves out what is below another one. None of them leads out of root.
func withLinks(root string, paths []string) ([]string, error) {
	var found []string
	for _, p := range paths {
		steps, err := followed(root, p)
		if err != nil {
			return nil, err
		}
		found = append(found, steps...)
	}
	slices.Sort(found)
	var top []string
	for _, p := range slices.Compact(found) {
		if !slices.ContainsFunc(top, func(above string) bool { return above == "." || strings.HasPrefix(p, above+"/") }) {
			top = append(top, p)
		}
	}
	return top, nil
}

// maxLinks is how many symbolic links may lead to a file.
const maxLinks = 40

func leadsOut(rel string) error {
	return &Error{Attribute: "source", Text: printable(rel) + " leads out of the source by a symbolic link"}
}

// followed are the symbolic links on the way to rel below root, and where that ends.
func followed(root, rel string) ([]string, error) {
	var found []string
	at, rest := ".", strings.Split(rel, "/")
	for links := 0; len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		next := path.Join(at, word)
		if next == ".." {
			return nil, leadsOut(rel)
		}
		info, err := os.Lstat(filepath.Join(root, next))
		if err != nil {
			return nil, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			return nil, err
		}
		if links++; links > maxLinks || path.IsAbs(target) {
			return nil, leadsOut(rel)
		}
		found = append(found, next)
		rest = append(strings.Split(target, "/"), rest...)
	}
	return append(found, at), nil
}

// someEntries lists what of root is at or below paths, with the folders that those are in. No path is below another one.
func someEntries(ctx context.Context, root string, paths []string) ([]entry, error) {
	var found []entry
	folders := map[string]bool{".": true}
	var folder func(rel string)
	folder = func(rel string) {
		if !folders[rel] {
			folder(path.Dir(rel))
			folders[rel] = true
			found = append(found, entry{rel: rel, mode: fs.ModeDir})
		}
	}
	for _, p := range paths {
		folder(path.Dir(p))
		below, err := folderEntries(ctx, root, p)
		if err != nil {
			return nil, err
		}
		found = append(found, below...)
	}
	return found, nil
}

// leftOut is the advice for a file that is in the source and that the node's own does not have.
func (inv *Inventory) leftOut(rel string) string {
	shown, err := filepath.Rel(filepath.Dir(inv.place.rel), rel)
	if err != nil {
		shown = rel
	}
	if !strings.HasPrefix(shown, "../") {
		shown = "./" + shown
	}
	return "the node's `source` leaves " + printable(rel) + " out: add " + printable(shown) + ", or the folder that it is in"
}
