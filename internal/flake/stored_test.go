package flake

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// relock rewrites the lock of the flake in dir.
func relock(t *testing.T, dir string, change func(l *Lock)) {
	t.Helper()
	file := filepath.Join(dir, "flake.lock")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var l Lock
	if err := decode(text, &l); err != nil {
		t.Fatal(err)
	}
	change(&l)
	if text, err = json.Marshal(l); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "--message=relocked")
}

// as makes the nixpkgs of a lock one of another kind, which nobody can fetch here. Its tree stays what it is.
func as(original, locked map[string]any) func(l *Lock) {
	return func(l *Lock) {
		node := l.Nodes["nixpkgs"]
		for _, name := range []string{"narHash", "lastModified"} {
			locked[name] = node.Locked[name]
		}
		if _, is := locked["rev"]; is {
			locked["rev"] = node.Locked["rev"]
		}
		node.Original, node.Locked = original, locked
		l.Nodes["nixpkgs"] = node
	}
}

// changed is the flake of a case whose input nixpkgs is written otherwise.
func changed(t *testing.T, title, input string) (dir string) {
	t.Helper()
	dir = flakeCases[title].arrange(t)
	lock(t, dir)
	file := filepath.Join(dir, FileName)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), `inputs.nixpkgs.url = "`)
	_, after, _ := strings.Cut(rest, `"`)
	if err := os.WriteFile(file, []byte(before+`inputs.nixpkgs.url = "`+input+`"`+after), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestInputsThatAreOnlyInTheStore locks that nothing is fetched that is there by its hash, whatever kind it is of, and that a lock which
// this Nix refuses is read all the same. The tarball's derivation is that of a path with the same attributes, which every Nix reads.
func TestInputsThatAreOnlyInTheStore(t *testing.T) {
	client := newClient(t)
	for title, c := range map[string]struct {
		url              string
		original, locked map[string]any
	}{
		"github": {"github:nobody/nixpkgs", map[string]any{"type": "github", "owner": "nobody", "repo": "nixpkgs"},
			map[string]any{"type": "github", "owner": "nobody", "repo": "nixpkgs", "rev": ""}},
		"git+ssh": {"git+ssh://git@nowhere.invalid/n", map[string]any{"type": "git", "url": "ssh://git@nowhere.invalid/n"},
			map[string]any{"type": "git", "url": "ssh://git@nowhere.invalid/n", "ref": "main", "rev": "", "revCount": 7}},
	} {
		t.Run(title, func(t *testing.T) {
			dir := changed(t, "plain", c.url)
			relock(t, dir, as(c.original, c.locked))
			f, a := evaluate(t, client, dir, "pi")
			if want := ofNix(t, client, f, "pi"); a.Toplevel.Drv != want {
				t.Errorf("the reader made %s, Nix %s", a.Toplevel.Drv, want)
			}
		})
	}
	t.Run("tarball", func(t *testing.T) {
		const url = "https://nowhere.invalid/nixpkgs.tar.gz"
		dir := changed(t, "uncommitted", url)
		relock(t, dir, as(map[string]any{"type": "tarball", "url": url}, map[string]any{"type": "tarball", "url": url}))
		_, a := evaluate(t, client, dir, "pi")
		if !strings.Contains(derivation(t, a), "99.05.20260301.dirty") {
			t.Errorf("the date of a tarball's lock is lost: %s", derivation(t, a))
		}
		version, err := client.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if version.Minor >= 20 {
			f, a := evaluate(t, client, dir, "pi")
			if want := ofNix(t, client, f, "pi"); a.Toplevel.Drv != want {
				t.Errorf("the reader made %s, Nix %s", a.Toplevel.Drv, want)
			}
		}
	})
}

func derivation(t *testing.T, a Answer) string {
	t.Helper()
	text, err := os.ReadFile(a.Toplevel.Drv)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestARelativeInputIsInItsParentsTree locks what the reader makes of a lock with relative inputs: what Nix makes of it since 2.26. Older
// ones refuse such a lock, and have to make the same.
func TestARelativeInputIsInItsParentsTree(t *testing.T) {
	client := newClient(t)
	version, err := client.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := flakeCase{files: map[string]string{
		"sub/flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; inputs.a.url = "path:./inner";
			inputs.b = { url = "path:../other"; flake = false; }; inputs.f = { url = "path:./file"; flake = false; };
			outputs = { self, nixpkgs, a, b, f }: ` + everything + `{ nixosConfigurations.pi = nixpkgs.lib.nixosSystem {
				system = "x86_64-linux"; modules = [ { a = known a; c = known a.inputs.c; b = "${b}"; f = builtins.readFile f; } ]; }; }; }`,
		"sub/inner/flake.nix":  `{ inputs.c.url = "path:../deeper"; outputs = { self, c }: { }; }`,
		"sub/deeper/flake.nix": `{ outputs = { self }: { }; }`,
		"sub/file":             "hello", "other/file": "other",
	}, ref: "/sub"}
	dir := c.arrange(t)
	// As Nix 2.26 writes it.
	nixpkgs := flakeCases["plain"].arrange(t)
	lock(t, nixpkgs)
	text, err := os.ReadFile(filepath.Join(nixpkgs, "flake.lock"))
	if err != nil {
		t.Fatal(err)
	}
	var l Lock
	if err := decode(text, &l); err != nil {
		t.Fatal(err)
	}
	relative := func(path string, parent []string, flake bool) LockNode {
		n := LockNode{Locked: map[string]any{"type": "path", "path": path}, Original: map[string]any{"type": "path", "path": path}, Parent: &parent}
		if !flake {
			n.Flake = &flake
		}
		return n
	}
	l.Nodes["a"], l.Nodes["b"], l.Nodes["f"] = relative("./inner", []string{}, true), relative("../other", []string{}, false), relative("./file", []string{}, false)
	inner := l.Nodes["a"]
	inner.Inputs = map[string]any{"c": "c"}
	l.Nodes["a"], l.Nodes["c"] = inner, relative("../deeper", []string{"a"}, true)
	root := l.Nodes["root"]
	root.Inputs = map[string]any{"nixpkgs": "nixpkgs", "a": "a", "b": "b", "f": "f"}
	l.Nodes["root"] = root
	// The lock is for the nixpkgs of another flake: the flake has to name that.
	node := l.Nodes["nixpkgs"]
	flakeText, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(flakeText), `inputs.nixpkgs.url = "`)
	_, after, _ := strings.Cut(rest, `"`)
	write(t, dir, map[string]string{FileName: before + `inputs.nixpkgs.url = "git+` + node.text("url") + `"` + after})
	if text, err = json.Marshal(l); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"flake.lock": string(text)})
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "--message=locked")
	f, a := evaluate(t, client, dir, "pi")
	if version.Minor >= 26 {
		if want := ofNix(t, client, f, "pi"); a.Toplevel.Drv != want {
			other, _ := os.ReadFile(want)
			t.Errorf("the reader made %s, Nix %s\n%s\n%s", a.Toplevel.Drv, want, derivation(t, a), other)
		}
	}
	source := string(f.Source)
	made := strings.ReplaceAll(derivation(t, a), `\"`, `"`)
	for _, want := range []string{`"path":"` + source + `/sub/./inner"`, `"b":"` + source + `/sub/../other"`, `"f":"hello"`} {
		if !strings.Contains(made, want) {
			t.Errorf("%s is not in the derivation: %s", want, made)
		}
	}
}

