package inventory

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

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

// snapshot copies t into the store. finish, if not nil, may change the copy before it is added.
func snapshot(ctx context.Context, client *nix.Client, t tree, finish func(dir string) error) (Source, error) {
	var s Source
	entries, err := t.entries(ctx)
	if err != nil {
		return s, err
	}
	s.Size = noteSize(entries, t.note)
	if t.git != nil {
		if s.Revision, s.Dirty, err = t.git.revision(ctx); err != nil {
			return s, err
		}
	}
	// The copy is readable for its owner only: what is refused for being secret must not be shown on the way.
	temp, err := os.MkdirTemp("", "ferry-source-")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(temp)
	dir := filepath.Join(temp, "source")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return s, err
	}
	if err := t.copyTo(ctx, dir, entries); err != nil {
		return s, err
	}
	if finish != nil {
		if err := finish(dir); err != nil {
			return s, err
		}
	}
	if t.again {
		if s.Path, err = client.Add(ctx, dir); err != nil {
			return s, err
		}
		s.NarHash, err = client.NarHash(ctx, s.Path)
		return s, err
	}
	s.Path, s.NarHash, err = client.AddTree(ctx, dir)
	return s, err
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
