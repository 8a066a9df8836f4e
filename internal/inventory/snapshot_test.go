package inventory

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/run"
)

// take puts the tree at root in the store the way Open does.
func take(t *testing.T, root string) (Source, error) {
	t.Helper()
	tr := tree{root: root}
	work, ok, err := findWorkTree(t.Context(), &run.Runner{}, root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		tr.git = &work
	}
	return snapshot(t.Context(), newClient(t), tr)
}

// list describes everything below dir: a folder by "dir", a link by its target, a file by its text and whether it can be
// executed.
func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			found[rel] = "dir"
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			found[rel] = "-> " + target
			return err
		default:
			text, err := os.ReadFile(p)
			found[rel] = "file " + string(text)
			if info.Mode()&0o100 != 0 {
				found[rel] = "program " + string(text)
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%q: got %q, want %q", name, got[name], w)
		}
	}
	for name, g := range got {
		if _, expected := want[name]; !expected {
			t.Errorf("%q is in the snapshot: %q", name, g)
		}
	}
}

func TestSnapshotOfAWorkTreeHoldsWhatGitKnowsAsItIsNow(t *testing.T) {
	module := t.TempDir()
	write(t, module, map[string]string{"m.nix": "module", "deep/n.nix": "deep"})
	repository(t, module)

	dir := t.TempDir()
	write(t, dir, map[string]string{
		"kept": "kept", "changed": "old", "deleted": "x", "script": "#!/bin/sh", "folder/in": "in", "gone/in": "in",
		"was-folder/in": "in", "was-file": "x", ".gitignore": "ignored\n", "ignored": "x", "odd\n'\"\\$ \xff": "odd", "-n": "dash",
	})
	for link, target := range map[string]string{"link": "kept", "dangling": "nowhere", "outside": "/etc/hostname", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "script"), 0o700); err != nil {
		t.Fatal(err)
	}
	repository(t, dir)
	git(t, dir, "submodule", "--quiet", "add", module, "sub")
	git(t, dir, "submodule", "--quiet", "add", module, "unused")
	git(t, dir, "commit", "--quiet", "--message=modules")
	git(t, dir, "submodule", "--quiet", "deinit", "--force", "unused")

	for _, name := range []string{"deleted", "was-folder/in", "was-folder", "was-file"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("folder", filepath.Join(dir, "was-folder")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{
		"changed": "new", "untracked": "x", "intended": "later", "staged": "staged", "empty/": "", "was-file/now": "x", "sub/m.nix": "edited",
		"sub/untracked": "x",
	})
	git(t, dir, "add", "--intent-to-add", "intended")
	git(t, dir, "add", "staged")

	s, err := take(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Path.Name() != "source" || !s.Dirty || s.Revision != git(t, dir, "rev-parse", "HEAD") {
		t.Errorf("got %+v", s)
	}
	modules, err := os.ReadFile(filepath.Join(dir, ".gitmodules"))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, list(t, string(s.Path)), map[string]string{
		".gitmodules": "file " + string(modules), ".gitignore": "file ignored\n", "kept": "file kept", "changed": "file new",
		"script": "program #!/bin/sh", "folder": "dir", "folder/in": "file in", "odd\n'\"\\$ \xff": "file odd", "-n": "file dash",
		"link": "-> kept", "dangling": "-> nowhere", "outside": "-> /etc/hostname", "loop": "-> loop",
		"intended": "file later", "staged": "file staged",
		"sub": "dir", "sub/m.nix": "file edited", "sub/deep": "dir", "sub/deep/n.nix": "file deep", "unused": "dir",
	})
}

func TestSnapshotOfASecondWorkTreeAndOfASparseOne(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a/x": "x", "b/y": "y"})
	repository(t, dir)
	second := filepath.Join(t.TempDir(), "second")
	git(t, dir, "worktree", "add", "--quiet", second)
	write(t, second, map[string]string{"a/x": "edited"})
	s, err := take(t, second)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, list(t, string(s.Path)), map[string]string{"a": "dir", "a/x": "file edited", "b": "dir", "b/y": "file y"})

	git(t, dir, "sparse-checkout", "set", "a")
	if s, err = take(t, dir); err != nil {
		t.Fatal(err)
	}
	if s.Dirty {
		t.Error("a sparse checkout counts as dirty")
	}
	compare(t, list(t, string(s.Path)), map[string]string{"a": "dir", "a/x": "file x"})
}

