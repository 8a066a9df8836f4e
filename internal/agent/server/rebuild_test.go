package server

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/delta"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// addBase puts a folder with some files into this machine's store, where an agent looks for bases. It stays there as garbage; the
// tests are run with a /nix of their own for that reason.
func addBase(t *testing.T, name string, files map[string]string) nix.StorePath {
	t.Helper()
	folder := makeFolder(t, name, files)
	out, err := new(run.Runner).Output(t.Context(), run.Command{Argv: []string{"env", "NIX_REMOTE=", "nix-store", "--add", folder}})
	if err != nil {
		t.Fatal(err)
	}
	return nix.StorePath(strings.TrimSpace(string(out)))
}

func makeFolder(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), name)
	for name, text := range files {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// newDifference makes a path with files as a difference from a base; with none it is whole.
func newDifference(t *testing.T, name string, files map[string]string, base nix.StorePath) item {
	t.Helper()
	folder := makeFolder(t, name, files)
	var nar bytes.Buffer
	if err := nix.DumpPath(t.Context(), &nar, folder); err != nil {
		t.Fatal(err)
	}
	x := newItemOf(name, nar.Bytes())
	if base == "" {
		return x
	}
	var trees []*delta.Tree
	for _, p := range []string{folder, string(base)} {
		tree, err := delta.OpenTree(t.Context(), nix.StorePath(p))
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree)
	}
	encoder := delta.NewEncoder(trees[0], trees[1:])
	x.header.Bases, x.nar = encoder.Bases(), nil
	for _, job := range encoder.Jobs() {
		chunks, _, err := new(delta.Coder).Encode(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		x.nar = append(x.nar, chunks...)
	}
	x.nar = append(x.nar, delta.End()...)
	return x
}

// What a base is not any more is told by the path that it spoils, and that one whole is taken by the same agent. What comes before
// it stays.
func TestShipTellsWhichPathItsBasesSpoil(t *testing.T) {
	m := newMachine(t)
	useRealNix(t, m)
	f := m.connect(locked("s1"))
	code := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz", 5000)
	change := func(name string, edit func(string) string) func(t *testing.T, base string, x *item) {
		return func(t *testing.T, base string, _ *item) {
			file := filepath.Join(base, name)
			text, err := os.ReadFile(file)
			if err == nil {
				err = os.Remove(file)
			}
			if err == nil {
				err = os.WriteFile(file, []byte(edit(string(text))), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, base string, x *item)
		says  string // "": it goes well
		kind  agent.ErrorKind
	}{
		"nothing":      {func(*testing.T, string, *item) {}, "", ""},
		"another byte": {change("code", func(s string) string { return strings.Replace(s, "9", "8", 1) }), "Nix has refused", agent.KindBase},
		"a file before": {func(t *testing.T, base string, _ *item) {
			if err := os.WriteFile(filepath.Join(base, "a"), []byte("new"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "Nix has refused", agent.KindBase},
		"longer":  {change("code", func(s string) string { return s + "x" }), "Nix has refused", agent.KindBase},
		"shorter": {change("code", func(s string) string { return s[:90_000] }), "bytes, and", agent.KindBase},
		"gone": {func(t *testing.T, base string, _ *item) {
			if err := os.RemoveAll(base); err != nil {
				t.Fatal(err)
			}
		}, "no such file", agent.KindBase},
		"a reference that is not there": {func(_ *testing.T, _ string, x *item) { x.header.References = []nix.StorePath{newSystem} }, "is not valid", ""},
		"no size":                       {func(_ *testing.T, _ string, x *item) { x.header.NarSize = 0 }, "cannot be the size", ""},
		"operations that are none":      {func(_ *testing.T, _ string, x *item) { x.nar = []byte{3, 0xff, 0xff, 0xff, 0} }, "stream of paths: ", ""},
		"too many bases": {func(_ *testing.T, _ string, x *item) {
			for len(x.header.Bases) <= delta.MaxBases {
				x.header.Bases = append(x.header.Bases, x.header.Bases[0])
			}
		}, "65 bases: the limit is 64", ""},
		"a base outside the store": {func(_ *testing.T, _ string, x *item) { x.header.Bases = []nix.StorePath{"/etc"} }, "is not in /nix/store", ""},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := strings.ReplaceAll(name, " ", "-")
			base := addBase(t, prefix+"-base", map[string]string{"code": code, "doc/x": prefix})
			if err := new(run.Runner).Run(t.Context(), run.Command{Argv: []string{"chmod", "-R", "u+w", string(base)}}); err != nil {
				t.Fatal(err)
			}
			files := map[string]string{"code": code[:100_000] + "here" + code[100_004:], "doc/x": prefix, "doc/y": "new"}
			first, x, whole := newItem(t, prefix+"-first", name), newDifference(t, prefix, files, base), newDifference(t, prefix, files, "")
			if len(x.nar) > 1000 {
				t.Fatalf("a difference of %d bytes", len(x.nar))
			}
			c.spoil(t, string(base), &x)
			r := f.ship(compress(t, stream(t, true, first, x)))
			if c.says == "" {
				if r.Error != nil || r.Ship.Registered != 2 {
					t.Errorf("%+v, %v", r.Ship, r.Error)
				}
			} else if r.Error == nil || r.Error.Kind != c.kind || !strings.Contains(strings.Join(append(r.Error.Stderr, r.Error.Text), "\n"), c.says) {
				t.Errorf("%+v, %#v", r.Ship, r.Error)
			} else if c.kind != "" && r.Error.Path != x.header.Path {
				t.Errorf("it blames %q", r.Error.Path)
			}
			if got := f.missing(first); got != nil {
				t.Errorf("missing: %q", got)
			}
			if r := f.ship(compress(t, stream(t, true, whole))); r.Error != nil {
				t.Errorf("the next ship: %+v, %v", r.Ship, r.Error)
			}
		})
	}
}
