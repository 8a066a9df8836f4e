package receive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/delta"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// baseError is a path that cannot be rebuilt from its bases.
type baseError struct {
	path nix.StorePath
	err  error
}

func (e *baseError) Error() string {
	return fmt.Sprintf("%s cannot be rebuilt here: %v", e.path, e.err)
}
func (e *baseError) Unwrap() error { return e.err }

// rebuild makes a path's NAR out of its bases and the difference in the stream.
func (f *feeder) rebuild(info nix.PathInfo, header *agent.ShipHeader) error {
	readers, err := f.bases.open(f.ctx, header.Bases)
	if err != nil {
		return &baseError{info.Path, err}
	}
	defer func() {
		for _, r := range readers {
			r.Close()
		}
	}()
	var decodeErr error
	err = f.send(info, header.Offset, func(w io.Writer) error {
		out := &failingWriter{w: w, skip: header.Offset - header.Start}
		decodeErr = delta.Decode(f.in, out, info.NarSize-header.Start, readers)
		if out.err != nil {
			decodeErr = nil
			return out.err
		}
		return decodeErr
	})
	var bad *delta.ReadError
	switch {
	case errors.As(decodeErr, &bad):
		return &baseError{info.Path, bad}
	case decodeErr != nil:
		return &StreamError{decodeErr}
	}
	return err
}

// failingWriter leaves out the first bytes, and remembers that writing failed, so that it is told from what else may.
type failingWriter struct {
	w    io.Writer
	skip uint64
	err  error
}

func (f *failingWriter) Write(p []byte) (int, error) {
	left := int(min(f.skip, uint64(len(p))))
	f.skip -= uint64(left)
	if left == len(p) {
		return left, nil
	}
	n, err := f.w.Write(p[left:])
	f.err = err
	return left + n, err
}

// bases are the layouts of old paths. Only those of the path at hand are kept: the next one often has the same.
type bases struct{ trees map[nix.StorePath]*delta.Tree }

// open gives readers of paths, in their order.
func (b *bases) open(ctx context.Context, paths []nix.StorePath) ([]*delta.Reader, error) {
	before := b.trees
	b.trees = make(map[nix.StorePath]*delta.Tree, len(paths))
	readers := make([]*delta.Reader, len(paths))
	entries := 0
	for i, p := range paths {
		tree := before[p]
		if tree == nil {
			var err error
			if tree, err = delta.OpenTree(ctx, p); err != nil {
				return nil, err
			}
		}
		if entries += tree.Entries(); entries > delta.MaxBaseEntries {
			return nil, delta.ErrTooLarge
		}
		b.trees[p], readers[i] = tree, tree.NewReader()
	}
	return readers, nil
}

func (b *bases) close() { b.trees = nil }

// refusedBase tells whether it was a difference that could not be turned into the path: its bases are not what they are on
// ferry's side. It is told by path, so that this one is sent as a whole. What nix-store has said of the end is died.
func refusedBase(feed error, unanswered agent.ShipHeader, died error) *agent.ResponseError {
	var base *baseError
	var failed *run.Error
	switch {
	// What the path has of an earlier connection may have come from a base as well.
	case (len(unanswered.Bases) > 0 || unanswered.Offset > 0) && errors.As(died, &failed) && blamesPath(failed):
		return &agent.ResponseError{Kind: agent.KindBase, Path: unanswered.Path, Text: "Nix has refused what came out of it"}
	case errors.As(feed, &base):
		return &agent.ResponseError{Kind: agent.KindBase, Path: base.path, Text: run.Clean(base.err.Error())}
	}
	return nil
}

// blamesPath tells whether nix-store may have ended because of what it was given: that has another hash, or is no NAR at all, of
// which every version says something else. Where the reason is another, it says so again of the whole path.
func blamesPath(failed *run.Error) bool {
	return failed.Stderr != "" && !strings.Contains(failed.Stderr, "is not valid") && !DiskFull(lastWords(failed))
}

// lastWords is what a program said at its end.
func lastWords(failed *run.Error) string {
	if lines := run.LastLines(failed.Stderr, 20); len(lines) > 0 {
		return strings.Join(lines, "\n")
	}
	return failed.Error()
}

// DiskFull tells whether a program's words, the kernel's or those of SQLite below Nix, say that the disk is full.
func DiskFull(said string) bool {
	said = strings.ToLower(said)
	return slices.ContainsFunc([]string{"no space left on device", "disk quota exceeded", "disk is full"}, func(full string) bool {
		return strings.Contains(said, full)
	})
}
