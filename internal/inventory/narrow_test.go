package inventory

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/nix"
	"ferry/internal/run"
)

// content lists the files and symbolic links in a folder, below it.
func content(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// narrowedProject is an inventory with a node "a" whose source is narrowed, among files that are not in that.
func narrowedProject(t *testing.T, pin string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"ferry.nix": `{
			nixpkgs = ` + pin + `;
			nodes.a = {
				configuration = ./hosts/a;
				source = [ ./common ];
				checks.commands = [ { run = [ ./scripts/check.sh "/run/x" ]; } ];
			};
			nodes.b.configuration = ./hosts/b.nix;
		}`,
		"hosts/a/default.nix": `{ text = import ../../common/text.nix; }`,
		"hosts/b.nix":         `{ text = "b"; }`,
		"common/text.nix":     `"hello"`,
		"scripts/check.sh":    "exit 0",
		"scripts/other.sh":    "exit 1",
	})
	return dir
}

// TestANarrowedSourceHasWhatTheNodeNeeds locks what is in it, and that the checks run what is there.
func TestANarrowedSourceHasWhatTheNodeNeeds(t *testing.T) {
	dir := narrowedProject(t, `"`+pinPath(t)+`"`)
	write(t, dir, map[string]string{"shared/deep/file": "x", "shared/unused": "y"})
	for link, target := range map[string]string{"common/linked": "../shared/deep", "hosts/c": "a"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	inv, _ := open(t, dir, Options{})
	node, err := inv.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	for title, c := range map[string]struct {
		source        []string
		configuration string
		want          []string
	}{
		"as the inventory says": {node.Source, node.Configuration,
			[]string{"common/linked", "common/text.nix", "hosts/a/default.nix", "scripts/check.sh"}},
		"nothing besides":      {[]string{}, node.Configuration, []string{"hosts/a/default.nix", "scripts/check.sh"}},
		"one below another":    {[]string{"shared/deep", "shared"}, node.Configuration, []string{"hosts/a/default.nix", "scripts/check.sh", "shared/deep/file", "shared/unused"}},
		"through a link":       {[]string{"common/linked/file"}, node.Configuration, []string{"common/linked", "hosts/a/default.nix", "scripts/check.sh", "shared/deep/file"}},
		"configured by a link": {[]string{}, "hosts/c/default.nix", []string{"hosts/a/default.nix", "hosts/c", "scripts/check.sh"}},
	} {
		t.Run(title, func(t *testing.T) {
			n := node
			n.Source, n.Configuration = c.source, c.configuration
			s, err := inv.SourceOf(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			if got := content(t, string(s.Path)); !slices.Equal(got, c.want) || s.Path.Name() != "source" {
				t.Errorf("%s has %q, want %q", s.Path, got, c.want)
			}
			checks, err := inv.ChecksOf(t.Context(), n)
			if want := []string{string(s.Path) + "/scripts/check.sh", "/run/x"}; err != nil || !slices.Equal(checks.Commands[0].Run, want) {
				t.Errorf("the check runs %q, want %q; %v", checks.Commands[0].Run, want, err)
			}
		})
	}
	whole, err := inv.Node("b")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := inv.SourceOf(t.Context(), whole); s != inv.Source || err != nil {
		t.Errorf("a node that narrows nothing has %+v, %v", s, err)
	}
}

// TestAnEditElsewhereDoesNotTouchANarrowedNode locks that neither files that are left out nor the inventory's text nor commits
// that change only those make another bundle or another evaluation of the node, and that what is in its source does.
func TestAnEditElsewhereDoesNotTouchANarrowedNode(t *testing.T) {
	dir := narrowedProject(t, `"`+pinPath(t)+`"`)
	repository(t, dir)
	options := Options{Cache: Cache{Dir: filepath.Join(t.TempDir(), "evaluations")}}
	first, _, _ := counted(t, dir, options)
	commit := func() {
		git(t, dir, "add", "--all")
		git(t, dir, "commit", "--quiet", "--message=more")
	}
	same := func(title string, evaluations int) {
		t.Helper()
		if e, _, n := counted(t, dir, options); e.Bundle != first.Bundle || n != evaluations {
			t.Errorf("%s: evaluated %d times, want %d; the same bundle: %v", title, n, evaluations, e.Bundle == first.Bundle)
		}
	}
	same("unchanged", 0)
	write(t, dir, map[string]string{"hosts/b.nix": `{ text = "another"; }`})
	// The inventory is read again, and where its pin is.
	same("an edit elsewhere", 2)
	commit()
	same("a commit elsewhere", 0)
	text, err := os.ReadFile(filepath.Join(dir, "ferry.nix"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"ferry.nix": "# More.\n" + string(text)})
	same("an edit of the inventory", 2)
	commit()

	write(t, dir, map[string]string{"common/text.nix": `"changed"`})
	dirty, _, _ := counted(t, dir, options)
	commit()
	clean, _, n := counted(t, dir, options)
	if dirty.Toplevel == first.Toplevel || dirty.Bundle == clean.Bundle || dirty.Toplevel != clean.Toplevel || n != 1 {
		t.Errorf("an edit inside: evaluated %d times; from %+v to %+v, committed %+v", n, first, dirty, clean)
	}
}

// TestTheRevisionOfANarrowedSourceIsOfItsOwn locks the commit it is from, and how it stands to what is checked out.
func TestTheRevisionOfANarrowedSourceIsOfItsOwn(t *testing.T) {
	dir := narrowedProject(t, `"`+pinPath(t)+`"`)
	repository(t, dir)
	module := t.TempDir()
	write(t, module, map[string]string{"m.nix": "1"})
	repository(t, module)
	git(t, dir, "submodule", "--quiet", "add", module, "module")
	git(t, dir, "commit", "--quiet", "--message=module")
	head := func() string { return git(t, dir, "rev-parse", "HEAD") }
	commit := func(file string) string {
		write(t, dir, map[string]string{file: `"` + t.Name() + `"`})
		git(t, dir, "add", "--all")
		git(t, dir, "commit", "--quiet", "--message="+file)
		return head()
	}
	check := func(title, commit string, dirty bool, source ...string) Standing {
		t.Helper()
		inv, _ := open(t, dir, Options{})
		node, err := inv.Node("a")
		if err != nil {
			t.Fatal(err)
		}
		node.Source = source
		s, err := inv.SourceOf(t.Context(), node)
		if err != nil || s.Revision != commit || s.Dirty != dirty {
			t.Errorf("%s: revision %s, dirty %v, %v; want %s, %v", title, s.Revision, s.Dirty, err, commit, dirty)
		}
		standing, err := inv.Standing(t.Context(), node, commit)
		if err != nil {
			t.Fatal(err)
		}
		return standing
	}
	added := head()
	inside := commit("common/text.nix")
	commit("hosts/b.nix")
	if s := check("committed", inside, false, "common"); s.Relation != Equal {
		t.Errorf("a commit elsewhere makes it stand %+v", s)
	}
	check("in a submodule", added, false, "module/m.nix")
	write(t, dir, map[string]string{"hosts/b.nix": "{ }"})
	check("dirty elsewhere", inside, false, "common")
	write(t, dir, map[string]string{"common/text.nix": `"dirty"`})
	check("dirty", inside, true, "common")
	git(t, dir, "commit", "--quiet", "--all", "--message=last")
	inv, _ := open(t, dir, Options{})
	node, err := inv.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := inv.Standing(t.Context(), node, inside); err != nil || s != (Standing{Behind, 1, 0}) {
		t.Errorf("one commit later it stands %+v, %v", s, err)
	}
}

// TestWhatANarrowedSourceLeavesOut has configurations that want more than their source has: Nix's error, and what to do.
func TestWhatANarrowedSourceLeavesOut(t *testing.T) {
	for title, c := range map[string]struct{ configuration, want, hint string }{
		"a file":      {`{ text = import ../b.nix; }`, "/machines/hosts/b.nix", "the node's `source` leaves machines/hosts/b.nix out: add ./hosts/b.nix, or"},
		"above it":    {`{ text = import ../../../above/x.nix; }`, "/above", "the node's `source` leaves above/x.nix out: add ../above/x.nix, or"},
		"other nodes": {`{ nodes, ... }: { text = "x"; }`, "the configuration asks for `nodes`", "leave `source` out"},
		"no file":     {`{ text = import ../nowhere.nix; }`, "/machines/hosts/nowhere.nix", ""},
	} {
		t.Run(title, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{
				"machines/ferry.nix":           `{ nixpkgs = "` + pinPath(t) + `"; nodes.a = { configuration = ./hosts/a; source = [ ]; }; }`,
				"machines/hosts/a/default.nix": c.configuration, "machines/hosts/b.nix": `"b"`, "above/x.nix": `"x"`,
			})
			repository(t, dir)
			inv, _ := open(t, filepath.Join(dir, "machines"), Options{})
			_, err := tryEvaluate(t, inv, "a")
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(e.Error(), c.want) || strings.Contains(strings.Join(e.Trace, "\n"), "/nix/store/") && title != "other nodes" {
				t.Errorf("got %q, want %q; trace %q", e, c.want, e.Trace)
			}
			if hints := strings.Join(e.Hints(), "\n"); !strings.HasPrefix(hints, c.hint) || c.hint == "" && hints != "" {
				t.Errorf("got hints %q, want %q", e.Hints(), c.hint)
			}
		})
	}
}

