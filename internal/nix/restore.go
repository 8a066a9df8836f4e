package nix

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// RestorePath makes at path, where nothing may be yet, what a NAR says, in the way that Nix has it in its store: files and
// folders that nobody may write to, with the time 1. No more than one NAR is read from r, and no file is held in memory. After
// an error a part of it is there.
func RestorePath(ctx context.Context, r io.Reader, path string) error {
	n := &narReader{ctx: ctx, in: newWireReader(r)}
	err := n.expect("nix-archive-1")
	if err == nil {
		err = n.node(path, 0)
	}
	if err != nil {
		return fmt.Errorf("restore a NAR: %w", err)
	}
	return nil
}

// maxNarDepth is how deep a NAR's folders may be: no path of the kernel's has more.
const maxNarDepth = 2048

// narReader reads one NAR.
type narReader struct {
	ctx context.Context
	in  *wireReader
}

// word reads a string, which has no more bytes than a path may have.
func (n *narReader) word() (string, error) {
	n.in.left = maxAnswer
	return n.in.text()
}

func (n *narReader) expect(words ...string) error {
	for _, want := range words {
		got, err := n.word()
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%q where %q was expected", got, want)
		}
	}
	return nil
}

// node makes what comes at path.
func (n *narReader) node(path string, depth int) error {
	if err := n.ctx.Err(); err != nil {
		return err
	}
	if depth > maxNarDepth {
		return fmt.Errorf("more than %d folders in each other", maxNarDepth)
	}
	if err := n.expect("(", "type"); err != nil {
		return err
	}
	kind, err := n.word()
	if err != nil {
		return err
	}
	switch kind {
	case "regular":
		err = n.file(path)
	case "symlink":
		err = n.link(path)
	case "directory":
		// It reads the closing parenthesis to find its end.
		return n.folder(path, depth)
	default:
		return fmt.Errorf("%q is no type of a file", kind)
	}
	if err != nil {
		return err
	}
	return n.expect(")")
}

func (n *narReader) link(path string) error {
	if err := n.expect("target"); err != nil {
		return err
	}
	to, err := n.word()
	if err != nil {
		return err
	}
	if err := os.Symlink(to, path); err != nil {
		return err
	}
	return asInStore(path)
}

func (n *narReader) folder(path string, depth int) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	for last := ""; ; {
		word, err := n.word()
		if err != nil {
			return err
		}
		if word == ")" {
			break
		}
		if word != "entry" {
			return fmt.Errorf("%q where an entry was expected", word)
		}
		if err := n.expect("(", "name"); err != nil {
			return err
		}
		name, err := n.word()
		if err != nil {
			return err
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || name <= last {
			return fmt.Errorf("%q cannot be the name of the entry after %q", name, last)
		}
		last = name
		if err := n.expect("node"); err != nil {
			return err
		}
		if err := n.node(filepath.Join(path, name), depth+1); err != nil {
			return err
		}
		if err := n.expect(")"); err != nil {
			return err
		}
	}
	if err := os.Chmod(path, 0o555); err != nil {
		return err
	}
	return asInStore(path)
}

func (n *narReader) file(path string) error {
	mode := os.FileMode(0o444)
	word, err := n.word()
	if err == nil && word == "executable" {
		mode = 0o555
		if err = n.expect(""); err == nil {
			word, err = n.word()
		}
	}
	if err != nil {
		return err
	}
	if word != "contents" {
		return fmt.Errorf("%q where the content of a file was expected", word)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = n.contents(f)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return asInStore(path)
}

// contents copies a string of any length.
func (n *narReader) contents(w io.Writer) error {
	n.in.left = maxAnswer
	size, err := n.in.number()
	if err != nil {
		return err
	}
	if size > 1<<62 {
		return fmt.Errorf("%d bytes cannot be the size of a file", size)
	}
	out := bufio.NewWriterSize(w, 64<<10)
	for left := int64(size); left > 0; {
		if err := n.ctx.Err(); err != nil {
			return err
		}
		some := min(left, 1<<20)
		if _, err := io.CopyN(out, n.in.r, some); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		left -= some
	}
	if err := out.Flush(); err != nil {
		return err
	}
	padding, err := n.in.take(int((8 - size%8) % 8))
	if err != nil {
		return err
	}
	for _, c := range padding {
		if c != 0 {
			return errors.New("the padding of a file is not zero")
		}
	}
	return nil
}
