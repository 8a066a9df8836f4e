package inventory

import (
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/run"
)

// TestLineageTellsWhereARevisionStands goes through a history with a branch, a dirty tree, and copies that have less of it.
func TestLineageTellsWhereARevisionStands(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"x": "1"})
	repository(t, dir)
	commit := func(dir, text string) string {
		t.Helper()
		write(t, dir, map[string]string{"x": text})
		git(t, dir, "commit", "--quiet", "--all", "--message="+text)
		return git(t, dir, "rev-parse", "HEAD")
	}
	first := git(t, dir, "rev-parse", "HEAD")
	git(t, dir, "checkout", "--quiet", "-b", "feature")
	feature := commit(dir, "feature")
	git(t, dir, "checkout", "--quiet", "-")
	second := commit(dir, "second")
	tree := git(t, dir, "rev-parse", "HEAD^{tree}")
	write(t, dir, map[string]string{"x": "dirty"})

	shallow := filepath.Join(t.TempDir(), "shallow")
	git(t, dir, "clone", "--quiet", "--depth=1", "file://"+dir, shallow)
	later := commit(shallow, "later")
	for name, c := range map[string]struct {
		dir, revision string
		want          Lineage
	}{
		"what is checked out":          {dir, second, Ancestor},
		"what it goes back to":         {dir, first, Ancestor},
		"shortened":                    {dir, first[:12], Ancestor},
		"another branch":               {dir, feature, Divergent},
		"someone else's":               {dir, strings.Repeat("1", 40), UnknownCommit},
		"newer, and not fetched":       {dir, later, UnknownCommit},
		"no commit":                    {dir, tree, UnknownCommit},
		"older than a shallow copy":    {shallow, first, Shallow},
		"in the history of a shallow":  {shallow, second, Ancestor},
		"someone else's, in a shallow": {shallow, feature, Shallow},
	} {
		t.Run(name, func(t *testing.T) {
			work, ok, err := findWorkTree(t.Context(), &run.Runner{}, c.dir, nil)
			if err != nil || !ok {
				t.Fatal(err)
			}
			inv := &Inventory{place: place{git: &work}, Source: Source{Revision: git(t, c.dir, "rev-parse", "HEAD")}}
			if got, err := inv.Lineage(t.Context(), c.revision); err != nil || got != c.want {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
		})
	}
}

// TestLineageOutsideOfGitIsNotComparable has nothing to compare with.
func TestLineageOutsideOfGitIsNotComparable(t *testing.T) {
	work := workTree{root: t.TempDir()}
	for name, inv := range map[string]*Inventory{"no git": {}, "no commit": {place: place{git: &work}}} {
		if got, err := inv.Lineage(t.Context(), strings.Repeat("1", 40)); err != nil || got != NotComparable {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

// TestLineageNeverHandsGitAnOption refuses what a target may have instead of a revision, and says when git is missing.
func TestLineageNeverHandsGitAnOption(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"x": "1"})
	repository(t, dir)
	work, _, err := findWorkTree(t.Context(), &run.Runner{}, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	inv := &Inventory{place: place{git: &work}, Source: Source{Revision: git(t, dir, "rev-parse", "HEAD")}}
	for _, revision := range []string{"--batch", "HEAD", "", "abc", "0123456 7", "0123456\n"} {
		if got, err := inv.Lineage(t.Context(), revision); err == nil {
			t.Errorf("%q: %s", revision, got)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if got, err := inv.Lineage(t.Context(), inv.Source.Revision); err == nil || !strings.Contains(err.Error(), "git is not installed") {
		t.Errorf("without git: %s, %v", got, err)
	}
}