// TestPinsOfANarrowedNode locks that the system is that of the whole source, wherever the pin is, and that a pin in the source
// takes nothing else of it along.
func TestPinsOfANarrowedNode(t *testing.T) {
	for title, c := range map[string]struct {
		pin    string
		source string // narrowed to
		impure string
	}{
		"store path":     {`"` + pinPath(t) + `"`, "[ ]", ""},
		"in the source":  {"./vendor/nixpkgs", "[ ./vendor ]", ""},
		"left out of it": {"./vendor/nixpkgs", "[ ]", ""},
		"impure":         {"<nixpkgs>", "[ ]", "the pin: <nixpkgs>"},
		"impure inventory": {`builtins.seq builtins.currentTime <nixpkgs>; nodes.b = { configuration = ./c.nix; target = toString builtins.currentTime; }`,
			"[ ]", "the inventory: builtins.currentTime"},
		"everything, so not": {"./vendor/nixpkgs", "[ ./. ]", ""},
	} {
		t.Run(title, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{
				"ferry.nix": "{ nixpkgs = " + c.pin + "; nodes.a = { configuration = ./c.nix; source = " + c.source + "; }; }", "c.nix": `{ text = "hello"; }`, "x": "y",
			})
			if err := os.CopyFS(filepath.Join(dir, "vendor/nixpkgs"), os.DirFS("testdata/nixpkgs")); err != nil {
				t.Fatal(err)
			}
			t.Setenv("NIX_PATH", "nixpkgs="+pinPath(t))
			inv, _ := open(t, dir, Options{})
			e := evaluate(t, inv, "a")
			if !strings.HasPrefix(e.Impure, c.impure) || c.impure == "" && e.Impure != "" {
				t.Errorf("impure because of %q, want %q", e.Impure, c.impure)
			}
			bundle := build(t, e)
			if got := plain(t, resolve(t, bundle+"/nixpkgs"), bundle+"/configuration.nix", inv.System); got != e.Toplevel {
				t.Errorf("plain Nix makes %s, ferry %s", got, e.Toplevel)
			}
			_, err := os.Stat(bundle + "/source/x")
			pinned, rest, splitErr := nix.SplitStorePath(resolve(t, bundle+"/nixpkgs"))
			if (err == nil) != (c.source == "[ ./. ]") || splitErr != nil || string(pinned) == string(inv.Source.Path) && c.source != "[ ./. ]" {
				t.Errorf("the file x: %v; the pin is %s%s, the source %s", err, pinned, rest, inv.Source.Path)
			}
		})
	}
}

