package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// together is a client whose builds are asked for side by side. Its folder has what its nix-stores were called with, the files
// that builders wait for, and the roots.
type together struct {
	*testing.T
	*Client
	dir   string
	group sync.WaitGroup
	mu    sync.Mutex
	last  map[string]BuildProgress
	lines map[string][]string
	errs  map[string]error
}

// newTogether puts a nix-store in PATH that writes its arguments down.
func newTogether(t *testing.T) *together {
	t.Helper()
	useRealNix(t)
	g := &together{
		T: t, Client: new(Client), dir: t.TempDir(),
		last: map[string]BuildProgress{}, lines: map[string][]string{}, errs: map[string]error{},
	}
	g.builds.one = true
	real, err := exec.LookPath("nix-store")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%s/log\nexec %s \"$@\"\n", g.dir, real)
	if err := os.WriteFile(filepath.Join(bin, "nix-store"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return g
}

func (g *together) root(name string) string { return filepath.Join(g.dir, "roots", name) }

// ask asks for the build of drv and goes on; name says which it is.
func (g *together) ask(ctx context.Context, name string, drv StorePath) {
	g.Helper()
	out, err := ParseStorePath(strings.TrimSpace(string(output(g.T, "nix-store", "--query", "--outputs", string(drv)))))
	if err != nil {
		g.Fatal(err)
	}
	g.group.Go(func() {
		err := g.BuildTogether(ctx, drv, out, g.root(name), func(p BuildProgress) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.last[name] = p
			if p.Line != "" {
				g.lines[name] = append(g.lines[name], p.Line)
			}
		})
		g.mu.Lock()
		defer g.mu.Unlock()
		g.errs[name] = err
	})
}

// until waits for what does not take long as a rule.
func (g *together) until(what string, is func() bool) {
	g.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			g.Fatal("it never came to this: " + what)
		}
	}
}

func (g *together) waiting(n int) {
	g.Helper()
	g.until(fmt.Sprintf("%d wait", n), func() bool {
		g.builds.mu.Lock()
		defer g.builds.mu.Unlock()
		return len(g.builds.waiting) == n
	})
}

func (g *together) has(name, line string) {
	g.Helper()
	g.until(name+" says "+line, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return slices.Contains(g.lines[name], line)
	})
}

// ends waits for the end of one that was asked for, and gives its error.
func (g *together) ends(name string) (err error) {
	g.Helper()
	g.until(name+" ends", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		e, found := g.errs[name]
		err = e
		return found
	})
	return err
}

// held is the script of a builder that waits for the file that let makes.
func (g *together) held(flag string) string {
	return fmt.Sprintf("echo %s runs; while [ ! -e %s/%s ]; do sleep 0.1; done; echo > $out", flag, g.dir, flag)
}

func (g *together) let(flag string) {
	g.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, flag), nil, 0o644); err != nil {
		g.Fatal(err)
	}
}

// builders are the arguments of the nix-stores so far that build.
func (g *together) builders() []string {
	g.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, "log"))
	if err != nil {
		g.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(l string) bool {
		return !strings.Contains(l, "--realise")
	})
}

// drvs makes the derivations of expressions, by their names. shared is what all of the expressions may use.
func (g *together) drvs(shared string, scripts map[string]string) map[string]StorePath {
	g.Helper()
	drvs := map[string]StorePath{}
	salt := "salt = " + fmt.Sprint(time.Now().UnixNano()) + "; "
	for name, expression := range scripts {
		text := `let ` + salt + `d = name: script: needs: derivation { inherit name needs salt; system = builtins.currentSystem; builder = "/bin/sh";
			args = [ "-c" script ]; PATH = "` + os.Getenv("PATH") + `"; }; ` + shared + ` in ` + expression
		drv, err := ParseStorePath(strings.TrimSpace(string(output(g.T, "nix-instantiate", "-E", text))))
		if err != nil {
			g.Fatal(err)
		}
		drvs[name] = drv
	}
	return drvs
}

