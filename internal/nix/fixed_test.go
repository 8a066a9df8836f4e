package nix

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ferry/internal/run"
)

// TestATreeGetsThePathThatNixGivesIt compares with the real nix-store, for the first time and when the path is there.
func TestATreeGetsThePathThatNixGivesIt(t *testing.T) {
	useRealNix(t)
	dir := filepath.Join(t.TempDir(), "source")
	if err := os.MkdirAll(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(time.Now().String()), 0o644); err != nil {
		t.Fatal(err)
	}
	var commands []string
	client := &Client{Runner: &run.Runner{Trace: func(argv []string) { commands = append(commands, run.QuoteAll(argv)) }}}
	first, firstHash, err := client.AddTree(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"nix-store --serve --write", "nix-store --add " + dir}; !slices.Equal(commands, want) {
		t.Errorf("a new tree took %q", commands)
	}
	plain, err := client.Add(t.Context(), dir)
	if err != nil || plain != first {
		t.Errorf("Nix calls it %s (%v), ferry %s", plain, err, first)
	}
	if hash, err := client.NarHash(t.Context(), first); err != nil || hash != firstHash {
		t.Errorf("Nix says its hash is %s (%v), ferry %s", hash, err, firstHash)
	}
	commands = nil
	again, hash, err := client.AddTree(t.Context(), dir)
	if err != nil || again != first || hash != firstHash || len(commands) != 0 {
		t.Errorf("the same tree again: %s %s %v, commands %q", again, hash, err, commands)
	}
}