func TestSnapshotInTheMiddleOfAMerge(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"x": "base"})
	repository(t, dir)
	git(t, dir, "checkout", "--quiet", "-b", "other")
	write(t, dir, map[string]string{"x": "other"})
	git(t, dir, "commit", "--quiet", "--all", "--message=other")
	git(t, dir, "checkout", "--quiet", "main")
	write(t, dir, map[string]string{"x": "main"})
	git(t, dir, "commit", "--quiet", "--all", "--message=main")
	if err := (&run.Runner{}).Run(t.Context(), run.Command{Argv: []string{"git", "-C", dir, "merge", "other"}}); err == nil {
		t.Fatal("the merge has no conflict")
	}
	write(t, dir, map[string]string{"x": "solved"})
	s, err := take(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, list(t, string(s.Path)), map[string]string{"x": "file solved"})
}

func TestSnapshotOfARepositoryWithoutCommit(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"x": "x", "y": "y"})
	git(t, dir, "init", "--quiet")
	git(t, dir, "add", "x")
	s, err := take(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Revision != "" || !s.Dirty {
		t.Errorf("got %+v", s)
	}
	compare(t, list(t, string(s.Path)), map[string]string{"x": "file x"})
}

func TestSnapshotOfAFolderHoldsEverything(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "a", "folder/b": "b", "empty/": "", "deep/empty/": "", ".hidden": "h"})
	s, err := take(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Revision != "" || s.Dirty || s.Size != 3 {
		t.Errorf("got %+v", s)
	}
	compare(t, list(t, string(s.Path)), map[string]string{
		"a": "file a", "folder": "dir", "folder/b": "file b", "empty": "dir", "deep": "dir", "deep/empty": "dir", ".hidden": "file h",
	})
}

func TestEqualContentGivesTheEqualPath(t *testing.T) {
	files := map[string]string{"a": "a", "folder/b": "b", "script": "s"}
	var paths []string
	for i, mode := range []fs.FileMode{0o755, 0o500} {
		dir := filepath.Join(t.TempDir(), "name"+strings.Repeat("x", i))
		write(t, dir, files)
		if i == 1 {
			repository(t, dir)
		}
		if err := os.Chmod(filepath.Join(dir, "script"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "a"), 0o644&^fs.FileMode(i*0o44)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, "a"), time.Time{}, time.Unix(int64(i)*1e9, 0)); err != nil {
			t.Fatal(err)
		}
		s, err := take(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, string(s.Path)+" "+s.NarHash)
	}
	if paths[0] != paths[1] {
		t.Errorf("got %s and %s", paths[0], paths[1])
	}
}

