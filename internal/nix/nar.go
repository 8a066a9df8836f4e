package nix

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"
)

// DumpPath writes the NAR of the file, symbolic link or directory at path to w, the same bytes as nix-store --dump. It
// holds no file in memory. A file that changes size or is replaced while it is read, and anything but files, links and
// directories, is an error; w has then received a part. No symbolic link is followed.
func DumpPath(ctx context.Context, w io.Writer, path string) error {
	d := &dumper{ctx: ctx, out: wireWriter{bufio.NewWriterSize(w, 64<<10)}, buf: make([]byte, 128<<10)}
	if err := d.dump(path); err != nil {
		return fmt.Errorf("dump %s: %w", path, err)
	}
	if err := d.out.w.Flush(); err != nil {
		return fmt.Errorf("dump %s: %w", path, err)
	}
	return nil
}

// dumper writes one NAR.
type dumper struct {
	ctx context.Context
	out wireWriter
	buf []byte
}

func (d *dumper) dump(path string) error {
	d.out.text("nix-archive-1")
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		// Opened as an entry of its folder, so that there is one way to read an entry.
		dir, err := os.OpenRoot(filepath.Dir(path))
		if err != nil {
			return err
		}
		defer dir.Close()
		return d.entry(dir, filepath.Base(path))
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	opened, err := root.Stat(".")
	if err != nil {
		return err
	}
	if !os.SameFile(info, opened) {
		return errReplaced
	}
	d.out.text("(")
	d.out.text("type")
	if err := d.directory(root); err != nil {
		return err
	}
	d.out.text(")")
	return nil
}

var errReplaced = errors.New("it was replaced while it was read")

// entry writes the entry called name of dir. Its errors name the path below dir.
func (d *dumper) entry(dir *os.Root, name string) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	info, err := dir.Lstat(name)
	if err != nil {
		return err
	}
	d.out.text("(")
	d.out.text("type")
	switch mode := info.Mode(); {
	case mode.IsRegular():
		err = d.file(dir, name, info)
	case mode.IsDir():
		err = d.subdirectory(dir, name, info)
	case mode.Type() == fs.ModeSymlink:
		err = d.link(dir, name)
	default:
		err = fmt.Errorf("%s is neither a file, a symbolic link nor a directory", name)
	}
	if err != nil {
		return err
	}
	d.out.text(")")
	return nil
}

func (d *dumper) link(dir *os.Root, name string) error {
	target, err := dir.Readlink(name)
	if err != nil {
		return err
	}
	d.out.text("symlink")
	d.out.text("target")
	d.out.text(target)
	return nil
}

func (d *dumper) subdirectory(dir *os.Root, name string, info fs.FileInfo) error {
	sub, err := OpenFolder(dir, name, info)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := d.directory(sub); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// OpenFolder opens the folder called name in dir, which info is about: it follows no link that was put in its place. The caller
// closes it.
func OpenFolder(dir *os.Root, name string, info fs.FileInfo) (*os.Root, error) {
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	opened, err := sub.Stat(".")
	if err == nil && !os.SameFile(info, opened) {
		err = fmt.Errorf("%s: %w", name, errReplaced)
	}
	if err != nil {
		_ = sub.Close()
		return nil, err
	}
	return sub, nil
}

func (d *dumper) directory(dir *os.Root) error {
	names, err := ReadNames(dir)
	if err != nil {
		return err
	}
	d.out.text("directory")
	for _, name := range names {
		d.out.text("entry")
		d.out.text("(")
		d.out.text("name")
		d.out.text(name)
		d.out.text("node")
		if err := d.entry(dir, name); err != nil {
			return err
		}
		d.out.text(")")
	}
	return nil
}

// ReadNames gives the names in a folder in the order of a NAR.
func ReadNames(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	return names, nil
}

func (d *dumper) file(dir *os.Root, name string, info fs.FileInfo) error {
	// Without O_NONBLOCK a pipe put in the file's place would block for ever.
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(info, opened) {
		return fmt.Errorf("%s: %w", name, errReplaced)
	}
	d.out.text("regular")
	if opened.Mode()&0o100 != 0 {
		d.out.text("executable")
		d.out.text("")
	}
	d.out.text("contents")
	if err := d.contents(f, opened.Size()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// contents writes the size bytes of f as a string.
func (d *dumper) contents(f io.Reader, size int64) error {
	d.out.number(uint64(size))
	for left := size; left > 0; {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		n, err := f.Read(d.buf[:min(left, int64(len(d.buf)))])
		if _, werr := d.out.w.Write(d.buf[:n]); werr != nil {
			return werr
		}
		left -= int64(n)
		if errors.Is(err, io.EOF) && left > 0 {
			return errors.New("it became shorter while it was read")
		}
		if err != nil && left > 0 {
			return err
		}
	}
	if n, _ := f.Read(d.buf[:1]); n > 0 {
		return errors.New("it became longer while it was read")
	}
	var zeros [8]byte
	_, err := d.out.w.Write(zeros[:(8-size%8)%8])
	return err
}
