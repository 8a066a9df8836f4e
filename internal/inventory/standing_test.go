package inventory

import (
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/run"
)

// TestStandingCountsCommitsOnBothSides goes through a history with a branch, with another commit checked out each time.
func TestStandingCountsCommitsOnBothSides(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"x": "1"})
	repository(t, dir)
	commit := func(text string) string {
		t.Helper()
		write(t, dir, map[string]string{"x": text})
		git(t, dir, "commit", "--quiet", "--all", "--message="+text)
		return git(t, dir, "rev-parse", "HEAD")
	}
	first := git(t, dir, "rev-parse", "HEAD")
	git(t, dir, "checkout", "--quiet", "-b", "feature")
	feature := commit("feature")
	git(t, dir, "checkout", "--quiet", "-")
	commit("second")
	third := commit("third")
	shallow := filepath.Join(t.TempDir(), "shallow")
	git(t, dir, "clone", "--quiet", "--depth=1", "file://"+dir, shallow)
	for name, c := range map[string]struct {
		dir, head, revision string
		want                Standing
	}{
		"what is checked out":       {dir, third, third, Standing{Equal, 0, 0}},
		"shortened":                 {dir, third, third[:12], Standing{Equal, 0, 0}},
		"older":                     {dir, third, first, Standing{Behind, 2, 0}},
		"newer":                     {dir, first, third, Standing{Ahead, 0, 2}},
		"another branch":            {dir, third, feature, Standing{Diverged, 2, 1}},
		"someone else's":            {dir, third, strings.Repeat("1", 40), Standing{NotKnownHere, 0, 0}},
		"older than a shallow copy": {shallow, third, first, Standing{NotKnownHere, 0, 0}},
		"not from git":              {dir, third, "", Standing{NotFromGit, 0, 0}},
		"nothing is committed here": {dir, "", third, Standing{NotFromGit, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			work, ok, err := findWorkTree(t.Context(), &run.Runner{}, c.dir, nil)
			if err != nil || !ok {
				t.Fatal(err)
			}
			inv := &Inventory{place: place{git: &work}, Source: Source{Revision: c.head}}
			if got, err := inv.Standing(t.Context(), Node{}, c.revision); err != nil || got != c.want {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}