// TestBuildsThatWaitGoTogether locks who is built by which nix-store, and that a failure is that of those who need what failed.
func TestBuildsThatWaitGoTogether(t *testing.T) {
	g := newTogether(t)
	drvs := g.drvs(`bad = d "bad" "for i in 1 2 3; do echo bad $i; done; exit 3" [];`, map[string]string{
		"first": `d "first" "` + g.held("one") + `" []`,
		"a":     `d "a" "echo > $out" [ bad ]`,
		"b":     `d "b" "echo > $out" [ (d "mid" "echo > $out" [ bad ]) ]`,
		"c":     `d "c" "echo > $out" [ (d "below" "echo below c; echo > $out" []) ]`,
	})
	g.ask(t.Context(), "first", drvs["first"])
	g.has("first", "one runs")
	for i, name := range []string{"a", "b", "c"} {
		g.ask(t.Context(), name, drvs[name])
		g.waiting(i + 1)
	}
	g.let("one")
	g.group.Wait()
	for _, name := range []string{"a", "b"} {
		var failed *BuildError
		if err := g.errs[name]; !errors.As(err, &failed) || len(failed.Derivations) != 1 {
			t.Fatalf("%s: %v", name, err)
		}
		if want := fmt.Sprintf("build %s: bad failed with exit code 3", drvs[name]); g.errs[name].Error() != want {
			t.Errorf("got %q, want %q", g.errs[name], want)
		}
		if lines := strings.Join(failed.Output(), "|"); lines != "bad 1|bad 2|bad 3" || !strings.HasSuffix(failed.LogCommand, "-bad.drv") {
			t.Errorf("%s: %q, %s", name, lines, failed.LogCommand)
		}
		if _, err := os.Lstat(g.root(name)); err == nil {
			t.Errorf("there is a root for %s", name)
		}
	}
	for _, name := range []string{"first", "c"} {
		if out, err := os.Readlink(g.root(name)); g.errs[name] != nil || err != nil || !strings.HasSuffix(out, "-"+name) {
			t.Errorf("%s: %v, root %s, %v", name, g.errs[name], out, err)
		}
	}
	if p := g.last["c"]; len(p.Plan.Build) != 2 || p.Done != 2 || p.Expected != 2 || p.Failed != 0 {
		t.Errorf("c came to %+v", p)
	}
	if lines := strings.Join(g.lines["c"], "|"); lines != "below c" {
		t.Errorf("c was told %q", lines)
	}
	want := []string{
		fmt.Sprintf("--realise %s --add-root %s --indirect --log-format internal-json", drvs["first"], g.root("first")),
		fmt.Sprintf("--realise %s %s %s --keep-going --no-gc-warning --log-format internal-json", drvs["a"], drvs["b"], drvs["c"]),
		fmt.Sprintf("--realise %s --add-root %s --indirect --log-format internal-json", drvs["c"], g.root("c")),
	}
	if got := g.builders(); !slices.Equal(got, want) {
		t.Errorf("builders:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestWhoeverIsBuiltOrHasFailedOrLeftDoesNotWaitForTheOthers has a build of four, of which one takes longer.
func TestWhoeverIsBuiltOrHasFailedOrLeftDoesNotWaitForTheOthers(t *testing.T) {
	g := newTogether(t)
	g.Options.MaxJobs = "4"
	drvs := g.drvs("", map[string]string{
		"first": `d "first" "` + g.held("one") + `" []`,
		"long":  `d "long" "` + g.held("two") + `" []`,
		"quick": `d "quick" "echo > $out" []`,
		"bad":   `d "top" "" [ (d "bad" "echo why; exit 1" []) ]`,
		"left":  `d "left" "echo > $out" [ (d "slow" "` + g.held("two") + `" []) ]`,
	})
	g.ask(t.Context(), "first", drvs["first"])
	g.has("first", "one runs")
	leaving, leave := context.WithCancel(t.Context())
	defer leave()
	for i, name := range []string{"long", "quick", "bad", "left"} {
		ctx := t.Context()
		if name == "left" {
			ctx = leaving
		}
		g.ask(ctx, name, drvs[name])
		g.waiting(i + 1)
	}
	g.let("one")
	g.has("long", "two runs")
	if err := g.ends("quick"); err != nil {
		t.Error(err)
	}
	var failed *BuildError
	if err := g.ends("bad"); !errors.As(err, &failed) || strings.Join(failed.Output(), "|") != "why" {
		t.Errorf("%v", err)
	}
	g.has("left", "two runs")
	leave()
	if err := g.ends("left"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	g.mu.Lock()
	_, over := g.errs["long"]
	g.mu.Unlock()
	if over {
		t.Error("the long one has ended with the others")
	}
	g.let("two")
	if err := g.ends("long"); err != nil {
		t.Error(err)
	}
}

// TestABuildThatNobodyWaitsForEnds has a build of two that both are given up, and one that waits for it.
func TestABuildThatNobodyWaitsForEnds(t *testing.T) {
	g := newTogether(t)
	g.Options.MaxJobs = "4"
	drvs := g.drvs("", map[string]string{
		"first": `d "first" "` + g.held("one") + `" []`,
		"a":     `d "a" "` + g.held("never") + `" []`,
		"b":     `d "b" "` + g.held("never") + `" []`,
		"next":  `d "next" "echo > $out" []`,
	})
	g.ask(t.Context(), "first", drvs["first"])
	g.has("first", "one runs")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g.ask(ctx, "a", drvs["a"])
	g.ask(ctx, "b", drvs["b"])
	g.waiting(2)
	gone, goAway := context.WithCancel(t.Context())
	g.ask(gone, "gone", drvs["next"])
	g.waiting(3)
	goAway()
	if err := g.ends("gone"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	g.let("one")
	g.has("a", "never runs")
	g.has("b", "never runs")
	g.ask(t.Context(), "next", drvs["next"])
	g.waiting(1)
	cancel()
	for _, name := range []string{"a", "b"} {
		if err := g.ends(name); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if err := g.ends("next"); err != nil {
		t.Error(err)
	}
	g.until("no builder is left", func() bool { return !running(t, g.dir+"/never") })
}

// TestWhatIsNoDerivationsFaultIsFoundOutAlone has a build that Nix refuses as a whole, for one of two.
func TestWhatIsNoDerivationsFaultIsFoundOutAlone(t *testing.T) {
	g := newTogether(t)
	drvs := g.drvs("", map[string]string{
		"first": `d "first" "` + g.held("one") + `" []`,
		"good":  `d "good" "echo > $out" []`,
		"lost":  `d "lost" "echo > $out" []`,
		"other": `derivation { name = "other"; system = "aarch64-darwin"; builder = "/bin/sh"; }`,
	})
	g.ask(t.Context(), "first", drvs["first"])
	g.has("first", "one runs")
	for i, name := range []string{"good", "lost", "other"} {
		g.ask(t.Context(), name, drvs[name])
		g.waiting(i + 1)
	}
	g.Release()
	output(t, "nix-store", "--delete", string(drvs["lost"]))
	g.let("one")
	g.group.Wait()
	if err := g.errs["good"]; err != nil {
		t.Error(err)
	}
	if err := g.errs["lost"]; err == nil || !strings.Contains(err.Error(), string(drvs["lost"])) {
		t.Error(err)
	}
	var platform *PlatformError
	if err := g.errs["other"]; !errors.As(err, &platform) || platform.System != "aarch64-darwin" {
		t.Error(err)
	}
}
