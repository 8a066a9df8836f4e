// Package site is the set-up of the tests on real machines: a building machine with ferry, a target, and what a test does and
// sees there.
package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/lab"
)

// Site is a person's set-up: a machine with ferry and a project on it, and a target that runs a first system.
type Site struct {
	T       *testing.T
	Builder *lab.Builder
	Target  *lab.Target
	Project string // the project's folder on the builder
	Nixpkgs string // in the builder's store
	// Password is a file of the builder with the password of the target's users. It is not in the project, whose source
	// goes to the store.
	Password string

	workshop *Workshop // the builder's
}

// Options say what a site is like; the zero value is bookworm on both ends and root building.
type Options struct {
	Builder lab.BuilderOptions
	Target  lab.Options
	Login   string // alice if empty
	Bare    bool   // the target runs no NixOS system yet
	// Alone gives the site a builder of its own: for a test that changes more there than its project.
	Alone bool
}

// Root is the checkout's root.
func Root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// New makes a site for a test; all of it is gone when the test ends, but for a builder that others use too.
func New(t *testing.T, o Options) *Site {
	t.Helper()
	w := WorkshopFor(t, o.Builder, o.Alone)
	s := &Site{T: t, Builder: w.Builder, Target: lab.StartTarget(t, o.Target), Nixpkgs: w.Nixpkgs, Password: w.password, workshop: w}
	s.Project = w.NewProject()
	if err := s.Builder.Know(s.Target); err != nil {
		t.Fatal(err)
	}
	login := o.Login
	if login == "" {
		login = "alice"
	}
	s.Inventory(s.Node(login + "@" + s.Target.Name()))
	s.Write("web/configuration.nix", Configuration("first"))
	if !o.Bare {
		if err := s.Target.InstallSystem(t.Context(), s.Builder, w.installed(t, s.Target.System())); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Another is the site with one more target in its place, which runs the same first system.
func (s *Site) Another(o lab.Options) *Site {
	s.T.Helper()
	another := *s
	another.Target = lab.StartTarget(s.T, o)
	if err := s.Builder.Know(another.Target); err != nil {
		s.T.Fatal(err)
	}
	if err := another.Target.InstallSystem(s.T.Context(), s.Builder, s.workshop.installed(s.T, another.Target.System())); err != nil {
		s.T.Fatal(err)
	}
	return &another
}

// Inventory writes the project's ferry.nix, of the node web with attributes.
func (s *Site) Inventory(attributes string) {
	s.T.Helper()
	s.Write("ferry.nix", fmt.Sprintf("{\n  nixpkgs = %q;\n  nodes.web = {\n%s  };\n}\n", s.Nixpkgs, attributes))
}

// Node is the attributes of an ordinary node that is reached at target, and more of them.
func (s *Site) Node(target string, more ...string) string {
	return fmt.Sprintf("    configuration = ./web/configuration.nix;\n    system = %q;\n    target = %q;\n%s",
		s.Target.System(), target, strings.Join(more, ""))
}

// Configuration is a NixOS configuration whose web page greets with a word.
func Configuration(greeting string) string {
	return fmt.Sprintf(`{ pkgs, ... }:
{
  networking.hostName = "web";
  services.openssh.enable = true;
  environment.etc."greeting".text = "%s";
  systemd.services.greeter = {
    description = "Say hello";
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000";
    environment.GREETING = "%s";
  };
}
`, greeting, greeting)
}

// With is a configuration with more in it.
func With(configuration, more string) string {
	return strings.Replace(configuration, "{\n", "{\n"+more+"\n", 1)
}

// Data is a part of a configuration: so many store paths of so many bytes each, which cannot be compressed. They are made
// anew for every name.
func Data(name string, paths, bytes int) string {
	var b strings.Builder
	for i := range paths {
		fmt.Fprintf(&b, `environment.etc."data/%d".source = derivation {
    name = "data-%s-%d"; system = "x86_64-linux"; builder = "/bin/sh";
    args = [ "-c" "/usr/bin/head -c %d /dev/urandom >$out" ];
  };
`, i, name, i, bytes)
	}
	return b.String()
}

// Write writes a file of the project; the source is not in git unless a test makes it so.
func (s *Site) Write(name, text string) {
	s.T.Helper()
	if err := s.Builder.WriteFile(filepath.Join(s.Project, name), []byte(text), 0o644); err != nil {
		s.T.Fatal(err)
	}
}

// In is the site in a part of the test.
func (s *Site) In(t *testing.T) *Site {
	part := *s
	part.T = t
	return &part
}

// Reboot restarts the target and waits until it is up again.
func (s *Site) Reboot() {
	s.T.Helper()
	boots := s.Target.Boots()
	s.OnTarget("systemctl", "reboot", "--no-block")
	if err := s.Target.WaitReboot(s.T.Context(), boots); err != nil {
		s.T.Fatal(err)
	}
}

// Must runs a command on the builder that has to work.
func (s *Site) Must(name string, args ...string) string {
	s.T.Helper()
	out, err := s.Builder.Output(s.T.Context(), name, args...)
	if err != nil {
		s.T.Fatal(err)
	}
	return string(out)
}

// OnTarget runs a command as root on the target that has to work, and gives its output without the last newline.
func (s *Site) OnTarget(argv ...string) string {
	s.T.Helper()
	out, err := s.Target.Output(s.T.Context(), argv...)
	if err != nil {
		s.T.Fatal(err)
	}
	return strings.TrimRight(string(out), "\n")
}

// Ferry runs ferry in the project.
func (s *Site) Ferry(args ...string) Outcome {
	s.T.Helper()
	return s.Run(s.Command(args...))
}

// Command is ferry in the project, with the password of alice at hand.
func (s *Site) Command(args ...string) *exec.Cmd {
	// A deployment that waits for ever fails its own test and not all that come after.
	ctx, cancel := context.WithTimeout(s.T.Context(), 4*time.Minute)
	s.T.Cleanup(cancel)
	return s.Builder.Command(ctx, "sh", append([]string{"-c", `cd "$0" && exec ferry "$@"`, s.Project}, args...)...)
}

// Run runs a command to its end.
func (s *Site) Run(cmd *exec.Cmd) Outcome {
	s.T.Helper()
	return s.begin(cmd)()
}

// begin starts a command; the function it returns waits for its end.
func (s *Site) begin(cmd *exec.Cmd) (ended func() Outcome) {
	s.T.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	if err := cmd.Start(); err != nil {
		s.T.Fatal(err)
	}
	var result *Outcome
	ended = func() Outcome {
		s.T.Helper()
		if result == nil {
			err := cmd.Wait()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				s.T.Fatal(err)
			}
			result = &Outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
			s.T.Logf("ferry: status %d after %v\n%s%s", result.Status, time.Since(start).Round(time.Millisecond), result.Errors, result.Out)
		}
		return *result
	}
	s.T.Cleanup(func() {
		if s.T.Failed() {
			// It has been killed by the end of the test's context, if nobody has waited for it.
			ended()
		}
	})
	return ended
}

// Background starts ferry; the function it returns waits for its end.
func (s *Site) Background(args ...string) (*exec.Cmd, func() Outcome) {
	s.T.Helper()
	cmd := s.Command(args...)
	return cmd, s.begin(cmd)
}

// Deploy deploys with alice's password and has to work.
func (s *Site) Deploy(args ...string) Outcome {
	s.T.Helper()
	o := s.Ferry(append([]string{"deploy", "--sudo-password-file", s.Password}, args...)...)
	if o.Status != 0 {
		s.T.Fatalf("ferry deploy: status %d", o.Status)
	}
	return o
}

// Until waits for something to become true.
func Until(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("in two minutes it did not happen: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
