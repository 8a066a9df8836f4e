package deploy_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestADeploymentElevatesOnceAndLogsInAgainOnlyToConfirm counts in the target's own logs, and on the wire.
func TestADeploymentElevatesOnceAndLogsInAgainOnlyToConfirm(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	since := s.Watched("alice")
	once, confirmed := site.Counts{Logins: 1, Elevations: 1, Connections: 1}, site.Counts{Logins: 3, Elevations: 1, Connections: 3}
	for _, step := range []struct {
		what, configuration, action, says string
		want                              site.Counts
	}{
		{"the first one, which installs the agent", site.Configuration("first"), "switch", "done: generation 2", confirmed},
		{"one that changes the system", site.Configuration("second"), "switch", "done: generation 3", confirmed},
		{"one with nothing to do", site.Configuration("second"), "switch", "nothing to do", once},
		{"one that moves only the configuration", site.Configuration("second") + "# edited\n", "switch", "new configuration kept", once},
		{"one for the next boot", site.Configuration("third"), "boot", "done: generation 4", once},
		{"one until the next boot", site.Configuration("fourth"), "test", "until the next boot", confirmed},
	} {
		s.Write("web/configuration.nix", step.configuration)
		s.Deploy("--action", step.action).Says(t, step.says)
		if got := since(); got != step.want {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
	}
}

// TestWhoDeploysAndHowRootIsHad goes through the users of a target: how they become root, with or without a password, and
// what their login shell is.
func TestWhoDeploysAndHowRootIsHad(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	password := []string{"--sudo-password-file", s.Password}
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
		{"doas with a password", "dave", `[ "doas" "-u" "root" "--" ]`, password, 1},
		{"another program that calls sudo and asks", "alice", `[ "env" "A=it's $HOME" "sudo" ]`, password, 1},
		{"another program that calls sudo", "bob", `[ "env" "A=it's $HOME" "sudo" ]`, nil, 1},
	} {
		s.T.Run(who.name, func(t *testing.T) {
			s := s.In(t)
			attribute := ""
			if who.elevate != "" {
				attribute = "    elevate = " + strings.ReplaceAll(who.elevate, "$", `\$`) + ";\n"
			}
			s.Inventory(s.Node(who.login+"@"+s.Target.Name(), attribute))
			s.Write("web/configuration.nix", site.Configuration(who.name))
			before := s.Counts()
			if o := s.Ferry(append([]string{"deploy"}, who.flags...)...); o.Status != 0 {
				t.Fatalf("status %d", o.Status)
			}
			if got, want := s.Counts().Minus(before), (site.Counts{Logins: 3, Elevations: who.elevations}); got != want {
				t.Errorf("%v, want %v", got, want)
			}
			if got := s.State(); got.Greeting != who.name || got.Boots != got.Runs {
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
	s := site.New(t, site.Options{Target: lab.Options{DebianDaemon: true}})
	if s.Target.Command(t.Context(), askAsAlice...).Run() == nil {
		t.Error("alice may talk to the Nix daemon")
	}
	s.Deploy()
	if got := s.State(); got.Greeting != "first" || got.Boots != got.Runs {
		t.Errorf("the target is left as %+v", got)
	}
}

// TestAUserWhomNixDoesNotTrustDeploys shows that what ferry does is more than the user may do through the Nix daemon.
func TestAUserWhomNixDoesNotTrustDeploys(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.OnTarget(askAsAlice...)
	toplevel := s.Toplevel(s.Bundle())
	if _, err := s.Builder.Output(t.Context(), "nix-copy-closure", "--to", "alice@"+s.Target.Name(), toplevel); err == nil {
		t.Error("the target's Nix trusts alice")
	} else if !strings.Contains(err.Error(), "signature") {
		t.Error(err)
	}
	s.Deploy()
}
