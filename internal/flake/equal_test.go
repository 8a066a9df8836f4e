package flake

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/nix"
	"ferry/internal/run"
)

func newClient(t *testing.T) *nix.Client {
	t.Helper()
	client := &nix.Client{Runner: &run.Runner{}, Options: nix.Options{Settings: [][2]string{
		{"sandbox", "false"}, {"build-users-group", ""}, {"substituters", ""}, {"flake-registry", ""},
	}}}
	t.Cleanup(client.Release)
	return client
}

// git runs git in dir, with a user and times of its own and none of the real one's settings.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org",
		"-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_DATE=2026-03-01T12:34:56Z", "GIT_COMMITTER_DATE=2026-03-01T12:34:56Z")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// write makes files in dir, with the folders they need.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// commit makes dir a git repository that has committed what is in it.
func commit(t *testing.T, dir string) {
	t.Helper()
	git(t, dir, "init", "--quiet")
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "--message=first")
}

// newNixpkgs is the nixpkgs of testdata as a repository that inputs can name.
func newNixpkgs(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "nixpkgs")
	if err := os.CopyFS(dir, os.DirFS("testdata/nixpkgs")); err != nil {
		t.Fatal(err)
	}
	commit(t, dir)
	return dir
}

// evaluate reads the flake that text names and evaluates the configuration called node.
func evaluate(t *testing.T, client *nix.Client, text, node string) (*Flake, Answer) {
	t.Helper()
	reference, err := Parse(text, "/")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), client, reference, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f, answer(t, client, f, node)
}

func answer(t *testing.T, client *nix.Client, f *Flake, node string) Answer {
	t.Helper()
	var log bytes.Buffer
	value, err := f.Looking(client.Eval)(t.Context(), nix.Expression{Text: f.Node(node, true), Pure: true, Instantiate: true, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "looked-at") {
		t.Errorf("the log has what is not for people: %s", log.String())
	}
	var a Answer
	if err := json.Unmarshal(value, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// ofNix is the derivation that Nix itself makes.
func ofNix(t *testing.T, client *nix.Client, f *Flake, node string) string {
	t.Helper()
	drv, err := client.FlakeValue(context.WithoutCancel(t.Context()), f.Reference.URL,
		`nixosConfigurations."`+node+`".config.system.build.toplevel.drvPath`)
	if err != nil {
		t.Fatal(err)
	}
	return drv
}

// everything is a module that puts all that there is to know of a flake into the system.
const everything = `let known = flake: { at = flake.outPath; inherit (flake) narHash; } // builtins.mapAttrs (n: _: flake.${n})
  (builtins.intersectAttrs { rev = 1; shortRev = 1; dirtyRev = 1; dirtyShortRev = 1; revCount = 1; lastModified = 1;
    lastModifiedDate = 1; submodules = 1; _type = 1; } flake) // { path = "${flake}"; source = flake.sourceInfo.outPath or ""; }; in `

type flakeCase struct {
	files  map[string]string // below the flake's repository; @nixpkgs@ and @here@ are replaced
	beside map[string]string // repositories beside it, each of one file, by the file's path
	dirty  map[string]string // written after the commit
	noGit  bool
	ref    string // appended to the repository's folder
	node   string
	inputs []string // that are looked at
}

var flakeCases = map[string]flakeCase{
	"plain": {
		files: map[string]string{"flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; outputs = { self, nixpkgs }: ` + everything + `{
			nixosConfigurations.pi = nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ ./c.nix { self = known self; } ]; }; }; }`,
			"c.nix": `{ text = "hello"; }`},
		inputs: []string{"nixpkgs"},
	},
	"an unused input": {
		files: map[string]string{"flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; inputs.other.url = "git+file://@beside@/other";
			outputs = { self, nixpkgs, other }: { nixosConfigurations.pi = nixpkgs.lib.nixosSystem {
				system = "x86_64-linux"; modules = [ { text = 1; } ]; }; }; }`},
		beside: map[string]string{"other/flake.nix": `{ outputs = { self }: { }; }`},
		inputs: []string{"nixpkgs"},
	},
	"follows": {
		files: map[string]string{"flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; inputs.a.url = "git+file://@beside@/a";
			inputs.a.inputs.nixpkgs.follows = "nixpkgs"; inputs.b.follows = "a/b";
			outputs = { self, nixpkgs, a, b }: ` + everything + `{ nixosConfigurations.pi = a.inputs.nixpkgs.lib.nixosSystem {
				system = "x86_64-linux"; modules = [ { a = known a; b = known b; n = known a.inputs.nixpkgs; } ]; }; }; }`},
		beside: map[string]string{"b/flake.nix": `{ outputs = { self }: { }; }`,
			"a/flake.nix": `{ inputs.nixpkgs.url = "git+file:///nowhere"; inputs.b.url = "git+file://@beside@/b"; outputs = { self, nixpkgs, b }: { }; }`},
		inputs: []string{"a", "b", "nixpkgs"},
	},
	"in a subfolder": {
		files: map[string]string{"nixos/flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; outputs = { self, nixpkgs }: ` + everything + `{
			nixosConfigurations.pi = nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ ../common.nix { self = known self; } ]; }; }; }`,
			"common.nix": `{ text = "hello"; }`},
		ref: "/nixos", inputs: []string{"nixpkgs"},
	},
	"an input in a subfolder": {
		files: map[string]string{"flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; inputs.a.url = "git+file://@beside@/a?dir=sub";
			outputs = { self, nixpkgs, a }: ` + everything + `{ nixosConfigurations.pi = nixpkgs.lib.nixosSystem {
				system = "x86_64-linux"; modules = [ { a = known a; } a.m ]; }; }; }`},
		beside: map[string]string{"a/sub/flake.nix": `{ outputs = { self }: { m.text = builtins.readFile ./flake.nix; }; }`},
		inputs: []string{"a", "nixpkgs"},
	},
	"an input that is no flake": {
		files: map[string]string{"flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; inputs.a = { url = "git+file://@beside@/a"; flake = false; };
			outputs = { self, nixpkgs, a }: { nixosConfigurations.pi = nixpkgs.lib.nixosSystem {
				system = "x86_64-linux"; modules = [ { a = "${a}"; rev = a.rev; } (import "${a}/m.nix") ]; }; }; }`},
		beside: map[string]string{"a/m.nix": `{ text = 1; }`},
		inputs: []string{"a", "nixpkgs"},
	},
	"uncommitted": {
		files: map[string]string{"flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; outputs = { self, nixpkgs }: ` + everything + `{
			nixosConfigurations.pi = nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ ./c.nix { self = known self; } ]; }; }; }`,
			"c.nix": `{ text = "hello"; }`},
		dirty: map[string]string{"c.nix": `{ text = "changed"; }`, "untracked.nix": "1"}, inputs: []string{"nixpkgs"},
	},
	"not in git": {
		files: map[string]string{"flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; outputs = { self, nixpkgs }: ` + everything + `{
			nixosConfigurations.pi = nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ { self = known self; } ]; }; }; }`},
		noGit: true, inputs: []string{"nixpkgs"},
	},
	"a name with dots": {
		files: map[string]string{"flake.nix": `{ inputs.nixpkgs.url = "git+file://@nixpkgs@"; outputs = inputs@{ self, nixpkgs, ... }:
			let parts = { flake.nixosConfigurations."core01.example.org" = nixpkgs.lib.nixosSystem { system = "x86_64-linux";
				specialArgs = { inherit inputs self; }; modules = [ ({ inputs, self, ... }: { n = inputs.nixpkgs.rev; s = self.narHash; }) ]; }; };
			in parts.flake; }`},
		node: "core01.example.org", inputs: []string{"nixpkgs"},
	},
}

