package deploy_test

import (
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// settle puts ferry, nixpkgs and the project on the target itself, whose Nix may build, and gives a function that runs
// ferry there as a user, on a terminal.
func (s *site) settle(user, home string) (ferry func(args ...string) *person) {
	s.t.Helper()
	ctx := s.t.Context()
	s.onTarget("sh", "-c", "sed -i 's/^max-jobs = 0/max-jobs = 1/' /etc/nix/nix.conf && systemctl restart nix-daemon")
	if err := s.target.InstallClosure(ctx, s.builder, s.nixpkgs); err != nil {
		s.t.Fatal(err)
	}
	for from, to := range map[string]string{
		"/usr/local/bin/ferry":                      "/usr/local/bin/ferry",
		s.project + "/ferry.nix":                    home + "/project/ferry.nix",
		s.project + "/web/configuration.nix":        home + "/project/web/configuration.nix",
		filepath.Join(s.builder.Home(), "password"): home + "/password",
	} {
		s.upload(from, to)
	}
	s.onTarget("chown", "-R", user, home)
	return func(args ...string) *person {
		s.t.Helper()
		// runuser gives the command the terminal but not a login.
		argv := append([]string{"runuser", "-u", user, "--", "env", "HOME=" + home, "USER=" + user, "NIX_REMOTE=daemon",
			"sh", "-c", `cd "$HOME/project" && exec ferry "$@"`, "ferry"}, args...)
		return s.atTerminal(s.target.Command(ctx, argv...))
	}
}

// upload copies a file of the builder to the target.
func (s *site) upload(from, to string) {
	s.t.Helper()
	if err := s.target.WriteFile(s.t.Context(), to, []byte(s.must("cat", from)), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// TestAMachineDeploysItself has target = "local": no ssh, and sudo as over ssh.
func TestAMachineDeploysItself(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.inventory(s.node("local"))
	before := s.counts()
	ferry := s.settle("alice", "/home/alice")
	deploy := ferry("deploy")
	deploy.sees("web: password for sudo: ")
	deploy.types("not this one\n")
	deploy.sees("web: wrong password, try again: ")
	deploy.types(lab.Password + "\n")
	if shown := deploy.wants(0); strings.Contains(shown, lab.Password) || !strings.Contains(shown, "web: done: generation 2, ") {
		t.Error("it shows the password, or not that it is done")
	}
	if got, want := s.counts().minus(before), (counts{0, 1, 0}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	after := s.state()
	if after.greeting != "first" || after.boots != after.runs || after.profile != after.runs || after.bundle == "" {
		t.Errorf("the machine is left as %+v", after)
	}
	if shown := ferry("deploy", "--sudo-password-file", "/home/alice/password").wants(0); !strings.Contains(shown, "web: nothing to do: this machine has ") {
		t.Error("it does not say that there is nothing to do")
	}
	s.want(s.state(), after)

	s.onTarget("sh", "-c", `sed -i s/first/second/ /home/alice/project/web/configuration.nix`)
	plain := ferry("deploy", "--method", "plain")
	plain.sees("password for alice: ")
	plain.types(lab.Password + "\n")
	plain.wants(0)
	if got := s.state(); got.greeting != "second" || got.generation != "system-3-link" {
		t.Errorf("after the method plain the machine is left as %+v", got)
	}
}

// TestRootDeploysItsOwnMachine needs neither ssh nor sudo.
func TestRootDeploysItsOwnMachine(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.inventory(s.node("local"))
	before := s.counts()
	ferry := s.settle("root", "/root")
	ferry("deploy").wants(0)
	if got, want := s.counts().minus(before), (counts{0, 0, 0}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if after := s.state(); after.greeting != "first" || after.boots != after.runs || after.profile != after.runs || after.bundle == "" {
		t.Errorf("the machine is left as %+v", after)
	}
	hand := ferry("by-hand")
	if shown := hand.wants(0); !strings.Contains(shown, "\nsudo \"$bundle\"/nixos-rebuild-switch switch\n") {
		t.Errorf("by hand it is\n%s", shown)
	}
}
