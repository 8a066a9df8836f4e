package nix

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// DumpPath writes the NAR of the file, symbolic link or directory at path to w, the same bytes as nix-store --dump. It
// holds no file in memory. A file that changes size while it is read, and anything but files, links and directories, is an error;
// w has then received a part. No symbolic link is followed.
func DumpPath(ctx context.Context, w io.Writer, path string) error {
	return dumpSome(ctx, w, path, Selection{})
}

// Selection is what of a folder is dumped, and how. The zero value is all of it.
type Selection struct {
	// Has tells whether what is at a path below the folder, with slashes, belongs to it. Of a folder that does not, nothing does.
	Has func(rel string) bool
	// More are files by their names, with their contents, that are directly in the folder besides, whatever Has says.
	More map[string]string
	// Reads is given the content of each file in parts, one after the other; last says that it is the last one. Most files are one.
	Reads func(rel string, part []byte, last bool)
}

const dumpBuffer = 128 << 10

// dumpSome is DumpPath of a selection.
func dumpSome(ctx context.Context, w io.Writer, path string, s Selection) error {
	d := &dumper{ctx: ctx, out: wireWriter{bufio.NewWriterSize(w, 64<<10)}, buf: make([]byte, dumpBuffer), selection: s}
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

	selection Selection
}

func (d *dumper) dump(path string) error {
	d.out.text("nix-archive-1")
	dir, base, err := OpenStorePath(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if base != "" {
		return d.entry(dir, DirEntry{Name: base}, "")
	}
	d.out.text("(")
	d.out.text("type")
	if err := d.directory(dir, ""); err != nil {
		return err
	}
	d.out.text(")")
	return nil
}

// entry writes an entry of dir, which is at rel. Its errors name the path below dir.
func (d *dumper) entry(dir *Folder, e DirEntry, rel string) error {
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
		err = d.file(dir, e.Name, rel)
	case FolderType:
		err = d.subdirectory(dir, e.Name, rel)
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

func (d *dumper) subdirectory(dir *Folder, name, rel string) error {
	sub, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := d.directory(sub, rel+"/"); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// directory writes what is in dir. below is what the paths in it begin with.
func (d *dumper) directory(dir *Folder, below string) error {
	entries, err := dir.List()
	if err != nil {
		return err
	}
	d.out.text("directory")
	if below == "" {
		entries = d.withMore(entries)
	}
	for _, e := range entries {
		rel := ""
		if d.selection.Has != nil || d.selection.Reads != nil {
			rel = below + e.Name
		}
		text, more := d.selection.More[e.Name]
		more = more && below == ""
		if !more && d.selection.Has != nil && !d.selection.Has(rel) {
			continue
		}
		d.out.text("entry")
		d.out.text("(")
		d.out.text("name")
		d.out.text(e.Name)
		d.out.text("node")
		if more {
			for _, word := range []string{"(", "type", "regular", "contents", text, ")"} {
				d.out.text(word)
			}
		} else if err := d.entry(dir, e, rel); err != nil {
			return err
		}
		d.out.text(")")
	}
	return nil
}

// withMore are the entries of the folder with those that the selection has besides.
func (d *dumper) withMore(entries []DirEntry) []DirEntry {
	if len(d.selection.More) == 0 {
		return entries
	}
	entries = slices.DeleteFunc(entries, func(e DirEntry) bool { _, more := d.selection.More[e.Name]; return more })
	for name := range d.selection.More {
		entries = append(entries, DirEntry{Name: name, Type: RegularType})
	}
	sortEntries(entries)
	return entries
}

func (d *dumper) file(dir *Folder, name, rel string) error {
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
	if err := d.contents(f, info.Size, rel); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// contents writes the size bytes of f as a string.
func (d *dumper) contents(f *File, size int64, rel string) error {
	d.out.number(uint64(size))
	for at, end := int64(0), false; !end; {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		// One byte more than there should be tells whether there is more.
		buf := d.buf[:min(size-at+1, int64(len(d.buf)))]
		n, err := readUpTo(f, buf, at, size)
		if err != nil {
			return err
		}
		at += int64(n)
		end = at == size && n < len(buf)
		if d.selection.Reads != nil {
			d.selection.Reads(rel, buf[:n], end)
		}
		switch {
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

// readUpTo reads at an offset into buf, and again where a network's file system gives less than there is, up to the size of the file.
func readUpTo(f *File, buf []byte, at, size int64) (int, error) {
	n, err := f.Read(buf, at)
	for err == nil && n < len(buf) && at+int64(n) < size {
		var more int
		if more, err = f.Read(buf[n:], at+int64(n)); more == 0 {
			break
		}
		n += more
	}
	return n, err
}
