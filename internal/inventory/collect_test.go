package inventory

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ferry/internal/nix"
	"ferry/internal/run"
)

// collect has Nix collect garbage.
func collect(t *testing.T) {
	t.Helper()
	if err := (&run.Runner{}).Run(context.Background(), run.Command{Argv: []string{"nix-store", "--gc", "--quiet"}}); err != nil {
		t.Error(err)
	}
}

// collectable is an inventory whose pin is a folder, and one of whose nodes is made from a part of the source.
func collectable(t *testing.T) string {
	t.Helper()
	dir, pins := t.TempDir(), t.TempDir()
	if err := os.CopyFS(filepath.Join(pins, "nixpkgs"), os.DirFS(pinPath(t))); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{
		"ferry.nix": `{ nixpkgs = ` + filepath.Join(pins, "nixpkgs") + `;
  nodes.part = { configuration = ./a.nix; source = [ ]; }; nodes.whole.configuration = ./b.nix;
  nodes.impure = { configuration = ./b.nix; impure = true; }; }`,
		"a.nix": "{ }", "b.nix": "{ } /* " + t.Name() + " */",
	})
	return dir
}

// TestWhatFerryPutsInTheStoreIsKept collects garbage between all steps from the source to the bundle, with and without a cache of
// evaluations.
func TestWhatFerryPutsInTheStoreIsKept(t *testing.T) {
	dir := collectable(t)
	cache := Cache{Dir: t.TempDir()}
	for range 2 {
		inv, _ := open(t, dir, Options{Cache: cache})
		for _, node := range inv.Nodes() {
			collect(t)
			if _, err := inv.SourceOf(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			collect(t)
			e, err := inv.Evaluate(t.Context(), node, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			collect(t)
			root := filepath.Join(t.TempDir(), "root")
			if err := inv.client.BuildTogether(t.Context(), e.Bundle, e.BundleOut, root, nil); err != nil {
				t.Fatal(err)
			}
			// Another ferry builds something else for the node.
			if err := os.Remove(root); err != nil {
				t.Fatal(err)
			}
			collect(t)
			for _, p := range []nix.StorePath{e.Bundle, e.BundleOut, e.Toplevel, e.ToplevelOut, inv.Source.Path} {
				if valid, err := inv.client.Valid(t.Context(), p); err != nil || !valid {
					t.Errorf("%s: %s is gone (%v)", node.Name, p, err)
				}
			}
		}
		bundle := inv.Source.Path
		inv.client.Release()
		collect(t)
		if valid, err := inv.client.Valid(t.Context(), bundle); err != nil || valid {
			t.Errorf("%s is kept for ever (%v)", bundle, err)
		}
	}
}

// TestWhatIsCollectedAtOnceIsEvaluatedAgain collects what a process of Nix has made in the moment after its end.
func TestWhatIsCollectedAtOnceIsEvaluatedAgain(t *testing.T) {
	inv, _ := open(t, collectable(t), Options{})
	times := 0
	inv.evaluators.eval = func(ctx context.Context, e nix.Expression) ([]byte, error) {
		answer, err := inv.client.Eval(ctx, e)
		if times++; times < 3 {
			collect(t)
		}
		return answer, err
	}
	node, err := inv.Node("whole")
	if err != nil {
		t.Fatal(err)
	}
	e, err := inv.Evaluate(t.Context(), node, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if valid, err := inv.client.Valid(t.Context(), e.Bundle); err != nil || !valid {
		t.Errorf("%s is gone (%v)", e.Bundle, err)
	}
	if times < 3 {
		t.Errorf("evaluated %d times", times)
	}
}

// TestWhoKeepsAndIsKilledIsReplaced has the process killed that keeps paths: what is asked for next has another one keep them all.
func TestWhoKeepsAndIsKilledIsReplaced(t *testing.T) {
	dir := collectable(t)
	before := children(t)
	inv, _ := open(t, dir, Options{})
	killed := 0
	for _, pid := range children(t) {
		if !slices.Contains(before, pid) {
			killed++
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if killed != 1 {
		t.Fatalf("%d were killed", killed)
	}
	node, err := inv.Node("whole")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inv.Evaluate(t.Context(), node, nil, nil); err != nil {
		t.Fatal(err)
	}
	collect(t)
	if valid, err := inv.client.Valid(t.Context(), inv.Source.Path); err != nil || !valid {
		t.Errorf("the source is gone (%v)", err)
	}
}

// children are the processes that this one has started and that run.
func children(t *testing.T) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, file := range files {
		// A thread may have ended by now.
		text, _ := os.ReadFile(file)
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, pid)
		}
	}
	return found
}