// TestALockOfAnotherVersionIsRefused locks that nothing is guessed about locks of the future.
func TestALockOfAnotherVersionIsRefused(t *testing.T) {
	for title, l := range map[string]Lock{
		"version":  {Version: 8, Root: "root", Nodes: map[string]LockNode{"root": {}}},
		"no root":  {Version: 7, Root: "root"},
		"unlocked": {Version: 7, Root: "root", Nodes: map[string]LockNode{"root": {}, "a": {}}},
		"no parent": {Version: 7, Root: "root", Nodes: map[string]LockNode{"root": {},
			"a": {Locked: map[string]any{"type": "path", "path": "./a"}}}},
	} {
		t.Run(title, func(t *testing.T) {
			if err := l.check(); err == nil {
				t.Error("it was taken")
			}
		})
	}
}

// TestSubmodules locks that the tree is Nix's: without submodules unless the reference asks for them.
func TestSubmodules(t *testing.T) {
	client := newClient(t)
	parent := t.TempDir()
	write(t, parent, map[string]string{"part/m.nix": `{ text = "part"; }`})
	commit(t, filepath.Join(parent, "part"))
	dir := flakeCases["plain"].arrange(t)
	lock(t, dir)
	git(t, dir, "submodule", "--quiet", "add", filepath.Join(parent, "part"), "part")
	write(t, dir, map[string]string{"c.nix": `{ there = builtins.pathExists ./part/m.nix; }`})
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "--message=submodule")
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
	t.Setenv("GIT_CONFIG_VALUE_0", "always")
	for query, want := range map[string]string{"": `there\":false`, "?submodules=1": `there\":true`} {
		f, a := evaluate(t, client, dir+query, "pi")
		if !strings.Contains(derivation(t, a), want) {
			t.Errorf("with %q: %s is not in %s", query, want, derivation(t, a))
		}
		if of := ofNix(t, client, f, "pi"); a.Toplevel.Drv != of {
			t.Errorf("with %q the reader made %s, Nix %s", query, a.Toplevel.Drv, of)
		}
	}
}

// TestAnOutdatedLockIsNotWritten locks that what the lock lacks is found, and written nowhere.
func TestAnOutdatedLockIsNotWritten(t *testing.T) {
	client := newClient(t)
	dir := flakeCases["an input that is no flake"].arrange(t)
	lock(t, dir)
	relock(t, dir, func(l *Lock) {
		root := l.Nodes["root"]
		root.Inputs = map[string]any{"nixpkgs": "nixpkgs"}
		l.Nodes["root"] = root
		delete(l.Nodes, "a")
	})
	f, a := evaluate(t, client, dir, "pi")
	if want := ofNix(t, client, f, "pi"); a.Toplevel.Drv != want {
		t.Errorf("the reader made %s, Nix %s", a.Toplevel.Drv, want)
	}
	if out := git(t, dir, "status", "--porcelain"); out != "" {
		t.Errorf("the work tree has changed: %s", out)
	}
}
