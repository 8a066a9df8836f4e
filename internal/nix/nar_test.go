package nix

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// oddTree makes a folder with everything a NAR can hold.
func oddTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for _, d := range []string{"", "empty", "a", "a/b", "a/b/c", "A"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{
		"zero": 0o644, "run": 0o755, "owner-run": 0o744, "group-run": 0o654, "a/b/c/deep": 0o600,
		" leading and trailing ": 0o644, "new\nline": 0o644, "é": 0o644, "\xff\xfe not UTF-8": 0o644, "quo'te\"s\\": 0o644,
		"a.b": 0o644, "a-b": 0o644, "a~nix~case~hack~1": 0o644, "B": 0o644, "b": 0o644, "*": 0o644, "-rf": 0o644,
	} {
		content := strings.Repeat(name, len(name))
		if name == "zero" {
			content = ""
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"link": "run", "dangling": "/nowhere/at all", "up": "../../..", "loop": "loop", "to-dir": "a/b", "odd": "\xff\n",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for i, size := range []int{1, 7, 8, 9, 64 << 10, 128<<10 + 3, 5 << 20} {
		path := filepath.Join(dir, "sized", string(rune('a'+i)))
		_ = os.Mkdir(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, bytes.Repeat([]byte{byte(i)}, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDumpPathGivesTheBytesOfNixStore(t *testing.T) {
	useRealNix(t)
	tree := oddTree(t)
	for what, path := range map[string]string{
		"folder":            tree,
		"empty folder":      tree + "/empty",
		"file":              tree + "/a/b/c/deep",
		"executable":        tree + "/run",
		"symbolic link":     tree + "/link",
		"link to a folder":  tree + "/to-dir",
		"file, odd name":    tree + "/new\nline",
		"large file":        tree + "/sized/g",
		"empty file":        tree + "/zero",
		"several megabytes": tree + "/sized",
	} {
		t.Run(what, func(t *testing.T) {
			want := output(t, "nix-store", "--dump", path)
			var got bytes.Buffer
			if err := DumpPath(t.Context(), &got, path); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%d bytes differ from the %d of nix-store --dump", got.Len(), len(want))
			}
		})
	}
}

// TestASelectionIsDumpedAsItsCopyWouldBe compares with a tree that has what is selected and nothing else.
func TestASelectionIsDumpedAsItsCopyWouldBe(t *testing.T) {
	whole, part := oddTree(t), oddTree(t)
	for _, name := range []string{"a", "link", "sized/c", "-rf", "empty"} {
		if err := os.RemoveAll(filepath.Join(part, name)); err != nil {
			t.Fatal(err)
		}
	}
	more := map[string]string{"A0": "new", "run": "not what runs", "zzz": "", ".first": "1"}
	for name, text := range more {
		_ = os.Remove(filepath.Join(part, name))
		if err := os.WriteFile(filepath.Join(part, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	begins, ended := map[string]string{}, map[string]bool{}
	var got, want bytes.Buffer
	err := dumpSome(t.Context(), &got, whole, Selection{
		More: more,
		// What is below a folder that is left out is not asked for.
		Has: func(rel string) bool {
			if strings.HasPrefix(rel, "a/") {
				t.Errorf("asked for %s", rel)
			}
			_, err := os.Lstat(filepath.Join(part, rel))
			return err == nil
		},
		Reads: func(rel string, part []byte, last bool) {
			if ended[rel] {
				t.Errorf("%s goes on after its end", rel)
			}
			begins[rel] += string(part)
			ended[rel] = last
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := DumpPath(t.Context(), &want, part); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes that are not the %d of the part alone", got.Len(), want.Len())
	}
	for name, size := range map[string]int{"owner-run": 81, "zero": 0, "sized/a": 1, "sized/g": dumpBuffer - 1} {
		if head, told := begins[name]; !told || len(head) < size || !ended[name] {
			t.Errorf("of %s it told %d bytes (%v), want %d", name, len(head), told, size)
		}
	}
	for _, name := range []string{"run", "a/b/c/deep", "sized/c", "link", "sized"} {
		if _, told := begins[name]; told {
			t.Errorf("it told how %s begins", name)
		}
	}
}

func TestDumpPathRefusesWhatNoNarCanHold(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "pipe"), filepath.Join(dir, "missing")} {
		if err := DumpPath(t.Context(), io.Discard, path); err == nil {
			t.Errorf("%s was dumped", path)
		}
	}
}

func TestDumpPathNamesTheFileThatFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "a", "b", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := DumpPath(t.Context(), io.Discard, dir)
	if err == nil || !strings.Contains(err.Error(), "a: b: pipe is neither") {
		t.Errorf("got %v", err)
	}
}

// hook is a writer that calls itself on the first write.
type hook func()

func (h *hook) Write(p []byte) (int, error) {
	if *h != nil {
		(*h)()
		*h = nil
	}
	return len(p), nil
}

func TestDumpPathSeesAFileThatChangesSize(t *testing.T) {
	const size = 1 << 20
	for what, change := range map[string]int64{"shorter": size - 1, "much shorter": 10, "longer": size + 1} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
				t.Fatal(err)
			}
			h := hook(func() {
				if err := os.Truncate(path, change); err != nil {
					t.Error(err)
				}
			})
			err := DumpPath(t.Context(), &h, path)
			if err == nil || !strings.Contains(err.Error(), "while it was read") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDumpPathEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	h := hook(cancel)
	if err := DumpPath(ctx, &h, path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestDumpPathReportsAFailingWriter(t *testing.T) {
	for _, path := range []string{oddTree(t), "/etc/hostname"} {
		if err := DumpPath(t.Context(), full{}, path); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}
