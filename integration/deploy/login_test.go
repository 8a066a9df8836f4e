package deploy_test

import (
	"strings"
	"testing"

	"ferry/internal/lab"
)

// TestADeploymentLogsInOnceAndElevatesOnce counts in the target's own logs, and on the wire.
func TestADeploymentLogsInOnceAndElevatesOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	since := s.watched("alice")
	for _, step := range []struct{ what, configuration, says string }{
		{"the first one, which installs the agent", configuration("first"), "done: generation 2"},
		{"one that changes the system", configuration("second"), "done: generation 3"},
		{"one with nothing to do", configuration("second"), "nothing to do"},
		{"one that moves only the configuration", configuration("second") + "# edited\n", "new configuration kept"},
	} {
		s.write("web/configuration.nix", step.configuration)
		s.deploy().says(t, step.says)
		if got, want := since(), (counts{1, 1, 1}); got != want {
			t.Errorf("%s: %v, want %v", step.what, got, want)
		}
	}
}

// TestWhoDeploysAndHowRootIsHad goes through the users of a target: how they become root, with or without a password, and
// what their login shell is.
func TestWhoDeploysAndHowRootIsHad(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	password := []string{"--sudo-password-file", s.password}
	for _, who := range []struct {
		name, login, elevate string
		flags                []string
		elevations           int
	}{
		{"in group sudo, with a password", "alice", "", password, 1},
		{"sudo without a password", "bob", "", nil, 1},
		{"root's own login", "root", "", nil, 0},
		{"zsh as login shell", "zoe", "", password, 1},
		{"fish as login shell", "finn", "", password, 1},
		{"doas", "dora", `"doas"`, nil, 1},
		{"doas with arguments", "dora", `[ "doas" "-u" "root" "--" ]`, nil, 1},
		{"sudo with arguments", "alice", `[ "/usr/bin/sudo" "-u" "root" "-H" ]`, password, 1},
		{"another program that calls sudo", "bob", `[ "env" "A=it's $HOME" "sudo" ]`, nil, 1},
	} {
		s.t.Run(who.name, func(t *testing.T) {
			s := s.in(t)
			attribute := ""
			if who.elevate != "" {
				attribute = "    elevate = " + strings.ReplaceAll(who.elevate, "$", `\$`) + ";\n"
			}
			s.inventory(s.node(who.login+"@"+s.target.Name(), attribute))
			s.write("web/configuration.nix", configuration(who.name))
			before := s.counts()
			if o := s.ferry(append([]string{"deploy"}, who.flags...)...); o.status != 0 {
				t.Fatalf("status %d", o.status)
			}
			if got, want := s.counts().minus(before), (counts{1, who.elevations, 0}); got != want {
				t.Errorf("%v, want %v", got, want)
			}
			if got := s.state(); got.greeting != who.name || got.boots != got.runs {
				t.Errorf("the target is left as %+v", got)
			}
		})
	}
}

// askAsAlice asks the target's Nix daemon a question as a plain user.
var askAsAlice = []string{"runuser", "-u", "alice", "--", "env", "NIX_REMOTE=daemon", "nix-store", "--query", "--hash", "/run/current-system"}

// TestAUserWhoIsNobodyToNixDeploys has a target where group sudo may not even talk to the Nix daemon.
func TestAUserWhoIsNobodyToNixDeploys(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{target: lab.Options{DebianDaemon: true}})
	if s.target.Command(t.Context(), askAsAlice...).Run() == nil {
		t.Error("alice may talk to the Nix daemon")
	}
	s.deploy()
	if got := s.state(); got.greeting != "first" || got.boots != got.runs {
		t.Errorf("the target is left as %+v", got)
	}
}

// TestAUserWhomNixDoesNotTrustDeploys shows that what ferry does is more than the user may do through the Nix daemon.
func TestAUserWhomNixDoesNotTrustDeploys(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.onTarget(askAsAlice...)
	toplevel := s.toplevel(s.bundle())
	if _, err := s.builder.Output(t.Context(), "nix-copy-closure", "--to", "alice@"+s.target.Name(), toplevel); err == nil {
		t.Error("the target's Nix trusts alice")
	} else if !strings.Contains(err.Error(), "signature") {
		t.Error(err)
	}
	s.deploy()
}
