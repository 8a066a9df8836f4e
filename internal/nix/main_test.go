package nix

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestMain lets the test binary also be a nix command that says what a test wants, and the probe of CanBuild.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "build-probe" {
		if err := os.WriteFile(os.Getenv("out"), nil, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if name := filepath.Base(os.Args[0]); name == "nix-store" || name == "nix-instantiate" {
		fmt.Fprint(os.Stdout, os.Getenv("FAKE_STDOUT"))
		fmt.Fprint(os.Stderr, os.Getenv("FAKE_STDERR"))
		status, err := strconv.Atoi(os.Getenv("FAKE_STATUS"))
		if err != nil {
			status = 99
		}
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// useFakeNix puts a nix-store and a nix-instantiate in PATH, and nothing else, that write stdout and stderr and end with
// status.
func useFakeNix(t *testing.T, stdout, stderr string, status int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"nix-store", "nix-instantiate"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // or a test binary built with -race waits a second before it exits
	t.Setenv("FAKE_STDOUT", stdout)
	t.Setenv("FAKE_STDERR", stderr)
	t.Setenv("FAKE_STATUS", strconv.Itoa(status))
}
