package delta

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/nix"
)

// makeTree makes a tree on the disk: by path, contents of files; "-> x" is a link to x, "+x" before contents an executable, a
// path that ends in a slash a folder. The path "" is the root itself.
func makeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text, path := files[name], filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			switch target, link := strings.CutPrefix(text, "-> "); {
			case strings.HasSuffix(name, "/"):
				err = os.MkdirAll(path, 0o755)
			case link:
				err = os.Symlink(target, path)
			case strings.HasPrefix(text, "+x"):
				err = os.WriteFile(path, []byte(text[2:]), 0o755)
			default:
				err = os.WriteFile(path, []byte(text), 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func treeOf(t *testing.T, files map[string]string) *Tree {
	t.Helper()
	return openTest(t, makeTree(t, files))
}

func openTest(t *testing.T, path string) *Tree {
	t.Helper()
	tree, err := openTree(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func narOf(t *testing.T, path string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := nix.DumpPath(t.Context(), &b, path); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shapes are trees of every kind.
func shapes() map[string]map[string]string {
	many := map[string]string{}
	for i := range 300 {
		many[strings.Repeat("d/", i%7)+strings.Repeat("x", 1+i%20)+string(rune('a'+i%26))] = strings.Repeat("content", i)
	}
	beside := map[string]string{"zz": "last"}
	for i := range 60 {
		beside[fmt.Sprintf("pkgs/%c/%d/%c/default.nix", 'a'+i%5, i, 'x'+i%3)] = fmt.Sprint("package", i)
		beside[fmt.Sprintf("pkgs/%c/%d/readme", 'a'+i%5, i)] = fmt.Sprint("about", i)
	}
	return map[string]map[string]string{
		"a file":               {"": "text"},
		"an empty file":        {"": ""},
		"an executable":        {"": "+x#!/bin/sh\n"},
		"a link":               {"": "-> /nix/store"},
		"an empty folder":      {"a/": ""},
		"folders in folders":   {"a/b/c/d/": "", "a/b/e": "1", "a/f/": "", "g": "22"},
		"sizes around eight":   {"0": "", "1": "1", "7": "1234567", "8": "12345678", "9": "123456789"},
		"links and programs":   {"bin/sh": "+xsh", "bin/x": "-> sh", "lib": "-> ../other", "share/doc/": ""},
		"empty folder at last": {"a": "x", "z/y/x/": ""},
		"many":                 many,
		"folders beside them":  beside,
		"names in odd order":   {"a": "1", "a-b": "2", "a/b": "3"},
	}
}

func TestTreeReadsLikeTheNAR(t *testing.T) {
	all := shapes()
	delete(all, "names in odd order")
	all["a folder sorts by its name alone"] = map[string]string{"a/b": "3", "a-b": "2", "a.b": "1", "a+": "4"}
	for name, files := range all {
		t.Run(name, func(t *testing.T) {
			path := makeTree(t, files)
			tree, want := openTest(t, path), narOf(t, path)
			if tree.Size() != uint64(len(want)) {
				t.Fatalf("size %d, want %d", tree.Size(), len(want))
			}
			before := openFiles(t)
			r := tree.NewReader()
			defer func() {
				r.Close()
				if left := openFiles(t); left != before {
					t.Errorf("%d files are open, %d were", left, before)
				}
			}()
			got := make([]byte, len(want))
			if err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("another NAR: %v\n%q\n%q", err, got, want)
			}
			random := rand.New(rand.NewPCG(1, 2))
			for range 500 {
				a, b := random.IntN(len(want)+1), random.IntN(len(want)+1)
				a, b = min(a, b), max(a, b)
				if err := r.ReadAt(got[:b-a], uint64(a)); err != nil || !bytes.Equal(got[:b-a], want[a:b]) {
					t.Fatalf("%d to %d: %v", a, b, err)
				}
			}
		})
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

func TestTreeRefusesRangesOutsideOfIt(t *testing.T) {
	tree := treeOf(t, map[string]string{"a": "x"})
	r := tree.NewReader()
	defer r.Close()
	for _, c := range []struct{ offset, length uint64 }{{tree.Size(), 1}, {tree.Size() + 1, 0}, {1<<64 - 1, 2}, {0, tree.Size() + 1}} {
		if err := r.ReadAt(make([]byte, c.length), c.offset); err == nil {
			t.Errorf("%+v can be read", c)
		}
	}
}

func TestTreeNoticesWhatHasChanged(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"longer":   func(p string) error { return os.WriteFile(p, []byte("longer than it was"), 0o644) },
		"shorter":  func(p string) error { return os.WriteFile(p, nil, 0o644) },
		"gone":     os.Remove,
		"a link":   func(p string) error { return os.Rename(filepath.Join(filepath.Dir(p), "link"), p) },
		"a folder": func(p string) error { _ = os.Remove(p); return os.Mkdir(p, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			path := makeTree(t, map[string]string{"d/file": "contents", "d/link": "-> /etc/passwd"})
			tree := openTest(t, path)
			if err := change(filepath.Join(path, "d/file")); err != nil {
				t.Fatal(err)
			}
			r := tree.NewReader()
			defer r.Close()
			if err := r.ReadAt(make([]byte, tree.Size()), 0); err == nil {
				t.Error("it can be read")
			}
		})
	}
}

func TestTreeFollowsNoLinkThatReplacedAFolder(t *testing.T) {
	path := makeTree(t, map[string]string{"d/file": "contents"})
	other := makeTree(t, map[string]string{"file": "CONTENTS"})
	tree := openTest(t, path)
	if err := os.RemoveAll(filepath.Join(path, "d")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(path, "d")); err != nil {
		t.Fatal(err)
	}
	r := tree.NewReader()
	defer r.Close()
	if err := r.ReadAt(make([]byte, tree.Size()), 0); err == nil {
		t.Error("a link was followed out of the tree")
	}
}
