// Package nixos_test proves that systems of the stand-in nixpkgs switch as NixOS's do, on machines that run them: the other
// tests on real machines rely on it.
package nixos_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"ferry/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// host is a target and the builder of its systems.
type host struct {
	*lab.Target
	builder *lab.Builder
	rules   string // whose ways switch-to-configuration has
	built   int
}

// newHost starts a target that has been switched from plain Debian to a system with nothing in it but sshd.
func newHost(t *testing.T, options lab.Options) *host {
	t.Helper()
	return newHostOf(t, options, "2026")
}

// newHostOf is newHost for systems that switch by other rules. Those of 2026 look at users' service managers, which may end at any
// moment where users log in and out.
func newHostOf(t *testing.T, options lab.Options, rules string) *host {
	t.Helper()
	h := &host{builder: lab.NewBuilder(t, lab.BuilderOptions{Suite: options.Suite, Aarch64: true}), rules: rules}
	h.Target = lab.StartTarget(t, options)
	h.switchTo(t, h.build(t, ""), "test").expect(t, 0)
	return h
}

// build makes the system that has sshd and what text configures, and returns its toplevel.
func (h *host) build(t *testing.T, text string) string {
	t.Helper()
	h.built++
	name := fmt.Sprintf("/root/%d.nix", h.built)
	if !strings.Contains(text, "system.switch.rules") {
		text = fmt.Sprintf("system.switch.rules = %q;\n", h.rules) + text
	}
	text = "{ config, lib, pkgs, ... }: { services.openssh.enable = lib.mkDefault true;\n" + text + "\n}\n"
	if err := h.builder.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := h.builder.Output(t.Context(), "nix-build", "--no-out-link", lab.NixpkgsPath+"/nixos", "-A", "system",
		"--arg", "configuration", name, "--argstr", "system", h.System())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// result is how a command on the target ended.
type result struct {
	status int
	stdout string
	stderr string
}

func (h *host) try(t *testing.T, argv ...string) result {
	t.Helper()
	cmd := h.Command(t.Context(), argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", argv, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// out is what a command says that must not fail.
func (h *host) out(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := h.Output(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// switchTo copies a system to the target and runs its switch-to-configuration, with variables NAME=VALUE in its environment.
func (h *host) switchTo(t *testing.T, toplevel, action string, environment ...string) result {
	t.Helper()
	if err := h.InstallClosure(t.Context(), h.builder, toplevel); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{"env", "-i"}, environment...)
	return h.try(t, append(argv, toplevel+"/bin/switch-to-configuration", action)...)
}

// expect checks a result: its status, and that stderr has each text once.
func (r result) expect(t *testing.T, status int, texts ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d", r.status, status)
	}
	for _, text := range texts {
		if strings.Count(r.stderr, text) != 1 {
			t.Errorf("stderr lacks %q or has it twice", text)
		}
	}
	if t.Failed() {
		t.Logf("stdout: %s\nstderr: %s", r.stdout, r.stderr)
	}
}

func (h *host) expectActive(t *testing.T, unit, want string) {
	t.Helper()
	if got := strings.TrimSpace(h.try(t, "systemctl", "is-active", unit).stdout); got != want {
		t.Errorf("%s is %s, want %s", unit, got, want)
	}
}

// forever is a service that runs until it is stopped.
func forever(name, more string) string {
	return fmt.Sprintf(`systemd.services.%s = { wantedBy = [ "multi-user.target" ]; script = "exec sleep 100000";
		reload = "true"; %s };`, name, more)
}
