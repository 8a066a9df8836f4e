package inventory

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/nix"
	"ferry/internal/run"
)

// counted opens the inventory in dir, evaluates node a, and gives what that wrote and how many times Nix evaluated.
func counted(t *testing.T, dir string, options Options, settings ...[2]string) (e *Evaluation, log string, evaluations int) {
	t.Helper()
	var count atomic.Int64
	client := newClient(t)
	client.Options.Settings = append(client.Options.Settings, settings...)
	client.Runner = &run.Runner{Trace: func(argv []string) {
		if argv[0] == "nix-instantiate" {
			count.Add(1)
		}
	}}
	options.Dir = dir
	defer client.Release()
	inv, err := Open(t.Context(), client, options)
	if err != nil {
		t.Fatal(err)
	}
	node, err := inv.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if e, err = inv.Evaluate(t.Context(), node, &out, nil); err != nil {
		t.Fatal(err)
	}
	return e, out.String(), int(count.Load())
}

// TestAnUnchangedNodeIsNotEvaluatedAgain locks when the cache answers and when it must not.
func TestAnUnchangedNodeIsNotEvaluatedAgain(t *testing.T) {
	dir := configured(t, `"`+pinPath(t)+`"`, "", `{ text = builtins.trace "beware" "hello"; }`)
	options := Options{Cache: Cache{Dir: filepath.Join(t.TempDir(), "evaluations")}, FerryVersion: "1"}
	first, said, n := counted(t, dir, options)
	// One for the inventory, one that finds the pin, one for the node.
	if n != 3 || !strings.Contains(said, "beware") {
		t.Fatalf("at first Nix evaluated %d times and said %q", n, said)
	}
	again := func(title string, want int, o Options, settings ...[2]string) *Evaluation {
		t.Helper()
		e, log, n := counted(t, dir, o, settings...)
		if n != want || log != said {
			t.Errorf("%s: Nix evaluated %d times, want %d; it said %q", title, n, want, log)
		}
		return e
	}
	if e := again("unchanged", 0, options); *e != *first {
		t.Errorf("the cache gives %+v, and Nix %+v", e, first)
	}
	again("another way to build", 0, options, [2]string{"max-jobs", "3"})
	again("another setting", 3, options, [2]string{"allow-import-from-derivation", "false"})
	afresh := options
	afresh.Cache.Afresh = true
	again("afresh", 3, afresh)
	other := options
	other.FerryVersion = "2"
	if e := again("another ferry", 2, other); e.Bundle == first.Bundle {
		t.Error("another ferry makes the same bundle")
	}
	again("without a cache", 3, Options{FerryVersion: "1"})

	write(t, dir, map[string]string{"unrelated": "file"})
	if e := again("another source", 3, options); e.Bundle == first.Bundle {
		t.Error("another source makes the same bundle")
	}
	if err := os.Remove(filepath.Join(dir, "unrelated")); err != nil {
		t.Fatal(err)
	}
	again("the old source", 0, options)
}

// TestWhatWasCollectedIsEvaluatedAgain locks that the cache gives no derivation that is not in the store any more.
func TestWhatWasCollectedIsEvaluatedAgain(t *testing.T) {
	dir := configured(t, `"`+pinPath(t)+`"`, "", `{ text = "to be collected"; }`)
	options := Options{Cache: Cache{Dir: filepath.Join(t.TempDir(), "evaluations")}}
	first, _, _ := counted(t, dir, options)
	client := newClient(t)
	if err := client.Runner.Run(t.Context(), run.Command{Argv: []string{"nix-store", "--delete", string(first.Bundle)}}); err != nil {
		t.Fatal(err)
	}
	if there, err := client.Valid(t.Context(), first.Bundle); err != nil || there {
		t.Fatalf("%s is in the store: %v, %v", first.Bundle, there, err)
	}
	e, _, n := counted(t, dir, options)
	if there, err := client.Valid(t.Context(), e.Bundle, e.Toplevel); err != nil || !there || n != 1 {
		t.Errorf("evaluated %d times; the bundle is in the store: %v, %v", n, there, err)
	}
}

// TestAnImpureEvaluationIsNotKept locks that what may change is never taken from the cache.
func TestAnImpureEvaluationIsNotKept(t *testing.T) {
	dir := configured(t, `"`+pinPath(t)+`"`, "", `{ text = "at ${toString builtins.currentTime}"; }`)
	options := Options{Cache: Cache{Dir: filepath.Join(t.TempDir(), "evaluations")}}
	counted(t, dir, options)
	if _, _, n := counted(t, dir, options); n == 0 {
		t.Error("it was taken from the cache")
	}
}

// TestABrokenCacheIsNoError locks that whatever is in the folder, evaluation goes on, and that only ferry's files are removed.
func TestABrokenCacheIsNoError(t *testing.T) {
	dir := configured(t, `"`+pinPath(t)+`"`, "", `{ text = "hello"; }`)
	cache := Cache{Dir: filepath.Join(t.TempDir(), "evaluations")}
	first, _, _ := counted(t, dir, Options{Cache: cache})
	files, err := filepath.Glob(filepath.Join(cache.Dir, "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if e, _, n := counted(t, dir, Options{Cache: cache}); *e != *first || n != 3 {
		t.Errorf("Nix evaluated %d times", n)
	}
	write(t, cache.Dir, map[string]string{"README": "not ferry's"})
	old := files[0]
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*cachedFor)); err != nil {
		t.Fatal(err)
	}
	if err := cache.trim(); err != nil {
		t.Fatal(err)
	}
	if n, size, err := cache.Count(); n != 2 || size == 0 || err != nil {
		t.Errorf("%d are left with %d bytes, %v", n, size, err)
	}
	if err := cache.Clear(); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(cache.Dir, "*"))
	if !slices.Equal(left, []string{filepath.Join(cache.Dir, "README")}) {
		t.Errorf("left over: %q", left)
	}
	if _, _, err := (Cache{Dir: filepath.Join(cache.Dir, "nowhere")}).Count(); err != nil {
		t.Errorf("no folder: %v", err)
	}
}

// TestEvaluationsOfAnotherNixAreNotTaken locks that version and settings are part of what is looked for.
func TestEvaluationsOfAnotherNixAreNotTaken(t *testing.T) {
	c := Cache{Dir: "/cache"}
	e := nix.Expression{Text: "1"}
	version := nix.Version{Edition: "Nix", Text: "2.18"}
	same := c.file(e, version, "s")
	for title, file := range map[string]string{
		"edition":    c.file(e, nix.Version{Edition: "Lix", Text: "2.18"}, "s"),
		"version":    c.file(e, nix.Version{Edition: "Nix", Text: "2.18.1"}, "s"),
		"settings":   c.file(e, version, "t"),
		"expression": c.file(nix.Expression{Text: "2"}, version, "s"),
	} {
		if file == same {
			t.Errorf("another %s is looked for in the same place", title)
		}
	}
}
