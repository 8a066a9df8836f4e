package nix

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
)

// DumpPath writes the NAR of the file, symbolic link or directory at path to w, the same bytes as nix-store --dump. It
// holds no file in memory. A file that changes size while it is read, and anything but files, links and directories, is an error;
// w has then received a part. No symbolic link is followed.
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
	dir, base, err := OpenStorePath(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if base != "" {
		return d.entry(dir, DirEntry{Name: base})
	}
	d.out.text("(")
	d.out.text("type")
	if err := d.directory(dir); err != nil {
		return err
	}
	d.out.text(")")
	return nil
}

// entry writes an entry of dir. Its errors name the path below dir.
func (d *dumper) entry(dir *Folder, e DirEntry) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if e.Type == UnknownType {
		info, err := dir.Stat(e.Name)
		if err != nil {
			return err
		}
		e.Type = info.Type
	}
	d.out.text("(")
	d.out.text("type")
	var err error
	switch e.Type {
	case RegularType:
		err = d.file(dir, e.Name)
	case FolderType:
		err = d.subdirectory(dir, e.Name)
	case LinkType:
		err = d.link(dir, e.Name)
	default:
		err = fmt.Errorf("%s is neither a file, a symbolic link nor a directory", e.Name)
	}
	if err != nil {
		return err
	}
	d.out.text(")")
	return nil
}

func (d *dumper) link(dir *Folder, name string) error {
	target, err := dir.Readlink(name)
	if err != nil {
		return err
	}
	d.out.text("symlink")
	d.out.text("target")
	d.out.text(target)
	return nil
}

func (d *dumper) subdirectory(dir *Folder, name string) error {
	sub, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := d.directory(sub); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (d *dumper) directory(dir *Folder) error {
	entries, err := dir.List()
	if err != nil {
		return err
	}
	d.out.text("directory")
	for _, e := range entries {
		d.out.text("entry")
		d.out.text("(")
		d.out.text("name")
		d.out.text(e.Name)
		d.out.text("node")
		if err := d.entry(dir, e); err != nil {
			return err
		}
		d.out.text(")")
	}
	return nil
}

func (d *dumper) file(dir *Folder, name string) error {
	f, info, err := dir.OpenFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	d.out.text("regular")
	if info.Executable {
		d.out.text("executable")
		d.out.text("")
	}
	d.out.text("contents")
	if err := d.contents(f, info.Size); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// contents writes the size bytes of f as a string.
func (d *dumper) contents(f *File, size int64) error {
	d.out.number(uint64(size))
	for at, end := int64(0), false; !end; {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		// One byte more than there should be tells whether there is more.
		buf := d.buf[:min(size-at+1, int64(len(d.buf)))]
		n, err := f.Read(buf, at)
		if err != nil {
			return err
		}
		at += int64(n)
		switch end = at == size && n < len(buf); {
		case at > size:
			return errors.New("it became longer while it was read")
		case n == 0 && !end:
			return errors.New("it became shorter while it was read")
		}
		if _, err := d.out.w.Write(buf[:n]); err != nil {
			return err
		}
	}
	var zeros [8]byte
	_, err := d.out.w.Write(zeros[:(8-size%8)%8])
	return err
}