// TestNodesWithOnePinAskForItOnce locks that many narrowed nodes cost one question where the pin is.
func TestNodesWithOnePinAskForItOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"ferry.nix": `{ nixpkgs = "` + pinPath(t) + `"; nodes = builtins.listToAttrs (map (name: { inherit name; value = { configuration = ./c.nix; source = [ ]; }; }) [ "a" "b" "c" ]); }`,
		"c.nix":     `{ text = "hello"; }`,
	})
	n := 0
	client := newClient(t)
	client.Runner = &run.Runner{Trace: func(argv []string) {
		if argv[0] == "nix-instantiate" {
			n++
		}
	}}
	inv, err := Open(t.Context(), client, Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range inv.Nodes() {
		if _, err := inv.Evaluate(t.Context(), node, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n != 1+1+3 {
		t.Errorf("Nix evaluated %d times, want once for the inventory, once for the pin, and once for each node", n)
	}
}

// TestByHandANarrowedNodeIsTheSame locks that what ferry abandon writes makes ferry's bundle of it.
func TestByHandANarrowedNodeIsTheSame(t *testing.T) {
	dir := narrowedProject(t, "./common/nixpkgs")
	if err := os.CopyFS(filepath.Join(dir, "common/nixpkgs"), os.DirFS("testdata/nixpkgs")); err != nil {
		t.Fatal(err)
	}
	repository(t, dir)
	write(t, dir, map[string]string{"hosts/b.nix": "{ }"})
	inv, _ := open(t, dir, Options{FerryVersion: "1"})
	node, err := inv.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	e := evaluate(t, inv, "a")
	pin := resolve(t, build(t, e)+"/nixpkgs")
	byHand := filepath.Join(t.TempDir(), "by-hand")
	if err := inv.WriteByHand(t.Context(), byHand, node, pin); err != nil {
		t.Fatal(err)
	}
	got, err := inv.client.BuildFile(t.Context(), filepath.Join(byHand, "default.nix"), filepath.Join(t.TempDir(), "result"), nil)
	if err != nil || got != e.BundleOut {
		t.Errorf("by hand %s, ferry %s; %v", got, e.BundleOut, err)
	}
}
