package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"sync"

	"ferry/internal/nix"
)

// Tree is the layout of a store path's NAR: where in it each file's contents are. With it any range of the NAR can be read
// from the files, in about 50 bytes of memory per file. It holds nothing open, and is for any number of readers at once.
type Tree struct {
	path    nix.StorePath
	base    string // the path's name in the store, if it is no folder
	entries []entry
	names   []byte // of all entries, and the targets of links behind them
	size    uint64

	// lookup finds files and folders by their path; see index.
	lookup func() *pathIndex
}

// entry is a file, folder or link, in the order of the NAR, which is that of a walk with sorted names.
type entry struct {
	content uint64 // where its contents begin in the NAR; those of a folder or link are empty and begin behind its tokens
	size    uint64 // of a file
	name    uint32 // where its name begins in names
	target  uint16 // length of a link's target
	nameLen uint8
	kind    kind
	parent  int32 // -1: none
}

type kind uint8

const (
	regular kind = iota
	executable
	directory
	symlink
)

// A tree with more entries or a deeper one is no base: it would take too much memory on the target.
const (
	MaxEntries = 250_000
	maxDepth   = 500
)

// ErrTooLarge is a tree with more than [MaxEntries] entries, or too deep a one.
var ErrTooLarge = errors.New("it has too many files")

var errChanged = errors.New("it was changed while it was read")

// OpenTree walks the tree at a store path.
func OpenTree(ctx context.Context, path nix.StorePath) (*Tree, error) {
	return openTree(ctx, string(path))
}

