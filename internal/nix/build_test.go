package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// instantiate makes the derivation of expression, in which d makes one from a name, a shell script and a list of others,
// and never one that was built before.
func instantiate(t *testing.T, expression string) StorePath {
	t.Helper()
	text := `let d = name: script: needs: derivation {
		inherit name needs; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" script ];
		salt = "` + strconv.FormatInt(time.Now().UnixNano(), 10) + `"; PATH = "` + os.Getenv("PATH") + `";
	}; in ` + expression
	p, err := ParseStorePath(strings.TrimSpace(string(output(t, "nix-instantiate", "-E", text))))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBuildMakesTheOutputARootAndTellsHowFarItIs(t *testing.T) {
	useRealNix(t)
	drv := instantiate(t, `d "top" "cat $needs; echo done > $out" [ (d "a" "echo first; echo a > $out" []) (d "b" "echo b > $out" []) ]`)
	root := filepath.Join(t.TempDir(), "some", "root")
	var states []BuildProgress
	c := new(Client)
	plan, err := c.Plan(t.Context(), drv)
	if err != nil || len(plan.Build) != 3 || plan.Build[2] != drv || len(plan.Fetch)+len(plan.Unknown) != 0 {
		t.Errorf("plan %+v, %v", plan, err)
	}
	if err := c.Build(t.Context(), drv, root, func(p BuildProgress) { states = append(states, p) }); err != nil {
		t.Fatal(err)
	}
	target, err := os.Readlink(root)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ParseStorePath(target)
	if err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(string(out)); err != nil || string(content) != "done\n" || out.Name() != "top" {
		t.Errorf("%s: %q, %v", out, content, err)
	}
	if roots := output(t, "nix-store", "--query", "--roots", string(out)); !strings.Contains(string(roots), root) {
		t.Errorf("roots: %s", roots)
	}
	ran, said := map[string]bool{}, map[string]string{}
	for _, s := range states {
		for _, name := range s.Running {
			ran[name] = true
		}
		if s.Line != "" {
			said[s.Line] = s.Builder
		}
	}
	last := states[len(states)-1]
	if last.Done != 3 || last.Expected != 3 || last.Failed != 0 || len(last.Running) != 0 {
		t.Errorf("in the end %+v", last)
	}
	if announced := last.Plan; !slices.Equal(announced.Build, plan.Build) || len(announced.Fetch) != 0 {
		t.Errorf("announced %+v", announced)
	}
	if !ran["top"] || !ran["a"] || !ran["b"] || said["first"] != "a" || said["b"] != "top" {
		t.Errorf("ran %v, said %v", ran, said)
	}
	states = nil
	if err := c.Build(t.Context(), drv, root, func(p BuildProgress) { states = append(states, p) }); err != nil {
		t.Errorf("again: %v", err)
	}
	for _, s := range states {
		if len(s.Running) > 0 {
			t.Errorf("built again: %+v", s)
		}
	}
}

func TestBuildErrorNamesWhatReallyFailed(t *testing.T) {
	useRealNix(t)
	drv := instantiate(t, `d "top" "" [ (d "mid" "" [ (d "bad" "for i in 1 2 3; do echo line $i; done; printf 'in colour \\033[31mred\\n'; exit 3" []) ]) ]`)
	root := filepath.Join(t.TempDir(), "root")
	err := new(Client).Build(t.Context(), drv, root, nil)
	var failed *BuildError
	if !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if len(failed.Derivations) != 1 {
		t.Fatalf("%+v", failed.Derivations)
	}
	d := failed.Derivations[0]
	if d.Drv.Name() != "bad.drv" || d.Reason != "failed with exit code 3" || strings.Join(d.LastLines, "|") != "line 1|line 2|line 3|in colour red" {
		t.Errorf("%+v", d)
	}
	if failed.LogCommand != "nix-store -l "+string(d.Drv) {
		t.Errorf("%s", failed.LogCommand)
	}
	if want := fmt.Sprintf("build %s: bad failed with exit code 3", drv); err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a root: %v", err)
	}
}

func TestBuildErrorNamesAllThatFailed(t *testing.T) {
	useRealNix(t)
	drv := instantiate(t, `d "top" "" [ (d "one" "echo 1; exit 1" []) (d "two" "echo 2; exit 2" []) ]`)
	c := Client{Options: Options{Settings: [][2]string{{"keep-going", "true"}}}}
	err := c.Build(t.Context(), drv, filepath.Join(t.TempDir(), "root"), nil)
	var failed *BuildError
	if !errors.As(err, &failed) || len(failed.Derivations) != 2 {
		t.Fatal(err)
	}
	if !strings.HasSuffix(err.Error(), ", and 1 more") {
		t.Error(err)
	}
}

func TestBuildErrorKeepsTheLast20Lines(t *testing.T) {
	useRealNix(t)
	drv := instantiate(t, `d "bad" "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; done; exit 1" []`)
	err := new(Client).Build(t.Context(), drv, filepath.Join(t.TempDir(), "root"), nil)
	var failed *BuildError
	if !errors.As(err, &failed) || len(failed.Derivations) != 1 {
		t.Fatal(err)
	}
	if l := failed.Derivations[0].LastLines; len(l) != 20 || l[0] != "line 81" || l[19] != "line 100" {
		t.Errorf("%q", l)
	}
}

func TestBuildForASystemNothingBuildsFor(t *testing.T) {
	useRealNix(t)
	drv := instantiate(t, `derivation { name = "other"; system = "aarch64-darwin"; builder = "/bin/sh"; }`)
	err := new(Client).Build(t.Context(), drv, filepath.Join(t.TempDir(), "root"), nil)
	var platform *PlatformError
	if !errors.As(err, &platform) || platform.System != "aarch64-darwin" {
		t.Errorf("%+v, %v", platform, err)
	}
}

