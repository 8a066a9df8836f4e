package inventory

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/nix"
	"ferry/internal/run"
)

// evaluate evaluates the node called name.
func evaluate(t *testing.T, inv *Inventory, name string) *Evaluation {
	t.Helper()
	e, err := tryEvaluate(t, inv, name)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func tryEvaluate(t *testing.T, inv *Inventory, name string) (*Evaluation, error) {
	t.Helper()
	n, err := inv.Node(name)
	if err != nil {
		t.Fatal(err)
	}
	return inv.Evaluate(t.Context(), n, nil, nil)
}

// plain is the derivation that plain Nix makes of the same configuration.
func plain(t *testing.T, nixpkgs, configuration, system string) nix.StorePath {
	t.Helper()
	out, err := (&run.Runner{}).Output(t.Context(), run.Command{Argv: []string{"nix-instantiate", "<nixpkgs/nixos>", "-A", "system",
		"-I", "nixpkgs=" + nixpkgs, "-I", "nixos-config=" + configuration, "--argstr", "system", system}})
	if err != nil {
		t.Fatal(err)
	}
	return nix.StorePath(strings.TrimSpace(string(out)))
}

// configured is an inventory with one node "a" in a folder of its own.
func configured(t *testing.T, pin, node, configuration string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"ferry.nix": "{ nixpkgs = " + pin + "; nodes.a = { configuration = ./c.nix; " + node + " }; }", "c.nix": configuration,
	})
	return dir
}

