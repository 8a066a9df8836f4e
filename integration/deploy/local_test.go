package deploy_test

import (
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// settle puts ferry, nixpkgs and the project on the target itself, whose Nix may build, and gives a function that runs
// ferry there as a user, on a terminal.
func settle(s *site.Site, user, home string) (ferry func(args ...string) *site.Person) {
	s.T.Helper()
	ctx := s.T.Context()
	s.OnTarget("sh", "-c", "sed -i 's/^max-jobs = 0/max-jobs = 1/' /etc/nix/nix.conf && systemctl restart nix-daemon")
	if err := s.Target.InstallClosure(ctx, s.Builder, s.Nixpkgs); err != nil {
		s.T.Fatal(err)
	}
	for from, to := range map[string]string{
		"/usr/local/bin/ferry":                      "/usr/local/bin/ferry",
		s.Project + "/ferry.nix":                    home + "/project/ferry.nix",
		s.Project + "/web/configuration.nix":        home + "/project/web/configuration.nix",
		filepath.Join(s.Builder.Home(), "password"): home + "/password",
	} {
		upload(s, from, to)
	}
	s.OnTarget("chown", "-R", user, home)
	return func(args ...string) *site.Person {
		s.T.Helper()
		// runuser gives the command the terminal but not a login.
		argv := append([]string{"runuser", "-u", user, "--", "env", "HOME=" + home, "USER=" + user, "NIX_REMOTE=daemon",
			"sh", "-c", `cd "$HOME/project" && exec ferry "$@"`, "ferry"}, args...)
		return s.AtTerminal(s.Target.Command(ctx, argv...))
	}
}

// upload copies a file of the builder to the target.
func upload(s *site.Site, from, to string) {
	s.T.Helper()
	if err := s.Target.WriteFile(s.T.Context(), to, []byte(s.Must("cat", from)), 0o755); err != nil {
		s.T.Fatal(err)
	}
}

// TestAMachineDeploysItself has target = "local": no ssh, and sudo as over ssh.
func TestAMachineDeploysItself(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Inventory(s.Node("local"))
	before := s.Counts()
	ferry := settle(s, "alice", "/home/alice")
	deploy := ferry("deploy", "--yes")
	deploy.Sees("web: password for sudo: ")
	deploy.Types("not this one\n")
	deploy.Sees("web: wrong password, try again: ")
	deploy.Types(lab.Password + "\n")
	if shown := deploy.Wants(0); strings.Contains(shown, lab.Password) || !strings.Contains(shown, "web: done: generation 2, ") {
		t.Error("it shows the password, or not that it is done")
	}
	if got, want := s.Counts().Minus(before), (site.Counts{Elevations: 1}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	after := s.State()
	if after.Greeting != "first" || after.Boots != after.Runs || after.Profile != after.Runs || after.Bundle == "" {
		t.Errorf("the machine is left as %+v", after)
	}
	if shown := ferry("deploy", "--yes", "--sudo-password-file", "/home/alice/password").Wants(0); !strings.Contains(shown, "web: nothing to do: this machine has ") {
		t.Error("it does not say that there is nothing to do")
	}
	s.Want(s.State(), after)

	s.OnTarget("sh", "-c", `sed -i s/first/second/ /home/alice/project/web/configuration.nix`)
	plain := ferry("deploy", "--yes", "--method", "plain")
	plain.Sees("password for alice: ")
	plain.Types(lab.Password + "\n")
	plain.Wants(0)
	if got := s.State(); got.Greeting != "second" || got.Generation != "system-3-link" {
		t.Errorf("after the method plain the machine is left as %+v", got)
	}
}

// TestRootDeploysItsOwnMachine needs neither ssh nor sudo.
func TestRootDeploysItsOwnMachine(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Inventory(s.Node("local"))
	before := s.Counts()
	ferry := settle(s, "root", "/root")
	ferry("deploy", "--yes").Wants(0)
	if got, want := s.Counts().Minus(before), (site.Counts{}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if after := s.State(); after.Greeting != "first" || after.Boots != after.Runs || after.Profile != after.Runs || after.Bundle == "" {
		t.Errorf("the machine is left as %+v", after)
	}
	hand := ferry("by-hand")
	if shown := hand.Wants(0); !strings.Contains(shown, "\nsudo \"$bundle\"/nixos-rebuild-switch switch\n") {
		t.Errorf("by hand it is\n%s", shown)
	}
}