func TestBuildEndsWithItsContextAndLeavesNothingRunning(t *testing.T) {
	useRealNix(t)
	seconds := strconv.Itoa(100_000 + os.Getpid())
	drv := instantiate(t, `d "endless" "echo started; sleep `+seconds+` & sleep `+seconds+`" []`)
	ctx, cancel := context.WithCancel(t.Context())
	err := new(Client).Build(ctx, drv, filepath.Join(t.TempDir(), "root"), func(p BuildProgress) {
		if p.Line == "started" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for running(t, "sleep\x00"+seconds) {
		if time.Now().After(deadline) {
			t.Fatal("the builder is still running")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// running tells whether there is a process whose command line contains s.
func running(t *testing.T, s string) bool {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range lines {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), s) {
			return true
		}
	}
	return false
}

func TestBuildInterruptedAtTheTerminalIsCancelled(t *testing.T) {
	useFakeNix(t, "", `@nix {"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m interrupted by the user"}`+"\n", 1)
	drv := StorePath("/nix/store/" + someHash + "-a.drv")
	if err := new(Client).Build(t.Context(), drv, filepath.Join(t.TempDir(), "root"), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBuildThatNixGivesUpShowsItsMessage(t *testing.T) {
	drv := StorePath("/nix/store/" + someHash + "-a.drv")
	for what, c := range map[string]struct{ stderr, want string }{
		"in JSON":     {`@nix {"action":"msg","level":0,"msg":"error: cannot connect to socket"}` + "\n", "cannot connect to socket"},
		"as text":     {"error: cannot connect to socket\n", "cannot connect to socket"},
		"not at all":  {`@nix {"action":"stop","id":1}` + "\n", "nix-store: exit status 1"},
		"other words": {"Segmentation fault\n", "nix-store: exit status 1"},
	} {
		useFakeNix(t, "", c.stderr, 1)
		err := new(Client).Build(t.Context(), drv, filepath.Join(t.TempDir(), "root"), nil)
		if err == nil || err.Error() != "build "+string(drv)+": "+c.want {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestBuildDoesNotNeedItsRootAfterwards builds with a nix-store whose root is gone by the time that it ends.
func TestBuildDoesNotNeedItsRootAfterwards(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	useFakeNix(t, root+"\n", "", 0)
	if err := new(Client).Build(t.Context(), StorePath("/nix/store/"+someHash+"-a.drv"), root, nil); err != nil {
		t.Error(err)
	}
}

func TestBuildWithSeveralOutputsIsRefused(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	useFakeNix(t, root+"\n"+root+"-dev\n", "", 0)
	drv := StorePath("/nix/store/" + someHash + "-a.drv")
	if err := new(Client).Build(t.Context(), drv, root, nil); err == nil {
		t.Error("not refused")
	}
}

func TestCanBuild(t *testing.T) {
	useRealNix(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	native := strings.TrimSpace(string(output(t, "nix-instantiate", "--eval", "-E", "builtins.currentSystem")))
	native = strings.Trim(native, `"`)
	foreign := filepath.Join(t.TempDir(), "foreign")
	// An ELF file for a processor that nobody has.
	header := append([]byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xad\xde\x01\x00\x00\x00"), make([]byte, 100)...)
	if err := os.WriteFile(foreign, header, 0o755); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		system, extra, probe, want string
	}{
		"native":                    {native, "", "/nonexistent", ""},
		"emulated":                  {"aarch64-linux", "aarch64-linux", self, ""},
		"not promised":              {"aarch64-linux", "i686-linux", self, "this machine builds for " + native + ", i686-linux"},
		"promised, but broken":      {"aarch64-linux", "aarch64-linux", foreign, "cannot be run (exec format error)"},
		"promised, probe is no use": {"aarch64-linux", "aarch64-linux", "/bin/false", "a test build for it fails"},
	} {
		t.Run(what, func(t *testing.T) {
			client := Client{Options: Options{Settings: [][2]string{{"extra-platforms", c.extra}}}}
			err := client.CanBuild(t.Context(), c.system, c.probe)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var platform *PlatformError
			if !errors.As(err, &platform) || platform.System != c.system || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestCanBuildRemembersASuccess(t *testing.T) {
	useRealNix(t)
	self, err := exec.LookPath(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	client := Client{Options: Options{Settings: [][2]string{{"extra-platforms", "aarch64-linux"}}}}
	if err := client.CanBuild(t.Context(), "aarch64-linux", self); err != nil {
		t.Fatal(err)
	}
	// With no builds allowed, only what is there already can be realised. max-jobs is part of what is remembered.
	settings, err := client.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := settings
	other.ExtraPlatforms = nil
	if again, err := client.Settings(t.Context()); err != nil || settings.salt() != again.salt() || settings.salt() == other.salt() {
		t.Error("the salt does not stand for the settings")
	}
	client.Options.MaxJobs = "0"
	if err := client.buildProbe(t.Context(), "aarch64-linux", self, settings); err != nil {
		t.Errorf("built again: %v", err)
	}
	if err := client.buildProbe(t.Context(), "aarch64-linux", self, other); err == nil {
		t.Error("not built again, though the settings have changed")
	}
	t.Setenv("PATH", "")
	if err := client.CanBuild(t.Context(), "aarch64-linux", self); err != nil {
		t.Errorf("asked again: %v", err)
	}
}
