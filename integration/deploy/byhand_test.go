package deploy_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// byHand runs what `ferry by-hand` prints in sh, on a terminal.
func byHand(s *site.Site, args ...string) *site.Person {
	s.T.Helper()
	o := s.Ferry(append([]string{"by-hand"}, args...)...)
	if o.Status != 0 {
		s.T.Fatalf("ferry by-hand: status %d", o.Status)
	}
	// Not the project's folder: the commands need nothing of it.
	cmd := s.Builder.Command(s.T.Context(), "sh", "-c", "cd /tmp && exec sh -eu /dev/fd/3 3<<'END'\n"+o.Out+"END\n")
	return s.AtTerminal(cmd)
}

// wantDeployed fails the test unless the target is what ferry deploy would make it.
func wantDeployed(s *site.Site) {
	s.T.Helper()
	bundle := s.Bundle()
	toplevel := s.Toplevel(bundle)
	got := s.State()
	s.Want(got, site.State{Runs: toplevel, Profile: toplevel, Generation: "system-2-link", Boots: toplevel, Bundle: bundle, Greeting: "first", Greeter: got.Greeter})
	s.Deploy().Says(s.T, "web: nothing to do")
	s.Want(s.State(), got)
}

// TestTheCommandsByHandDoTheSame runs what is printed for a user with sudo.
func TestTheCommandsByHandDoTheSame(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	hand := byHand(s)
	hand.Sees("password for alice: ")
	hand.Types(lab.Password + "\n")
	if shown := hand.Wants(0); strings.Contains(shown, lab.Password) {
		t.Error("the terminal shows the password")
	}
	if left := s.OnTarget("find", "/home/alice", "-name", "ferry*"); left != "" {
		t.Errorf("left behind: %s", left)
	}
	wantDeployed(s)
}

// TestTheCommandsByHandForRootDoTheSame runs what is printed for root.
func TestTheCommandsByHandForRootDoTheSame(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Login: "root"})
	byHand(s).Wants(0)
	wantDeployed(s)
}

// TestTheCommandsByHandKnowOtherActionsAndPrograms has another action, doas, and another configuration of ssh.
func TestTheCommandsByHandKnowOtherActionsAndPrograms(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := s.State()
	config := sshConfig(s, "Host front-door\n  HostName "+s.Target.Addr().String()+"\n  User dora\n  HostKeyAlias "+s.Target.Name()+
		"\n  IdentityFile ~/.ssh/id_ed25519\n")
	s.Inventory(s.Node("ssh://front-door:22", "    elevate = [ \"env\" \"A=it's\" \"doas\" ];\n"))
	byHand(s, "--action", "boot", "--ssh-config", config).Wants(0)
	bundle := s.Bundle()
	toplevel := s.Toplevel(bundle)
	s.Want(s.State(), site.State{Runs: before.Runs, Profile: toplevel, Generation: "system-2-link", Boots: toplevel, Bundle: bundle, Greeting: "installed", Greeter: before.Greeter})
}

// TestTheMethodPlainNeedsNoAgent deploys by the classic commands: as root, and as a user whom the target's Nix trusts.
func TestTheMethodPlainNeedsNoAgent(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Login: "root"})
	o := s.Ferry("deploy", "--method", "plain")
	if o.Status != 0 {
		t.Errorf("as root: status %d", o.Status)
	}
	o.Says(t, "web: ship  ", "web: activate  ", "web: done: nixos-system-web-")
	if s.Target.Command(t.Context(), "test", "-e", "/var/lib/ferry").Run() == nil {
		t.Error("the agent is there")
	}
	s.Inventory(s.Node("alice@" + s.Target.Name()))
	s.Write("web/configuration.nix", site.Configuration("second"))
	before := s.State()

	ferry := s.Person("deploy", "--method", "plain")
	if shown := ferry.Wants(1); !strings.Contains(shown, "ferry: error: web: ship: ") ||
		!strings.Contains(shown, "the target's Nix takes unsigned paths only from root and trusted-users\nferry: hint: leave out --method plain") {
		t.Error("it does not say that the target's Nix does not trust alice")
	}
	s.Want(s.State(), before)

	s.OnTarget("sh", "-c", "echo trusted-users = root alice >>/etc/nix/nix.conf && systemctl restart nix-daemon")
	logins := s.Counts()
	ferry = s.Person("deploy", "--method", "plain")
	ferry.Sees("password for alice: ")
	ferry.Types(lab.Password + "\n")
	if shown := ferry.Wants(0); strings.Contains(shown, lab.Password) || !strings.Contains(shown, "web: done: ") {
		t.Error("the terminal shows the password, or not the end")
	}
	if got, want := s.Counts().Minus(logins), (site.Counts{Logins: 1, Elevations: 1}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	bundle := s.Bundle()
	toplevel := s.Toplevel(bundle)
	got := s.State()
	s.Want(got, site.State{Runs: toplevel, Profile: toplevel, Generation: "system-3-link", Boots: toplevel, Bundle: bundle, Greeting: "second", Greeter: got.Greeter})
	s.Deploy().Says(t, "web: nothing to do")
}

// TestTheScriptOfTheBundleGoesOnWhereAUserLogsOut: the program ends in the middle if logind does not know a user any more of whom
// it had just told. A stand-in in front of the program does as if that were so, twice.
func TestTheScriptOfTheBundleGoesOnWhereAUserLogsOut(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Login: "root"})
	s.Write("web/configuration.nix", site.With(site.Configuration("first"), `  system.extraSystemBuilderCmds = ''
    mv bin/switch-to-configuration bin/the-program
    cat >bin/switch-to-configuration <<END
    #!/bin/sh
    if mkdir /run/left-once || mkdir /run/left-twice; then
      echo "activating the configuration..." >&2
      echo "Error: user eve: Unknown object '/org/freedesktop/login1/user/_1007'." >&2
      exit 1
    fi
    exec $out/bin/the-program "\$@"
    END
    sed -i 's/^ *//' bin/switch-to-configuration
    chmod +x bin/switch-to-configuration
  '';`))
	o := s.Ferry("deploy", "--method", "plain")
	if o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
	if got := strings.Count(o.Errors, "nixos-rebuild-switch: a user has logged out"); got != 2 {
		t.Errorf("it says %d times that a user has logged out, want 2", got)
	}
	wantDeployed(s)
}
