package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// bigSource is the size from which a source is worth a note, in bytes: it is copied to the store and to every target.
const bigSource = 50 << 20

// entry is one thing to be copied into a snapshot.
type entry struct {
	rel  string      // relative to the root, with slashes
	mode fs.FileMode // type, and for a file whether it is executable
	size int64       // bytes, for a file
}

// tree is what a snapshot is taken of: a work tree's files or a whole folder.
type tree struct {
	root    string
	git     *workTree     // nil outside git
	note    func(string)  // told when the tree is big; may be nil
	private []string      // files of this machine that must not be in it
	only    []string      // the paths in root that it is narrowed to, none below another one; nil: all of it
	checked bool          // there is no private material in it
	public  []string      // paths in root in which private material may be
	own     string        // the folder in root that the inventory is in, or ""
	without []string      // files that are left out
	opened  []privateFile // see decrypted
	nixpkgs *workTree     // it is this checkout of nixpkgs, and needs its version
}

// more are files that a snapshot has besides entries, by name. s has the revision, if t is what git knows.
func (t tree) more(ctx context.Context, s Source, entries []entry) (map[string]string, error) {
	if t.nixpkgs == nil || slices.ContainsFunc(entries, func(e entry) bool { return e.rel == versionSuffix }) {
		return nil, nil
	}
	var err error
	if t.git == nil {
		s.Revision, s.Dirty, err = t.nixpkgs.revision(ctx)
	}
	text := t.nixpkgs.suffix(s.Revision, s.Dirty)
	if err != nil || text == "" {
		return nil, err
	}
	return map[string]string{versionSuffix: text}, nil
}

// entries lists what belongs to t: folders before what is in them.
func (t tree) entries(ctx context.Context) ([]entry, error) {
	if t.only != nil {
		return someEntries(ctx, t.root, t.only)
	}
	if t.git == nil {
		return folderEntries(ctx, t.root, ".")
	}
	names, err := t.git.files(ctx)
	if err != nil {
		return nil, err
	}
	return knownEntries(t.root, names)
}

// folderEntries lists what is at or below start in root.
func folderEntries(ctx context.Context, root, start string) ([]entry, error) {
	var found []entry
	err := filepath.WalkDir(filepath.Join(root, start), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || rel == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e, err := newEntry(rel, info)
		if err != nil {
			return err
		}
		found = append(found, e)
		return nil
	})
	return found, err
}

// knownEntries lists the files names, which git knows, as they are in the work tree, with the folders they are in.
func knownEntries(root string, names []string) ([]entry, error) {
	var found []entry
	folders := map[string]bool{".": true} // false: not a folder in the work tree, though git knows files in it
	var folder func(rel string) (bool, error)
	folder = func(rel string) (bool, error) {
		if is, seen := folders[rel]; seen {
			return is, nil
		}
		is, err := folder(path.Dir(rel))
		if err != nil || !is {
			folders[rel] = false
			return false, err
		}
		info, err := os.Lstat(filepath.Join(root, rel))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		folders[rel] = err == nil && info.IsDir()
		if folders[rel] {
			found = append(found, entry{rel: rel, mode: fs.ModeDir})
		}
		return folders[rel], nil
	}
	for _, name := range names {
		// A file that git knows behind what has become a symbolic link is deleted for git, and so it is here.
		info, err := os.Lstat(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) || notFolder(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if is, err := folder(path.Dir(name)); err != nil {
			return nil, err
		} else if !is {
			continue
		}
		if info.IsDir() {
			if isEmptySubmodule(filepath.Join(root, name)) {
				_, err = folder(name)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		e, err := newEntry(name, info)
		if err != nil {
			return nil, err
		}
		found = append(found, e)
	}
	return found, nil
}

// isEmptySubmodule tells a submodule that is not checked out, which git shows as an empty folder, or one git does not
// manage, from a folder that has taken the place of a file.
func isEmptySubmodule(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
		return true
	}
	list, err := os.ReadDir(dir)
	return err == nil && len(list) == 0
}

func newEntry(rel string, info fs.FileInfo) (entry, error) {
	e := entry{rel: rel, mode: info.Mode() & fs.ModeType, size: info.Size()}
	kind := ""
	switch mode := info.Mode(); {
	case mode.IsRegular():
		e.mode |= mode & 0o100
	case mode.IsDir(), mode&fs.ModeSymlink != 0:
		e.size = 0
	case mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	default:
		kind = "a device"
	}
	if kind != "" {
		return e, &Error{Text: fmt.Sprintf("source: %s is %s, which the Nix store cannot hold", printable(rel), kind),
			Advice: []string{"move it out of the inventory's folder, or put the inventory in a git repository: only files git knows are taken"}}
	}
	return e, nil
}

// copyTo copies entries of t into the folder dest. Private material is an error that names the files.
func (t tree) copyTo(ctx context.Context, dest string, entries []entry) error {
	keys := t.newKeys(entries)
	buf := make([]byte, 128<<10)
	for _, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		from, to := filepath.Join(t.root, e.rel), filepath.Join(dest, e.rel)
		switch {
		case e.mode.IsDir():
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
		case e.mode&fs.ModeSymlink != 0:
			target, err := os.Readlink(from)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, to); err != nil {
				return err
			}
		default:
			if err := copyFile(from, to, e.mode, buf, func(part []byte, last bool) { keys.read(e.rel, part, last) }); err != nil {
				return err
			}
		}
	}
	if err := keys.refusal(); err != nil {
		return err
	}
	keys.tell(t.note)
	return nil
}

// refusePrivate is an error if one of entries is a file that is private.
func (t tree) refusePrivate(entries []entry) error {
	for _, file := range t.private {
		private, err := os.Stat(file)
		if err != nil {
			// Whoever reads it says what is wrong with it.
			continue
		}
		for _, e := range entries {
			if !e.mode.IsRegular() || e.size != private.Size() {
				continue
			}
			if info, err := os.Lstat(filepath.Join(t.root, e.rel)); err == nil && os.SameFile(info, private) {
				return &Error{
					Text:   "source: " + printable(e.rel) + " is read as a password: the store is readable for everyone, here and on the target",
					Advice: []string{"move it out of " + printable(t.root)},
				}
			}
		}
	}
	return nil
}

// copyFile copies one file through buf, and tells read of all its parts.
func copyFile(from, to string, mode fs.FileMode, buf []byte, read func(part []byte, last bool)) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	perm := fs.FileMode(0o644)
	if mode&0o100 != 0 {
		perm = 0o755
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for {
		n, err := io.ReadFull(in, buf)
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return err
		}
		read(buf[:n], last)
		if _, err := out.Write(buf[:n]); err != nil || last {
			return err
		}
	}
}

// sizeOf sums up entries and finds the folder directly below the root that holds most.
func sizeOf(entries []entry) (total int64, biggest string, inBiggest int64) {
	sums := map[string]int64{}
	for _, e := range entries {
		total += e.size
		if top, _, below := strings.Cut(e.rel, "/"); below {
			sums[top] += e.size
			if sums[top] > inBiggest {
				biggest, inBiggest = top, sums[top]
			}
		}
	}
	return total, biggest, inBiggest
}
