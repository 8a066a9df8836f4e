package deploy_test

import (
	"strings"
	"testing"

	"ferry/internal/lab"
)

// byHand runs what `ferry by-hand` prints in sh, on a terminal.
func (s *site) byHand(args ...string) *person {
	s.t.Helper()
	o := s.ferry(append([]string{"by-hand"}, args...)...)
	if o.status != 0 {
		s.t.Fatalf("ferry by-hand: status %d", o.status)
	}
	// Not the project's folder: the commands need nothing of it.
	cmd := s.builder.Command(s.t.Context(), "sh", "-c", "cd /tmp && exec sh -eu /dev/fd/3 3<<'END'\n"+o.out+"END\n")
	return s.atTerminal(cmd)
}

// wantDeployed fails the test unless the target is what ferry deploy would make it.
func (s *site) wantDeployed() {
	s.t.Helper()
	bundle := s.bundle()
	toplevel := s.toplevel(bundle)
	got := s.state()
	s.want(got, state{toplevel, toplevel, "system-2-link", toplevel, bundle, "first", got.greeter})
	s.deploy().says(s.t, "web: nothing to do")
	s.want(s.state(), got)
}

// TestTheCommandsByHandDoTheSame runs what is printed for a user with sudo.
func TestTheCommandsByHandDoTheSame(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	hand := s.byHand()
	hand.sees("password for alice: ")
	hand.types(lab.Password + "\n")
	if shown := hand.wants(0); strings.Contains(shown, lab.Password) {
		t.Error("the terminal shows the password")
	}
	if left := s.onTarget("find", "/home/alice", "-name", "ferry*"); left != "" {
		t.Errorf("left behind: %s", left)
	}
	s.wantDeployed()
}

// TestTheCommandsByHandForRootDoTheSame runs what is printed for root.
func TestTheCommandsByHandForRootDoTheSame(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{login: "root"})
	s.byHand().wants(0)
	s.wantDeployed()
}

// TestTheCommandsByHandKnowOtherActionsAndPrograms has another action, doas, and another configuration of ssh.
func TestTheCommandsByHandKnowOtherActionsAndPrograms(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.state()
	config := s.sshConfig("Host front-door\n  HostName " + s.target.Addr().String() + "\n  User dora\n  HostKeyAlias " + s.target.Name() +
		"\n  IdentityFile ~/.ssh/id_ed25519\n")
	s.inventory(s.node("ssh://front-door:22", "    elevate = [ \"env\" \"A=it's\" \"doas\" ];\n"))
	s.byHand("--action", "boot", "--ssh-config", config).wants(0)
	bundle := s.bundle()
	toplevel := s.toplevel(bundle)
	s.want(s.state(), state{before.runs, toplevel, "system-2-link", toplevel, bundle, "installed", before.greeter})
}

// TestTheMethodPlainNeedsNoAgent deploys by the classic commands: as root, and as a user whom the target's Nix trusts.
func TestTheMethodPlainNeedsNoAgent(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{login: "root"})
	o := s.ferry("deploy", "--method", "plain")
	if o.status != 0 {
		t.Errorf("as root: status %d", o.status)
	}
	o.says(t, "web: ship  ", "web: activate  ", "web: done: nixos-system-web-")
	if s.target.Command(t.Context(), "test", "-e", "/var/lib/ferry").Run() == nil {
		t.Error("the agent is there")
	}
	s.inventory(s.node("alice@" + s.target.Name()))
	s.write("web/configuration.nix", configuration("second"))
	before := s.state()

	ferry := s.person("deploy", "--method", "plain")
	if shown := ferry.wants(1); !strings.Contains(shown, "ferry: error: web: ship: ") ||
		!strings.Contains(shown, "the target's Nix takes unsigned paths only from root and trusted-users\nferry: hint: leave out --method plain") {
		t.Error("it does not say that the target's Nix does not trust alice")
	}
	s.want(s.state(), before)

	s.onTarget("sh", "-c", "echo trusted-users = root alice >>/etc/nix/nix.conf && systemctl restart nix-daemon")
	logins := s.counts()
	ferry = s.person("deploy", "--method", "plain")
	ferry.sees("password for alice: ")
	ferry.types(lab.Password + "\n")
	if shown := ferry.wants(0); strings.Contains(shown, lab.Password) || !strings.Contains(shown, "web: done: ") {
		t.Error("the terminal shows the password, or not the end")
	}
	if got, want := s.counts().minus(logins), (counts{1, 1, 0}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	bundle := s.bundle()
	toplevel := s.toplevel(bundle)
	got := s.state()
	s.want(got, state{toplevel, toplevel, "system-3-link", toplevel, bundle, "second", got.greeter})
	s.deploy().says(t, "web: nothing to do")
}