// arrange writes a case's repositories, and gives the reference.
func (c flakeCase) arrange(t *testing.T) string {
	t.Helper()
	parent, nixpkgs := t.TempDir(), newNixpkgs(t)
	fill := func(files map[string]string) map[string]string {
		filled := map[string]string{}
		for name, text := range files {
			filled[name] = strings.NewReplacer("@nixpkgs@", nixpkgs, "@beside@", parent).Replace(text)
		}
		return filled
	}
	write(t, parent, fill(c.beside))
	for name := range c.beside {
		repository, _, _ := strings.Cut(name, "/")
		commit(t, filepath.Join(parent, repository))
	}
	dir := filepath.Join(parent, "here")
	write(t, dir, fill(c.files))
	if !c.noGit {
		commit(t, dir)
	}
	write(t, dir, c.dirty)
	return dir + c.ref
}

// TestTheReaderMakesTheDerivationsOfNix locks that a flake's configurations are what Nix itself makes of them, and that only those
// inputs count that were looked at; with no lock and with one.
func TestTheReaderMakesTheDerivationsOfNix(t *testing.T) {
	client := newClient(t)
	for title, c := range flakeCases {
		t.Run(title, func(t *testing.T) {
			ref := c.arrange(t)
			node := c.node
			if node == "" {
				node = "pi"
			}
			check := func() {
				t.Helper()
				f, a := evaluate(t, client, ref, node)
				if want := ofNix(t, client, f, node); a.Toplevel.Drv != want {
					t.Errorf("the reader made %s, Nix %s", a.Toplevel.Drv, want)
				}
				if !slices.Equal(a.Inputs, c.inputs) {
					t.Errorf("looked at %v, want %v", a.Inputs, c.inputs)
				}
			}
			check()
			if _, err := os.Stat(filepath.Join(ref, "flake.lock")); err == nil {
				t.Error("flake.lock was written")
			}
			if !c.noGit {
				if out := git(t, ref, "diff", "--cached", "--name-only"); out != "" {
					t.Errorf("added to the repository: %s", out)
				}
			}
			lock(t, ref)
			check()
		})
	}
}

// lock has Nix write the lock.
func lock(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("nix", "--extra-experimental-features", "nix-command flakes", "flake", "lock", "path:"+dir)
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		cmd.Args[len(cmd.Args)-1] = dir
	} else if c, err := exec.Command("git", "-C", dir, "rev-parse", "--show-toplevel").Output(); err == nil && len(c) > 0 {
		cmd.Args[len(cmd.Args)-1] = dir
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nix flake lock: %v\n%s", err, out)
	}
}
