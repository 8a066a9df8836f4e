package preview

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"ferry/internal/checkout"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
)

// DiffSource writes the difference of the sources that two systems of a node were made from, as a unified diff. The systems are
// named as for [Diff]. A failure is an [*session.Error].
func DiffSource(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, before, after string, out io.Writer) error {
	r, err := newReader(with, inv, node)
	if err != nil {
		return err
	}
	defer r.close()
	sources := [2]nix.StorePath{}
	for i, what := range []string{before, after} {
		if what == SideTree {
			// It need not build, or even evaluate.
			source, err := r.Inventory.SourceOf(ctx, node)
			if err != nil {
				return r.Fail(session.Evaluate, session.Unchanged, err)
			}
			sources[i] = source.Path
			continue
		}
		s, err := r.side(ctx, what)
		if err != nil {
			return err
		}
		if s.Source == "" {
			return r.Fail(session.Connect, session.Unchanged, noSource(s))
		}
		sources[i] = s.Source
	}
	if err := unifiedDiff(ctx, with.Nix.Runner, sources[0], sources[1], out); err != nil {
		return r.Fail(session.Build, session.Unchanged, err)
	}
	return nil
}

func noSource(s Side) error {
	if s.Bundle == "" {
		return session.Hint(fmt.Sprintf("what %s was made from is not known: it is no bundle of ferry's", s.Name), "compare bundles, by their store paths")
	}
	return session.Hint(fmt.Sprintf("%s was made from a source that is not in this machine's store", s.Name),
		fmt.Sprintf("bring it here: nix-copy-closure --from TARGET %s; or compare without --source", s.Bundle))
}

// unifiedDiff has git compare two folders of the store, and names their files without the store.
func unifiedDiff(ctx context.Context, runner *run.Runner, a, b nix.StorePath, out io.Writer) error {
	if a == b {
		return nil
	}
	headers := strings.NewReplacer("a"+string(a)+"/", "a/", "b"+string(b)+"/", "b/", "a"+string(b)+"/", "a/", "b"+string(a)+"/", "b/")
	w := &headerWriter{out: out, replace: headers.Replace}
	err := checkout.Diff(ctx, runner, string(a), string(b), w)
	if flushed := w.flush(); flushed != nil {
		return flushed
	}
	switch {
	case run.NotFound(err):
		return session.Hint("git is not in PATH here, which compares the sources", "install git")
	case err != nil:
		return err
	}
	return w.err
}

// headerWriter changes the lines of a diff that name files, and leaves their content as it is.
type headerWriter struct {
	out     io.Writer
	replace func(string) string
	held    []byte
	inHunk  bool
	err     error
}

func (w *headerWriter) Write(p []byte) (int, error) {
	w.held = append(w.held, p...)
	for {
		i := bytes.IndexByte(w.held, '\n')
		if i < 0 {
			return len(p), w.err
		}
		w.line(string(w.held[:i+1]))
		w.held = w.held[i+1:]
	}
}

func (w *headerWriter) flush() error {
	if len(w.held) > 0 {
		w.line(string(w.held))
		w.held = nil
	}
	return w.err
}

func (w *headerWriter) line(line string) {
	switch {
	case strings.HasPrefix(line, "diff --git "):
		w.inHunk = false
	case strings.HasPrefix(line, "@@ "):
		w.inHunk = true
	}
	if !w.inHunk {
		line = w.replace(line)
	}
	if w.err == nil {
		_, w.err = io.WriteString(w.out, line)
	}
}
