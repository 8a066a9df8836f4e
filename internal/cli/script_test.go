package cli

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary also be ferry, for the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ferry": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(Main(ctx, Env{Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: time.Now}))
	}})
}

// scriptPin is a small nixpkgs in the store.
var scriptPin = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../inventory/testdata/nixpkgs")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("nix-store", "--add", dir).Output()
	return strings.TrimSpace(string(out)), err
})

// TestScripts runs testdata/script: what a person types, what is answered, and the exit status, which is checked with
// `status N ferry …`. NIXPKGS is a pin that is in the store; `pin FILE` writes it into a file in place of PIN.
// NIXPKGS_FLAKE is a folder with a nixpkgs that is a flake.
func TestScripts(t *testing.T) {
	pin, err := scriptPin()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// The script's folder is the source: what ferry writes elsewhere must not get into it.
			outside, err := os.MkdirTemp("", "ferry-script-")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(outside) })
			home := filepath.Join(outside, "home")
			env.Setenv("TMPDIR", outside)
			env.Setenv("NIXPKGS", pin)
			flake, err := filepath.Abs("../flake/testdata/nixpkgs")
			if err != nil {
				return err
			}
			env.Setenv("NIXPKGS_FLAKE", flake)
			// Testscript puts ferry in a folder of its own, in front of PATH.
			env.Setenv("FERRY_ALONE", filepath.SplitList(env.Getenv("PATH"))[0])
			env.Setenv("HOME", home)
			if conf := os.Getenv("NIX_CONF_DIR"); conf != "" {
				env.Setenv("NIX_CONF_DIR", conf)
			}
			env.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, ".gitconfig"))
			if err := os.MkdirAll(home, 0o755); err != nil {
				return err
			}
			identity := "[user]\nname = a\nemail = a@example.org\n[init]\ndefaultBranch = main\n"
			return os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(identity), 0o644)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": statusCommand, "pin": pinCommand},
	})
}

// statusCommand runs a program, without a terminal, that has to end with a status: status N program [args…]. What it writes
// is for stdout and stderr as after exec.
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program [args...]")
	}
	setsid, err := exec.LookPath("setsid")
	ts.Check(err)
	got := "0"
	if err := ts.Exec(setsid, append([]string{"--wait"}, args[1:]...)...); err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("the status is %s, want %s", got, args[0])
	}
}

// pinCommand writes the pin into a file: pin FILE.
func pinCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: pin FILE")
	}
	text := strings.ReplaceAll(ts.ReadFile(args[0]), "PIN", ts.Getenv("NIXPKGS"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}