func TestSnapshotRefusesWhatTheStoreCannotHold(t *testing.T) {
	for title, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"named pipe": {func(p string) error { return syscall.Mkfifo(p, 0o600) }, "source: sub/it is a named pipe"},
		"device":     {func(p string) error { return syscall.Mknod(p, syscall.S_IFCHR, 1<<8|3) }, "source: sub/it is a device"},
		"socket": {func(p string) error {
			l, err := net.Listen("unix", p)
			if err == nil {
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}, "source: sub/it is a socket"},
	} {
		t.Run(title, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "s") // the name of a socket must be short
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			write(t, dir, map[string]string{"sub/": ""})
			if err := c.make(filepath.Join(dir, "sub/it")); err != nil {
				t.Fatal(err)
			}
			_, err = take(t, dir)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestSnapshotRefusesTheFileThatAPasswordIsReadFrom(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"sub/password": "hunter2\n", "sub/other": "hunter2\n"})
	for name, refused := range map[string]bool{"sub/password": true, "sub/../sub/password": true, "sub/missing": false, "../password": false} {
		tr := tree{root: dir, private: []string{dir + "/" + name}}
		entries, err := tr.entries(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = tr.refusePrivate(entries)
		if want := "source: sub/password is read as a password"; refused != (err != nil) || refused && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSnapshotLeavesNothingBehind(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "a"})
	if _, err := take(t, dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := snapshot(ctx, newClient(t), tree{root: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	write(t, dir, map[string]string{"key": "-----BEGIN PRIVATE " + "KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n"})
	if _, err := take(t, dir); err == nil || !strings.Contains(err.Error(), "source: private key in key (private key)") {
		t.Errorf("private key: got %v", err)
	}
	if left := list(t, temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSnapshotOfWhatIsInTheStoreWritesNothing has no place where a copy could be made.
func TestSnapshotOfWhatIsInTheStoreWritesNothing(t *testing.T) {
	plain, worked := t.TempDir(), t.TempDir()
	files := map[string]string{"a": t.Name(), "b/c": "c", "b/d/": "", "run": "#!/bin/sh", "b-c": "x", "key.pub": "ssh-ed25519 AAAA"}
	for _, dir := range []string{plain, worked} {
		write(t, dir, files)
		if err := os.Chmod(filepath.Join(dir, "run"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("b/c", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
	}
	repository(t, worked)
	write(t, worked, map[string]string{"b/unknown": "x", "unknown/deep": "x", "b/c": "edited"})
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	found, _, err := findWorkTree(t.Context(), &run.Runner{}, worked, nil)
	if err != nil {
		t.Fatal(err)
	}
	version := &found
	trees := map[string]tree{
		"a folder": {root: plain}, "a work tree": {root: worked, git: version}, "nixpkgs": {root: worked, git: version, nixpkgs: version},
		"a part": {root: plain, only: []string{"b/d", "link"}},
	}
	paths := map[string]Source{}
	for name, tr := range trees {
		s, err := snapshot(t.Context(), newClient(t), tr)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		paths[name] = s
	}
	if text := readFile(t, string(paths["nixpkgs"].Path)+"/"+versionSuffix); !strings.HasPrefix(text, ".git.") {
		t.Errorf("the version's suffix is %q", text)
	}
	compare(t, list(t, string(paths["a part"].Path)), map[string]string{"b": "dir", "b/d": "dir", "link": "-> b/c"})
	t.Setenv("TMPDIR", filepath.Join(plain, "nowhere"))
	for name, tr := range trees {
		if s, err := snapshot(t.Context(), newClient(t), tr); err != nil || s != paths[name] {
			t.Errorf("%s: got %+v (%v), want %+v", name, s, err, paths[name])
		}
	}
	write(t, plain, map[string]string{"a": "changed"})
	if _, err := snapshot(t.Context(), newClient(t), trees["a folder"]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a changed folder: got %v, want that it cannot be copied", err)
	}
}

// TestPrivateKeyIsRefusedAlsoWhereTheStoreHasIt: that somebody else has put it there is no reason to send it to a target.
func TestPrivateKeyIsRefusedAlsoWhereTheStoreHasIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), sourceName)
	write(t, dir, map[string]string{"deep/key": "-----BEGIN PRIVATE " + "KEY-----\nMC4CAQAwBQYDK2VwBCIEIB\n"})
	if _, _, err := newClient(t).AddTree(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := take(t, dir); err == nil || !strings.Contains(err.Error(), "source: private key in deep/key (private key)") {
		t.Errorf("got %v", err)
	}
}

func TestNoteNamesTheBiggestFolder(t *testing.T) {
	var got []string
	note := func(s string) { got = append(got, s) }
	entries := []entry{{rel: "a/x", size: 20 << 20}, {rel: "b/y", size: 25 << 20}, {rel: "b/deep/z", size: 4 << 20}, {rel: "c", size: 1 << 20}}
	if total := noteSize(entries, note); total != 50<<20 || got != nil {
		t.Errorf("at the limit: %d bytes, notes %q", total, got)
	}
	noteSize(append(entries, entry{rel: "d", size: 1 << 20}), note)
	want := "the source is big (51 MB) and goes to the store here and on every target; most of it is in b (29 MB)"
	if len(got) != 1 || got[0] != want {
		t.Errorf("got notes %q, want %q", got, want)
	}
}

func TestGitThatCannotBeAskedIsAnError(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"ferry.nix": `{ nixpkgs = 1; nodes = { }; }`})
	repository(t, dir)
	t.Run("another work tree in the configuration", func(t *testing.T) {
		other, elsewhere := t.TempDir(), t.TempDir()
		write(t, elsewhere, map[string]string{"ferry.nix": `{ nixpkgs = 1; nodes = { }; }`})
		repository(t, elsewhere)
		git(t, elsewhere, "config", "core.worktree", other)
		e := openError(t, elsewhere, Options{})
		if want := "git takes it for a part of \"" + other + "\""; !strings.Contains(e.Error(), want) {
			t.Errorf("got %q, want %q", e, want)
		}
	})
	t.Run("another owner", func(t *testing.T) {
		t.Setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
		e := openError(t, dir, Options{})
		if !strings.Contains(e.Error(), "belongs to another user") || e.Hints()[0] != "git config --global --add safe.directory "+dir {
			t.Errorf("got %q with hints %q", e, e.Hints())
		}
	})
	t.Run("no git", func(t *testing.T) {
		nixPath(t)
		e := openError(t, dir, Options{})
		if !strings.Contains(e.Error(), "git is not installed") || e.Hints()[0] != "install git" {
			t.Errorf("got %q with hints %q", e, e.Hints())
		}
	})
}

// nixPath leaves nothing but Nix in PATH.
func nixPath(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"nix", "nix-store", "nix-instantiate"} {
		out, err := (&run.Runner{}).Output(t.Context(), run.Command{Argv: []string{"sh", "-c", "command -v " + name}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(strings.TrimSpace(string(out)), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
}
