package inventory

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/internal/health"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// newClient is a client of this machine's Nix that builds without a sandbox, as the nixpkgs in testdata needs.
func newClient(t *testing.T) *nix.Client {
	t.Helper()
	client := &nix.Client{Runner: &run.Runner{}, Options: nix.Options{Settings: [][2]string{
		{"sandbox", "false"}, {"build-users-group", ""}, {"substituters", ""},
	}}}
	t.Cleanup(client.Release)
	return client
}

// write makes files in dir, with the folders they need. A name that ends with a slash is a folder.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		parent := filepath.Dir(file)
		if strings.HasSuffix(name, "/") {
			parent = file
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		if parent == file {
			continue
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// git runs git in dir, with a user of its own and none of the real one's settings.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org",
		"-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// repository makes dir a git repository that has committed what is in it.
func repository(t *testing.T, dir string) {
	t.Helper()
	git(t, dir, "init", "--quiet")
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "--allow-empty", "--message=first")
}

// pinKeeper keeps testPin until the tests end: some of them collect garbage.
var pinKeeper = &nix.Client{Runner: &run.Runner{}}

// testPin is the nixpkgs in testdata, in the store.
var testPin = sync.OnceValues(func() (nix.StorePath, error) {
	pin, err := pinKeeper.Add(context.Background(), "testdata/nixpkgs")
	if err == nil {
		_, err = pinKeeper.Keep(context.Background(), pin)
	}
	return pin, err
})

// pinPath is the path of a nixpkgs tree that can be used as a pin.
func pinPath(t *testing.T) string {
	t.Helper()
	p, err := testPin()
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// notes collects an inventory's notes.
type notes struct {
	mu   sync.Mutex
	text []string
}

func (n *notes) add(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text = append(n.text, s)
}

func (n *notes) all() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.text, "\n")
}

// open opens the inventory in dir.
func open(t *testing.T, dir string, options Options) (*Inventory, *notes) {
	t.Helper()
	options.Dir = dir
	n := &notes{}
	options.Note = n.add
	inv, err := Open(t.Context(), newClient(t), options)
	if err != nil {
		t.Fatal(err)
	}
	return inv, n
}

// openError opens the inventory in dir, which must fail as wrong usage.
func openError(t *testing.T, dir string, options Options) *Error {
	t.Helper()
	options.Dir = dir
	_, err := Open(t.Context(), newClient(t), options)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *Error", err)
	}
	if !e.Usage() {
		t.Errorf("%v is not a usage error", err)
	}
	return e
}

func TestOpenReadsNodesWithoutTheirConfigurationsAndPins(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"ferry.nix": `{ system, source }: {
			nixpkgs = throw "the pin is read";
			nodes.web1 = { configuration = ./web.nix; nixpkgs = throw "its own pin is read"; };
			nodes.pi = {
				configuration = ./pi;
				system = "aarch64-linux";
				target = "alice@raspberry-pi.local";
				tags = [ "home" "edge" ];
				elevate = "doas";
				passwordFor = "home";
				impure = true;
				checks = {
					units.failed = "none";
					http = [
						{ url = "http://web1/healthz"; status = 204; from = "target"; timeout = 30; contains = "ok"; }
						{ url = "https://web1"; }
					];
					commands = [ { run = [ "pg_isready" "-q" ]; timeout = 5; } { run = [ ./check.sh /run/current-system/sw/bin/true ]; } ];
				};
			};
			nodes.there = { configuration = source + "/web.nix"; target = "ssh://bob@[fe80::1]:22"; elevate = [ "run0" "--pipe" ]; inherit system; };
		}`,
		"web.nix":        `throw "the configuration is read"`,
		"pi/default.nix": `throw "the configuration is read"`,
	})
	inv, n := open(t, dir, Options{})
	if n.all() != "" {
		t.Errorf("unexpected notes: %s", n.all())
	}
	var names []string
	for _, node := range inv.Nodes() {
		names = append(names, node.Name)
	}
	if !slices.Equal(names, []string{"pi", "there", "web1"}) {
		t.Fatalf("got nodes %v", names)
	}
	pi, err := inv.Node("pi")
	if err != nil {
		t.Fatal(err)
	}
	checks := health.Checks{
		Units: health.None,
		HTTP: []health.HTTP{
			{URL: "http://web1/healthz", Status: 204, From: health.Target, Timeout: 30, Contains: "ok"},
			{URL: "https://web1", Status: 200, From: health.Here, Timeout: 10},
		},
		Commands: []health.Command{
			{Run: []string{"pg_isready", "-q"}, Timeout: 5},
			{Run: []string{string(inv.Source.Path) + "/check.sh", "/run/current-system/sw/bin/true"}, Timeout: 20},
		},
	}
	if pi.Configuration != "pi/default.nix" || pi.System != "aarch64-linux" || pi.Target != "alice@raspberry-pi.local" ||
		!slices.Equal(pi.Tags, []string{"home", "edge"}) || !slices.Equal(pi.Elevate, []string{"doas"}) || !pi.Impure ||
		pi.PasswordFor != "home" || !reflect.DeepEqual(pi.Checks, checks) {
		t.Errorf("got %+v", pi)
	}
	web, err := inv.Node("web1")
	if err != nil {
		t.Fatal(err)
	}
	if web.Configuration != "web.nix" || web.System != inv.System || web.Target != "web1" || web.Tags != nil ||
		web.Elevate != nil || web.PasswordFor != "" || web.Impure || !reflect.DeepEqual(web.Checks, health.Default()) {
		t.Errorf("got %+v, want the defaults", web)
	}
	there, err := inv.Node("there")
	if err != nil {
		t.Fatal(err)
	}
	if there.Configuration != "web.nix" || !slices.Equal(there.Elevate, []string{"run0", "--pipe"}) {
		t.Errorf("got %+v", there)
	}
}

