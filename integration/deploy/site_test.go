package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/lab"
)

// site is a person's set-up: a machine with ferry and a project on it, and a target that runs a first system.
type site struct {
	t       *testing.T
	builder *lab.Builder
	target  *lab.Target
	project string // the project's folder on the builder
	nixpkgs string // in the builder's store
	// password is a file of the builder with the password of the target's users. It is not in the project, whose source
	// goes to the store.
	password string
}

// siteOptions say what a site is like; the zero value is bookworm on both ends and root building.
type siteOptions struct {
	builder lab.BuilderOptions
	target  lab.Options
	login   string // alice if empty
	bare    bool   // the target runs no NixOS system yet
	// alone gives the site a builder of its own: for a test that changes more there than its project.
	alone bool
}

// root is the checkout's root.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func newSite(t *testing.T, o siteOptions) *site {
	t.Helper()
	w := workshopFor(t, o.builder, o.alone)
	s := &site{t: t, builder: w.builder, target: lab.StartTarget(t, o.target), nixpkgs: w.nixpkgs, password: w.password}
	s.project = w.newProject()
	if err := s.builder.Know(s.target); err != nil {
		t.Fatal(err)
	}
	login := o.login
	if login == "" {
		login = "alice"
	}
	s.inventory(s.node(login + "@" + s.target.Name()))
	s.write("web/configuration.nix", configuration("first"))
	if !o.bare {
		if err := s.target.InstallSystem(t.Context(), s.builder, w.installed(t, s.target.System())); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// inventory writes the project's ferry.nix, of the node web with attributes.
func (s *site) inventory(attributes string) {
	s.t.Helper()
	s.write("ferry.nix", fmt.Sprintf("{\n  nixpkgs = %q;\n  nodes.web = {\n%s  };\n}\n", s.nixpkgs, attributes))
}

// node is the attributes of an ordinary node that is reached at target, and more of them.
func (s *site) node(target string, more ...string) string {
	return fmt.Sprintf("    configuration = ./web/configuration.nix;\n    system = %q;\n    target = %q;\n%s",
		s.target.System(), target, strings.Join(more, ""))
}

// configuration is a NixOS configuration whose web page greets with a word.
func configuration(greeting string) string {
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

// write writes a file of the project; the source is not in git unless a test makes it so.
func (s *site) write(name, text string) {
	s.t.Helper()
	if err := s.builder.WriteFile(filepath.Join(s.project, name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// in is the site in a part of the test.
func (s *site) in(t *testing.T) *site {
	part := *s
	part.t = t
	return &part
}

// reboot restarts the target and waits until it is up again.
func (s *site) reboot() {
	s.t.Helper()
	boots := s.target.Boots()
	s.onTarget("systemctl", "reboot", "--no-block")
	if err := s.target.WaitReboot(s.t.Context(), boots); err != nil {
		s.t.Fatal(err)
	}
}

// must runs a command on the builder that has to work.
func (s *site) must(name string, args ...string) string {
	s.t.Helper()
	out, err := s.builder.Output(s.t.Context(), name, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(out)
}

// onTarget runs a command as root on the target that has to work, and gives its output without the last newline.
func (s *site) onTarget(argv ...string) string {
	s.t.Helper()
	out, err := s.target.Output(s.t.Context(), argv...)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimRight(string(out), "\n")
}

// outcome is how a ferry command ended.
type outcome struct {
	status      int
	out, errors string
}

// ferry runs ferry in the project.
func (s *site) ferry(args ...string) outcome {
	s.t.Helper()
	return s.run(s.command(args...))
}

// command is ferry in the project, with the password of alice at hand.
func (s *site) command(args ...string) *exec.Cmd {
	// A deployment that waits for ever fails its own test and not all that come after.
	ctx, cancel := context.WithTimeout(s.t.Context(), 4*time.Minute)
	s.t.Cleanup(cancel)
	return s.commandContext(ctx, args...)
}

func (s *site) commandContext(ctx context.Context, args ...string) *exec.Cmd {
	cmd := s.builder.Command(ctx, "sh", append([]string{"-c", `cd "$0" && exec ferry "$@"`, s.project}, args...)...)
	return cmd
}

func (s *site) run(cmd *exec.Cmd) outcome {
	s.t.Helper()
	return s.begin(cmd)()
}

// begin starts a command; the function it returns waits for its end.
func (s *site) begin(cmd *exec.Cmd) (ended func() outcome) {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var result *outcome
	ended = func() outcome {
		s.t.Helper()
		if result == nil {
			err := cmd.Wait()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				s.t.Fatal(err)
			}
			result = &outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
			s.t.Logf("ferry: status %d after %v\n%s%s", result.status, time.Since(start).Round(time.Millisecond), result.errors, result.out)
		}
		return *result
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			// It has been killed by the end of the test's context, if nobody has waited for it.
			ended()
		}
	})
	return ended
}

// deploy deploys with alice's password and has to work.
func (s *site) deploy(args ...string) outcome {
	s.t.Helper()
	o := s.ferry(append([]string{"deploy", "--sudo-password-file", s.password}, args...)...)
	if o.status != 0 {
		s.t.Fatalf("ferry deploy: status %d", o.status)
	}
	return o
}

// TestWhatMakeBuildsIsThere says once what is missing, instead of failing everywhere.
func TestWhatMakeBuildsIsThere(t *testing.T) {
	if _, err := os.Stat(filepath.Join(root(t), "bin/ferry")); err != nil {
		t.Fatalf("%v: run make build", err)
	}
}