// TestPinsOfEveryKind: the derivation is that of plain Nix, and the pin is in the bundle, whatever kind of value it is.
func TestPinsOfEveryKind(t *testing.T) {
	checkout := filepath.Join(t.TempDir(), "checkout")
	if err := os.CopyFS(checkout, os.DirFS("testdata/nixpkgs")); err != nil {
		t.Fatal(err)
	}
	client := newClient(t)
	hash, err := client.NarHash(t.Context(), nix.StorePath(pinPath(t)))
	if err != nil {
		t.Fatal(err)
	}
	tarball := filepath.Join(t.TempDir(), "nixpkgs.tar.gz")
	if err := (&run.Runner{}).Run(t.Context(), run.Command{Argv: []string{"tar", "-C", "testdata", "-czf", tarball, "nixpkgs"}}); err != nil {
		t.Fatal(err)
	}
	for title, c := range map[string]struct {
		pin    string
		impure string
	}{
		"store path":               {`"` + pinPath(t) + `"`, ""},
		"store path as a path":     {pinPath(t), ""},
		"fetchTarball":             {`fetchTarball { url = "file://` + tarball + `"; sha256 = "` + hash + `"; }`, ""},
		"fetchTarball with a name": {`fetchTarball { name = "nixpkgs-src"; url = "file://` + tarball + `"; sha256 = "` + hash + `"; }`, ""},
		"fetchTarball unpinned":    {`fetchTarball "file://` + tarball + `"`, "the pin: builtins.fetchTarball"},
		"attribute set":            {`{ outPath = fetchTarball { url = "file://` + tarball + `"; sha256 = "` + hash + `"; }; rev = "1"; }`, ""},
		"checkout":                 {checkout, ""},
		"checkout as a string":     {`"` + checkout + `"`, ""},
		"checkout in a set":        {`{ outPath = ` + checkout + `; }`, ""},
		"in the source":            {"./vendor/nixpkgs", ""},
		"linked from the source":   {"./linked", ""},
		"next to the source":       {"../next-to-it/nixpkgs", ""},
		"search path":              {"<nixpkgs>", "the pin: <nixpkgs>"},
		"patched": {`(derivation { name = "patched"; system = builtins.currentSystem or "x86_64-linux"; builder = "/bin/sh";
			args = [ "-c" "cp -r $tree $out" ]; tree = fetchTarball { url = "file://` + tarball + `"; sha256 = "` + hash + `"; };
			PATH = "/usr/bin:/bin"; })`, ""},
	} {
		t.Run(title, func(t *testing.T) {
			t.Setenv("NIX_PATH", "nixpkgs="+checkout)
			parent := t.TempDir()
			dir := filepath.Join(parent, "inventory")
			write(t, dir, map[string]string{
				"ferry.nix": "{ nixpkgs = " + c.pin + "; nodes.a.configuration = ./c.nix; }", "c.nix": `{ text = "hello"; }`,
			})
			for _, tree := range []string{filepath.Join(dir, "vendor/nixpkgs"), filepath.Join(parent, "next-to-it/nixpkgs")} {
				if err := os.CopyFS(tree, os.DirFS("testdata/nixpkgs")); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(checkout, filepath.Join(dir, "linked")); err != nil {
				t.Fatal(err)
			}
			inv, n := open(t, dir, Options{})
			e := evaluate(t, inv, "a")
			if e.Impure != c.impure || (c.impure == "") != (n.all() == "") {
				t.Errorf("impure because of %q, notes %q, want %q", e.Impure, n.all(), c.impure)
			}
			bundle := build(t, e)
			if got := plain(t, resolve(t, bundle+"/nixpkgs"), bundle+"/configuration.nix", inv.System); got != e.Toplevel {
				t.Errorf("plain Nix makes %s, ferry %s", got, e.Toplevel)
			}
		})
	}
}

func build(t *testing.T, e *Evaluation) string {
	t.Helper()
	result := filepath.Join(t.TempDir(), "result")
	if err := newClient(t).Build(t.Context(), e.Bundle, result, nil); err != nil {
		t.Fatal(err)
	}
	out := resolve(t, result)
	if out != string(e.BundleOut) {
		t.Errorf("built %s, evaluated to %s", out, e.BundleOut)
	}
	return out
}

func TestBundleHoldsWhatTheTargetNeeds(t *testing.T) {
	dir := configured(t, pinPath(t), `system = "aarch64-linux";`, `{ text = "hello"; }`)
	repository(t, dir)
	// The builders are this machine's, so the derivations have to be, too.
	inv, _ := open(t, dir, Options{FerryVersion: "1.2"})
	foreign := evaluate(t, inv, "a")
	if foreign.ToplevelSystem != "aarch64-linux" || foreign.BundleSystem != "aarch64-linux" {
		t.Errorf("built on %s and %s", foreign.ToplevelSystem, foreign.BundleSystem)
	}
	n, _ := inv.Node("a")
	n.System = inv.System
	e, err := inv.Evaluate(t.Context(), n, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	bundle := build(t, e)
	source := string(inv.Source.Path)
	for name, want := range map[string]string{
		"source": source, "configuration.nix": source + "/c.nix", "profile": string(e.ToplevelOut), "nixpkgs": pinnedAs(t, bundle),
	} {
		if got, err := os.Readlink(filepath.Join(bundle, name)); err != nil || got != want {
			t.Errorf("%s leads to %s, %v, want %s", name, got, err, want)
		}
	}
	text, err := os.ReadFile(filepath.Join(bundle, "ferry.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest map[string]any
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"format": 1.0, "node": "a", "system": inv.System, "revision": git(t, dir, "rev-parse", "HEAD"), "dirty": false,
		"ferryVersion": "1.2", "nixpkgsVersion": "99.05pre-git", "source": source, "configuration": source + "/c.nix",
		"profile": string(e.ToplevelOut), "nixpkgs": pinnedAs(t, bundle),
	} {
		if manifest[name] != want {
			t.Errorf("ferry.json: %s is %v, want %v", name, manifest[name], want)
		}
		delete(manifest, name)
	}
	if len(manifest) > 0 {
		t.Errorf("ferry.json has more: %v", manifest)
	}
	out, err := (&run.Runner{}).Output(t.Context(), run.Command{Argv: []string{filepath.Join(bundle, "nixos-rebuild-switch"), "--help"}})
	if err != nil || !bytes.Contains(out, []byte("sudo "+bundle+"/nixos-rebuild-switch")) || !bytes.Contains(out, []byte(e.ToplevelOut)) {
		t.Errorf("the script says %q, %v", out, err)
	}
	references, err := (&run.Runner{}).Output(t.Context(), run.Command{Argv: []string{"nix-store", "--query", "--references", bundle}})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(strings.Fields(string(references))); got != 5 {
		t.Errorf("the bundle refers to %d paths, want source, nixpkgs, toplevel, shell and itself:\n%s", got, references)
	}
}

// pinnedAs is the pin's place in the store as pure evaluation has it: under the name source.
func pinnedAs(t *testing.T, bundle string) string {
	t.Helper()
	path, err := os.Readlink(filepath.Join(bundle, "nixpkgs"))
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t)
	got, err := client.NarHash(t.Context(), nix.StorePath(path))
	if err != nil {
		t.Fatal(err)
	}
	if want, err := client.NarHash(t.Context(), nix.StorePath(pinPath(t))); err != nil || got != want {
		t.Errorf("the pin in the bundle has hash %s, want %s, %v", got, want, err)
	}
	return path
}

func TestEqualInputsGiveTheEqualBundle(t *testing.T) {
	first, _ := open(t, configured(t, pinPath(t), "", `{ text = "hello"; }`), Options{})
	second, _ := open(t, configured(t, pinPath(t), "", `{ text = "hello"; }`), Options{})
	comment, _ := open(t, configured(t, pinPath(t), "", `{ text = "hello"; } # only a comment`), Options{})
	changed, _ := open(t, configured(t, pinPath(t), "", `{ text = "bye"; }`), Options{})
	a, b, c, d := evaluate(t, first, "a"), evaluate(t, second, "a"), evaluate(t, comment, "a"), evaluate(t, changed, "a")
	if *a != *b {
		t.Errorf("equal inputs: got %+v and %+v", a, b)
	}
	if a.Toplevel != c.Toplevel || a.Bundle == c.Bundle {
		t.Errorf("a comment: got toplevels %s and %s, bundles %s and %s", a.Toplevel, c.Toplevel, a.Bundle, c.Bundle)
	}
	if a.Toplevel == d.Toplevel {
		t.Error("a change: the toplevel is the same")
	}
}

func TestPureAndImpureEvaluationAgree(t *testing.T) {
	pure, _ := open(t, configured(t, "./nixpkgs", "", `{ text = toString ./c.nix; }`), Options{})
	if err := os.CopyFS(filepath.Join(pure.Root, "nixpkgs"), os.DirFS("testdata/nixpkgs")); err != nil {
		t.Fatal(err)
	}
	inv, notes := open(t, pure.Root, Options{})
	n, err := inv.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	a, err := inv.Evaluate(t.Context(), n, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	n.Impure = true
	b, err := inv.Evaluate(t.Context(), n, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Impure != "" || b.Impure != "impure = true" || a.Bundle != b.Bundle || a.Toplevel != b.Toplevel {
		t.Errorf("pure %+v\nimpure %+v", a, b)
	}
	if notes.all() != "" {
		t.Errorf("noted what is meant: %s", notes.all())
	}
}

func TestImpureConfigurationIsEvaluatedImpurelyWithOneNote(t *testing.T) {
	file := filepath.Join(t.TempDir(), "outside")
	write(t, filepath.Dir(file), map[string]string{"outside": "hello"})
	for title, c := range map[string]struct{ pin, configuration, want, path string }{
		"file outside":   {pinPath(t), `{ text = builtins.readFile ` + file + `; }`, "", file},
		"current system": {pinPath(t), `{ text = builtins.currentSystem; }`, "builtins.currentSystem", ""},
		"pin as well":    {"<nixpkgs>", `{ text = builtins.readFile ` + file + `; }`, "the pin: <nixpkgs>; ", file},
	} {
		t.Run(title, func(t *testing.T) {
			t.Setenv("NIX_PATH", "nixpkgs="+pinPath(t))
			inv, n := open(t, configured(t, c.pin, "", c.configuration), Options{})
			e := evaluate(t, inv, "a")
			// Newer versions of Nix name only the first folder of the path that they may not enter.
			path, found := strings.CutPrefix(e.Impure, c.want)
			if !found || !strings.HasPrefix(c.path, path) || (path == "") != (c.path == "") {
				t.Errorf("impure because of %q, want %q", e.Impure, c.want+c.path)
			}
			if n.all() != "node a is not pure: "+e.Impure {
				t.Errorf("got notes %q", n.all())
			}
		})
	}
}

func TestImpureInventoryIsReadImpurelyWithOneNote(t *testing.T) {
	t.Setenv("NIX_PATH", "nixpkgs="+pinPath(t))
	inv, n := open(t, configured(t, "<nixpkgs>", "tags = [ (builtins.seq builtins.currentTime \"home\") ];", "{ }"), Options{})
	e := evaluate(t, inv, "a")
	if inv.Impure != "builtins.currentTime" || e.Impure != "the inventory: builtins.currentTime" {
		t.Errorf("inventory impure because of %q, node of %q", inv.Impure, e.Impure)
	}
	if n.all() != "ferry.nix is not pure (builtins.currentTime): it is read impurely" {
		t.Errorf("got notes %q", n.all())
	}
}

func TestWrongPins(t *testing.T) {
	empty := t.TempDir()
	write(t, empty, map[string]string{"x": "x"})
	channel := t.TempDir()
	write(t, channel, map[string]string{"nixpkgs/nixos/default.nix": ""})
	for title, c := range map[string]struct{ pin, want, hint string }{
		"number":          {"1", "expected a nixpkgs tree, found an integer", "nixpkgs = fetchTarball"},
		"relative string": {`"nixpkgs"`, `expected the absolute path of a nixpkgs tree, found the string "nixpkgs"`, "nixpkgs = fetchTarball"},
		"set":             {"{ url = 1; }", "expected a nixpkgs tree, found an attribute set without outPath", "nixpkgs = fetchTarball"},
		"packages":        {"{ path = 1; bash = 2; }", "expected a nixpkgs tree, found its packages", "leave the import away"},
		"function":        {"import ./c.nix", "expected a nixpkgs tree, found a function", "nixpkgs = fetchTarball"},
		"missing":         {empty + "/nowhere", empty + "/nowhere does not exist", ""},
		"no nixos":        {empty, empty + " is no nixpkgs tree: it has no nixos/default.nix", ""},
		"folder above":    {channel, channel + " is no nixpkgs tree: it has no nixos/default.nix", "did you mean " + channel + "/nixpkgs?"},
		"source itself":   {"./.", "FOLDER is no nixpkgs tree: it has no nixos/default.nix", ""},
		"throws":          {`throw "not pinned yet"`, "not pinned yet", ""},
	} {
		t.Run(title, func(t *testing.T) {
			inv, _ := open(t, configured(t, c.pin, "", "{ ... }: { }"), Options{})
			_, err := tryEvaluate(t, inv, "a")
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			want := "node a: attribute `nixpkgs`: " + strings.Replace(c.want, "FOLDER", inv.Root, 1)
			if title == "throws" {
				want = "node a: " + c.want
			}
			if e.Error() != want {
				t.Errorf("got  %s\nwant %s", e, want)
			}
			if c.hint == "" != (len(e.Hints()) == 0) || c.hint != "" && !strings.HasPrefix(e.Hints()[0], c.hint) {
				t.Errorf("got hints %q, want %q", e.Hints(), c.hint)
			}
		})
	}
}

func TestCheckoutOfNixpkgsKeepsItsVersion(t *testing.T) {
	checkout := t.TempDir()
	if err := os.CopyFS(checkout, os.DirFS("testdata/nixpkgs")); err != nil {
		t.Fatal(err)
	}
	repository(t, checkout)
	revision := git(t, checkout, "rev-parse", "HEAD")[:12]
	version := func() string {
		inv, _ := open(t, configured(t, checkout, "", "{ }"), Options{})
		e := evaluate(t, inv, "a")
		bundle := build(t, e)
		if _, err := os.Stat(filepath.Join(bundle, "nixpkgs/.git")); err == nil {
			t.Error("the bundle holds .git")
		}
		return e.NixpkgsVersion
	}
	if got, want := version(), "99.05.git."+revision; got != want {
		t.Errorf("clean: got version %s, want %s", got, want)
	}
	write(t, checkout, map[string]string{"pkgs.nix": readFile(t, checkout+"/pkgs.nix") + "\n"})
	if got, want := version(), "99.05.git."+revision+"M"; got != want {
		t.Errorf("dirty: got version %s, want %s", got, want)
	}
	write(t, checkout, map[string]string{".version-suffix": "pre12345"})
	if got, want := version(), "99.05pre12345"; got != want {
		t.Errorf("with a suffix: got version %s, want %s", got, want)
	}
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFileThatGitDoesNotKnowIsNamed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"ferry.nix": `{ nixpkgs = ` + pinPath(t) + `; nodes.a.configuration = ./a.nix; nodes.b.configuration = ./b.nix; }`,
		"a.nix":     `{ text = import ./part.nix; }`, ".gitignore": "ignored.nix",
	})
	repository(t, dir)
	write(t, dir, map[string]string{"part.nix": `import ./ignored.nix`, "ignored.nix": `"hello"`, "b.nix": "{ }"})
	e := openError(t, dir, Options{})
	if e.Error() != "node b: attribute `configuration`: b.nix exists, but git does not know it, so it is not part of the source" ||
		e.Hints()[0] != "git add "+dir+"/b.nix" {
		t.Errorf("got %q with hints %q", e, e.Hints())
	}
	git(t, dir, "add", "--intent-to-add", "b.nix")
	for _, want := range []string{"part.nix exists, but git does not know it: git add " + dir + "/part.nix",
		"ignored.nix exists, but git does not know it: git add --force " + dir + "/ignored.nix"} {
		inv, _ := open(t, dir, Options{})
		_, err := tryEvaluate(t, inv, "a")
		var e *Error
		if !errors.As(err, &e) || e.Usage() || len(e.Hints()) != 1 || e.Hints()[0] != want {
			t.Fatalf("got %v with hints %q, want %q", err, e.Hints(), want)
		}
		if !strings.Contains(e.Error(), dir+"/") || strings.Contains(e.Error(), string(inv.Source.Path)) {
			t.Errorf("the message does not name the user's file: %s", e)
		}
		git(t, dir, "add", "--force", strings.Fields(want)[0])
	}
	inv, _ := open(t, dir, Options{})
	evaluate(t, inv, "a")
}

func TestInventoryThatGitDoesNotKnowIsNamed(t *testing.T) {
	dir := t.TempDir()
	repository(t, dir)
	write(t, dir, map[string]string{"ferry.nix": "{ }"})
	e := openError(t, dir, Options{})
	if e.Error() != "ferry.nix exists, but git does not know it, so it is not part of the source" || e.Hints()[0] != "git add "+dir+"/ferry.nix" {
		t.Errorf("got %q with hints %q", e, e.Hints())
	}
}

func TestEvaluationErrorShowsTheUsersFiles(t *testing.T) {
	dir := configured(t, pinPath(t), "", "{\n  text = import ./part.nix;\n}")
	write(t, dir, map[string]string{"part.nix": "let x = 1; in\nx.y"})
	inv, _ := open(t, dir, Options{})
	_, err := tryEvaluate(t, inv, "a")
	var e *Error
	if !errors.As(err, &e) || e.Usage() {
		t.Fatalf("got %v", err)
	}
	if !strings.HasPrefix(e.Error(), "node a: value is an integer while a set was expected") && !strings.HasPrefix(e.Error(), "node a: expected a set but found an integer") {
		t.Errorf("got %q", e)
	}
	if trace := strings.Join(e.Trace, "\n"); !strings.Contains(trace, dir+"/part.nix:2") || strings.Contains(trace, pinPath(t)) {
		t.Errorf("got trace %s", trace)
	}
}

func TestMachineWithoutInventory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"etc/configuration.nix": `{ text = import ./part.nix; }`, "etc/part.nix": `"hello"`, "other": "x"})
	inv, n := open(t, dir, Options{Configuration: "etc/configuration.nix", Nixpkgs: pinPath(t), Target: "alice@raspberry-pi.local"})
	e := evaluate(t, inv, "raspberry-pi.local")
	if inv.Root != dir+"/etc" || inv.File != dir+"/etc/configuration.nix" || n.all() != "" || e.Impure != "" {
		t.Errorf("got %+v, notes %q", inv, n.all())
	}
	if e.BundleOut.Name() != "ferry-raspberry-pi.local" {
		t.Errorf("the bundle is called %s", e.BundleOut.Name())
	}
	for title, c := range map[string]struct {
		options Options
		want    string
	}{
		"and an inventory": {Options{Configuration: "x", File: "ferry.nix"}, "an inventory and --configuration exclude each other"},
		"no pin":           {Options{Configuration: "etc/configuration.nix", Target: "a"}, "--configuration needs --nixpkgs PATH"},
		"no target":        {Options{Configuration: "etc/configuration.nix", Nixpkgs: "/"}, "--configuration needs a target"},
		"no file":          {Options{Configuration: "x", Nixpkgs: "/", Target: "a"}, "--configuration: stat " + dir + "/x: no such file or directory"},
		"hostile target": {Options{Configuration: "etc/configuration.nix", Nixpkgs: "/", Target: "-oProxyCommand=x"},
			"attribute `target`: no node name can be made of -oProxyCommand=x: a name consists of letters"},
		"wrong system": {Options{Configuration: "etc/configuration.nix", Nixpkgs: "/", Target: "a", System: "arm64"},
			"attribute `system`: unknown system arm64"},
	} {
		t.Run(title, func(t *testing.T) {
			if e := openError(t, dir, c.options); !strings.HasPrefix(e.Error(), c.want) {
				t.Errorf("got %q, want %q", e, c.want)
			}
		})
	}
}

// resolve follows link. Through a path below the bundle, readFile of Nix 2.8 would take a file to refer to all that the
// bundle refers to.
func resolve(t *testing.T, link string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(link)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
