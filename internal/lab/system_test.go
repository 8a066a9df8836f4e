package lab

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAnInstalledSystemIsTheOneThatBoots(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]Options{
		"bookworm":        {},
		"trixie":          {Suite: "trixie"},
		"aarch64":         {System: "aarch64-linux"},
		"without systemd": {NoSystemd: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := NewBuilder(t, BuilderOptions{Aarch64: true})
			target := StartNixOS(t, b, opts)
			first := output(t, target, "readlink", "-f", systemProfile)
			for _, link := range []string{"/run/current-system", "/run/booted-system"} {
				if got := output(t, target, "readlink", "-f", link); got != first {
					t.Errorf("%s is %s, and the system profile %s", link, got, first)
				}
			}
			if !opts.NoSystemd {
				if got := output(t, target, "systemctl", "is-system-running"); got != "running" {
					t.Errorf("systemd says %s: %s", got, output(t, target, "systemctl", "--failed"))
				}
			}
		})
	}
}

func TestUpIsReachedByItsSSHConfiguration(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	relay := filepath.Join(t.TempDir(), "ferry-lab")
	// The test binary acts as ferry-lab; see TestMain.
	if err := os.WriteFile(relay, []byte("#!/bin/sh\n"+envRelay+"=\"$2\" exec '"+executable(t)+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	said, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Up(ctx, out, UpOptions{Options: Options{NoSystemd: true}, Bare: true, Relay: relay})
		out.Close()
	}()
	login := []string{}
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 4 && f[0] == "ssh" {
			login = f
		}
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			break
		}
	}
	if len(login) == 0 {
		t.Fatalf("it did not say how: %v", <-done)
	}
	got, err := exec.CommandContext(ctx, login[0], append(login[1:], "id", "-un")...).CombinedOutput()
	if err != nil || string(got) != "alice\n" {
		t.Errorf("%v: %q, %v", login, got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// executable is the path of this test binary.
func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