func openTree(ctx context.Context, path string) (*Tree, error) {
	t := &Tree{path: nix.StorePath(path)}
	t.lookup = sync.OnceValue(t.index)
	root, base, err := nix.OpenStorePath(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	t.base = base
	w := &walker{ctx: ctx, tree: t}
	if base != "" {
		err = w.add(root, nix.DirEntry{Name: base}, -1, 0)
	} else if err = w.enter(nix.FileInfo{Type: nix.FolderType}, "", -1); err == nil {
		err = w.directory(root, 0, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t.entries, t.names = slices.Clip(t.entries), slices.Clip(t.names)
	t.size = w.end + uint64(len(t.frame(nil, len(t.entries))))
	return t, nil
}

// open opens the folder of the path, or the one it is in if the path is no folder.
func (t *Tree) open() (*nix.Folder, error) {
	root, base, err := nix.OpenStorePath(string(t.path))
	if err != nil {
		return nil, err
	}
	if base != t.base {
		root.Close()
		return nil, errChanged
	}
	return root, nil
}

// Size is the NAR's size in bytes.
func (t *Tree) Size() uint64 { return t.size }

// Path is the store path.
func (t *Tree) Path() nix.StorePath { return t.path }

// Entries is how many files, folders and links there are.
func (t *Tree) Entries() int { return len(t.entries) }

// walker fills a tree.
type walker struct {
	ctx  context.Context
	tree *Tree
	end  uint64 // of the last entry's contents
	buf  []byte
}

// enter adds an entry; a link's target is added by the caller.
func (w *walker) enter(info nix.FileInfo, name string, parent int32) error {
	t := w.tree
	if len(t.entries) >= MaxEntries {
		return ErrTooLarge
	}
	if len(name) > 255 {
		return fmt.Errorf("%q is too long a name", name)
	}
	e := entry{name: uint32(len(t.names)), nameLen: uint8(len(name)), parent: parent}
	if t.base != "" && parent < 0 {
		e.nameLen, name = 0, ""
	}
	t.names = append(t.names, name...)
	switch info.Type {
	case nix.RegularType:
		if e.kind = regular; info.Executable {
			e.kind = executable
		}
		e.size = uint64(info.Size)
	case nix.FolderType:
		e.kind = directory
	case nix.LinkType:
		e.kind = symlink
	default:
		return fmt.Errorf("%s is neither a file, a symbolic link nor a directory", name)
	}
	t.entries = append(t.entries, e)
	return nil
}

// place says where the contents of the last entry are, whose tokens are complete now.
func (w *walker) place() {
	last := len(w.tree.entries) - 1
	e := &w.tree.entries[last]
	w.buf = w.tree.frame(w.buf[:0], last)
	e.content = w.end + uint64(len(w.buf))
	w.end = e.content + e.size
}

// add adds an entry of dir, and what is below it.
func (w *walker) add(dir *nix.Folder, e nix.DirEntry, parent int32, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	info := nix.FileInfo{Type: e.Type}
	if e.Type == nix.UnknownType || e.Type == nix.RegularType {
		var err error
		if info, err = dir.Stat(e.Name); err != nil {
			return err
		}
	}
	if err := w.enter(info, e.Name, parent); err != nil {
		return err
	}
	t := w.tree
	self := int32(len(t.entries) - 1)
	switch info.Type {
	case nix.LinkType:
		target, err := dir.Readlink(e.Name)
		if err != nil {
			return err
		}
		if len(target) > 4096 {
			return fmt.Errorf("%s: its target is too long", e.Name)
		}
		t.entries[self].target = uint16(len(target))
		t.names = append(t.names, target...)
	case nix.FolderType:
		sub, err := dir.Open(e.Name)
		if err != nil {
			return err
		}
		defer sub.Close()
		return w.directory(sub, self, depth+1)
	}
	w.place()
	return nil
}

// directory adds what is in a folder whose entry is the last one.
func (w *walker) directory(dir *nix.Folder, self int32, depth int) error {
	w.place()
	if depth > maxDepth {
		return ErrTooLarge
	}
	entries, err := dir.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := w.add(dir, e, self, depth); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) name(i int32) string {
	e := t.entries[i]
	return string(t.names[e.name : e.name+uint32(e.nameLen)])
}

// pathOf is the path of an entry below the tree's folder.
func (t *Tree) pathOf(i int32) string {
	var parts []string
	for ; i >= 0 && t.entries[i].nameLen > 0; i = t.entries[i].parent {
		parts = append(parts, t.name(i))
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// Reader reads ranges of a tree's NAR. It is for one goroutine, and keeps open what it read last: the next is likely near. The caller
// closes it.
type Reader struct {
	tree   *Tree
	root   *nix.Folder // nil: not opened yet
	dir    openFolder  // of the file
	up     openFolder  // that dir is in
	file   *nix.File   // of the entry fileOf
	fileOf int32
	frame  []byte
}

// openFolder is a folder that is an entry; nil: none is open.
type openFolder struct {
	*nix.Folder
	of int32
}

func (o *openFolder) close() {
	if o.Folder != nil {
		o.Close()
	}
	*o = openFolder{}
}

// NewReader makes a reader.
func (t *Tree) NewReader() *Reader { return &Reader{tree: t, fileOf: -1} }

// Close closes what is open.
func (r *Reader) Close() {
	r.closeFile()
	r.dir.close()
	r.up.close()
	if r.root != nil {
		r.root.Close()
		r.root = nil
	}
}

func (r *Reader) closeFile() {
	if r.file != nil {
		r.file.Close()
	}
	r.file, r.fileOf = nil, -1
}

// Copy writes the length bytes of the NAR that begin at offset to w, through buf. That they cannot be read, or that the range
// is not in the NAR, is a [*ReadError].
func (r *Reader) Copy(w io.Writer, offset, length uint64, buf []byte) error {
	for length > 0 {
		n := min(length, uint64(len(buf)))
		if err := r.ReadAt(buf[:n], offset); err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// ReadError is an old path that cannot be read as it was.
type ReadError struct {
	Path nix.StorePath
	Err  error
}

func (e *ReadError) Error() string { return fmt.Sprintf("read %s: %v", e.Path, e.Err) }

// Unwrap gives the reason.
func (e *ReadError) Unwrap() error { return e.Err }

// ReadAt fills p with the bytes of the NAR that begin at offset.
func (r *Reader) ReadAt(p []byte, offset uint64) error {
	t := r.tree
	if offset > t.size || uint64(len(p)) > t.size-offset {
		return &ReadError{t.path, fmt.Errorf("there is no range of %d bytes at %d in its %d", len(p), offset, t.size)}
	}
	// The first entry whose contents end behind offset: its tokens or contents are at offset, or those of the end.
	i := sort.Search(len(t.entries), func(i int) bool { return t.entries[i].content+t.entries[i].size > offset })
	for ; len(p) > 0; i++ {
		start := t.start(i)
		r.frame = t.frame(r.frame[:0], i)
		if skip := offset - start; skip < uint64(len(r.frame)) {
			n := copy(p, r.frame[skip:])
			p, offset = p[n:], offset+uint64(n)
		}
		if len(p) == 0 || i == len(t.entries) {
			continue
		}
		e := t.entries[i]
		if e.size == 0 || offset < e.content {
			continue
		}
		n := min(uint64(len(p)), e.size-(offset-e.content))
		if err := r.contents(int32(i), p[:n], offset-e.content); err != nil {
			return &ReadError{t.path, err}
		}
		p, offset = p[n:], offset+n
	}
	return nil
}

// contents reads from a file.
func (r *Reader) contents(i int32, p []byte, offset uint64) error {
	if err := r.open(i); err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := r.file.Read(p, int64(offset))
		if err == nil && n == 0 {
			err = errChanged
		}
		if err != nil {
			return err
		}
		p, offset = p[n:], offset+uint64(n)
	}
	return nil
}

// open opens a file.
func (r *Reader) open(i int32) error {
	if r.fileOf == i {
		return nil
	}
	r.closeFile()
	t := r.tree
	if r.root == nil {
		root, err := t.open()
		if err != nil {
			return err
		}
		r.root = root
	}
	e := t.entries[i]
	dir, name := r.root, t.base
	if e.parent >= 0 {
		name = t.name(i)
		if err := r.enter(e.parent); err != nil {
			return err
		}
		if e.parent > 0 {
			dir = r.dir.Folder
		}
	}
	f, info, err := dir.OpenFile(name)
	if err != nil {
		return err
	}
	if uint64(info.Size) != e.size {
		f.Close()
		return errChanged
	}
	r.file, r.fileOf = f, i
	return nil
}

// enter opens a folder. In a tree's order the next one is nearly always in the same folder as the last one, or in the last one itself.
func (r *Reader) enter(i int32) error {
	t := r.tree
	if i == 0 || r.dir.Folder != nil && r.dir.of == i {
		return nil
	}
	if r.up.Folder != nil && r.up.of == i {
		r.dir.close()
		r.dir, r.up = r.up, openFolder{}
		return nil
	}
	parent := t.entries[i].parent
	in := r.root
	switch {
	case parent == 0:
		r.up.close()
	case r.up.Folder != nil && r.up.of == parent:
		in = r.up.Folder
	default:
		if err := r.enter(parent); err != nil {
			return err
		}
		r.up.close()
		r.up, r.dir = r.dir, openFolder{}
		in = r.up.Folder
	}
	r.dir.close()
	dir, err := in.Open(t.name(i))
	if err != nil {
		return err
	}
	r.dir = openFolder{dir, i}
	return nil
}