func TestUnknownNodeSuggestsTheNearest(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"ferry.nix": `{ nixpkgs = 1; nodes = { web1 = { configuration = ./c.nix; }; raspberry = { configuration = ./c.nix; }; }; }`,
		"c.nix":     `{ }`,
	})
	inv, _ := open(t, dir, Options{})
	for name, want := range map[string]string{
		"wbe1":             "did you mean `web1`?",
		"Raspbery":         "did you mean `raspberry`?",
		"-oProxyCommand=x": "known are raspberry, web1",
		"a\nb\x1b[2J":      "known are raspberry, web1",
	} {
		_, err := inv.Node(name)
		var e *Error
		if !errors.As(err, &e) || !e.Usage() || !slices.Equal(e.Hints(), []string{want}) {
			t.Errorf("Node(%q): got %v with hints %q, want the hint %q", name, err, e.Hints(), want)
		}
		if strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("Node(%q): the message holds control characters: %q", name, err)
		}
	}
}

func TestInventoryIsFoundUpwardsInsideAGitWorkTreeOnly(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"ferry.nix": `{ nixpkgs = 1; nodes = { }; }`,
		"a/b/":      "",
	})
	e := openError(t, filepath.Join(dir, "a/b"), Options{})
	if want := "no ferry.nix in " + filepath.Join(dir, "a/b"); e.Error() != want || len(e.Hints()) == 0 {
		t.Errorf("outside git: got %q with hints %q, want %q", e, e.Hints(), want)
	}
	repository(t, dir)
	inv, _ := open(t, filepath.Join(dir, "a/b"), Options{})
	if inv.Root != dir || inv.File != filepath.Join(dir, "ferry.nix") {
		t.Errorf("in git: got root %s and file %s", inv.Root, inv.File)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Fatal("unexpected file")
	}
	e = openError(t, dir, Options{File: "x"})
	if !strings.Contains(e.Error(), "no such file or directory") {
		t.Errorf("named and missing: got %q", e)
	}
}

func TestNamedInventoryBelowTheRootOfItsWorkTree(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"infra/home.nix": `{ nixpkgs = 1; nodes.a.configuration = ../shared/c.nix; }`,
		"shared/c.nix":   `{ }`,
	})
	repository(t, dir)
	inv, _ := open(t, dir, Options{File: "infra/home.nix"})
	n, err := inv.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	if n.Configuration != "shared/c.nix" || inv.Root != dir {
		t.Errorf("got configuration %s and root %s", n.Configuration, inv.Root)
	}
}

// TestASourceThatWasHalfAddedIsAddedAgain: killed while it wrote, a process leaves a path in the store that Nix does not
// know, or only a part of one.
func TestASourceThatWasHalfAddedIsAddedAgain(t *testing.T) {
	client := newClient(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"ferry.nix": `{ nixpkgs = ./n; nodes.a = { configuration = ./a.nix; }; } # ` + t.Name(), "a.nix": "{ }"})
	inv, err := Open(t.Context(), client, Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	path := string(inv.Source.Path)
	for what, written := range map[string][]string{"nothing": nil, "the inventory": {"ferry.nix"}, "all": {"ferry.nix", "a.nix"}} {
		client.Release()
		if err := client.Runner.Run(t.Context(), run.Command{Argv: []string{"nix-store", "--delete", path}}); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range written {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil {
				err = os.WriteFile(filepath.Join(path, name), text, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		again, err := Open(t.Context(), client, Options{Dir: dir})
		if err != nil {
			t.Fatalf("%s is there: %v", what, err)
		}
		if _, err := os.Stat(filepath.Join(path, "a.nix")); err != nil || again.Source.Path != inv.Source.Path {
			t.Errorf("%s is there: %s: %v", what, again.Source.Path, err)
		}
	}
}
