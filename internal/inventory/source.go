package inventory

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"ferry/internal/nix"
)

// Source is a snapshot in the store. Its store name is "source", so that Nix's pure mode uses it where it is.
type Source struct {
	Path     nix.StorePath
	NarHash  string // as builtins.fetchTree wants it: sha256-…=
	Revision string // the git commit it is based on; "" outside git and before the first commit
	Dirty    bool   // whether files git knows differ from Revision
	Size     int64  // bytes in its files
}

// Big tells whether it is worth a note how much goes to the store, here and on every target.
func (s Source) Big() bool { return s.Size > bigSource }

// snapshot puts t in the store. One that is there already costs a reading, and nothing is written.
func snapshot(ctx context.Context, client *nix.Client, t tree) (Source, error) {
	var s Source
	entries, err := t.entries(ctx)
	if err != nil {
		return s, err
	}
	entries = slices.DeleteFunc(entries, func(e entry) bool { return slices.Contains(t.without, e.rel) })
	s.Size = noteSize(entries, t.note)
	if t.git != nil {
		if s.Revision, s.Dirty, err = t.git.revision(ctx); err != nil {
			return s, err
		}
	}
	if err := t.refusePrivate(entries); err != nil {
		return s, err
	}
	if t.opened, err = t.decrypted(ctx, entries); err != nil {
		return s, err
	}
	more, err := t.more(ctx, s, entries)
	if err != nil {
		return s, err
	}
	if s.Path, s.NarHash, err = t.inStore(ctx, client, entries, more); s.Path != "" || err != nil {
		return s, err
	}
	s.Path, s.NarHash, err = t.add(ctx, client, entries, more)
	return s, err
}

// inStore finds in the store what entries are, with more beside them, and keeps it; "": it is not there, or not whole. Private keys in it are an error; whatever
// else is wrong with it, the one who copies it will say.
func (t tree) inStore(ctx context.Context, client *nix.Client, entries []entry, more map[string]string) (path nix.StorePath, narHash string, err error) {
	has := make(map[string]bool, len(entries))
	for _, e := range entries {
		has[e.rel] = true
	}
	keys := t.newKeys(entries)
	path, narHash, err = nix.TreePath(ctx, sourceName, t.root, nix.Selection{
		Has:   func(rel string) bool { return has[rel] },
		More:  more,
		Reads: keys.read,
	})
	if err != nil {
		return "", "", nil
	}
	if err := keys.refusal(); err != nil {
		return "", "", err
	}
	if valid, err := client.Keep(ctx, path); err != nil || !valid {
		return "", "", err
	}
	keys.tell(t.note)
	return path, narHash, nil
}

// sourceName is the name of snapshots in the store.
const sourceName = "source"

// add copies entries and more, and has Nix add the copy.
func (t tree) add(ctx context.Context, client *nix.Client, entries []entry, more map[string]string) (path nix.StorePath, narHash string, err error) {
	// The copy is readable for its owner only: what is refused for being secret must not be shown on the way.
	temp, err := os.MkdirTemp("", "ferry-source-")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(temp)
	dir := filepath.Join(temp, sourceName)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", "", err
	}
	if err := t.copyTo(ctx, dir, entries); err != nil {
		return "", "", err
	}
	for name, text := range more {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", "", err
		}
	}
	return client.AddTree(ctx, dir)
}

// noteSize sums up entries, and tells the user if they are big and which folder holds most.
func noteSize(entries []entry, note func(string)) int64 {
	total, biggest, inBiggest := sizeOf(entries)
	if total <= bigSource || note == nil {
		return total
	}
	text := fmt.Sprintf("the source is big (%d MB) and goes to the store here and on every target", total>>20)
	if biggest != "" {
		text += fmt.Sprintf("; most of it is in %s (%d MB)", printable(biggest), inBiggest>>20)
	}
	note(text)
	return total
}
