package deploy_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestSSHAsksForThePassphraseOfItsKeyAtTheTerminal also covers --ssh-config, which names the key.
func TestSSHAsksForThePassphraseOfItsKeyAtTheTerminal(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	home := s.Builder.Home()
	key := s.Project + "-key"
	s.Must("cp", home+"/.ssh/id_ed25519", key)
	s.Must("ssh-keygen", "-q", "-p", "-f", key, "-P", "", "-N", "open sesame")
	config := sshConfig(s, fmt.Sprintf("Host front-door\n  HostName %s\n  User alice\n  HostKeyAlias %s\n  IdentityFile %s\n", s.Target.Addr(), s.Target.Name(), key))
	s.Inventory(s.Node("front-door"))

	o := s.Ferry("deploy", "--ssh-config", config, "--sudo-password-file", s.Password)
	if o.Status != 1 {
		t.Errorf("without a terminal: status %d", o.Status)
	}
	o.Says(t, "ferry: error: web: connect: ssh front-door: alice@", "Permission denied", "ferry: hint: try the login by hand: ssh -F "+config+" front-door")

	ferry := s.Person("deploy", "--ssh-config", config)
	ferry.Sees("Enter passphrase for key '" + key + "': ")
	ferry.Types("open sesame\n")
	ferry.Sees("web: password for sudo: ")
	ferry.Types(lab.Password + "\n")
	if shown := ferry.Wants(0); strings.Contains(shown, "sesame") {
		t.Error("the terminal shows the passphrase")
	}
}

// TestALoginThatNeedsNobodyIsTriedOnceAtATerminalToo also has sudo ask, which says so on standard error alone.
func TestALoginThatNeedsNobodyIsTriedOnceAtATerminalToo(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	since := s.Watched("alice")
	ferry := s.Person("deploy")
	ferry.Sees("web: password for sudo: ")
	ferry.Types(lab.Password + "\n")
	ferry.Wants(0)
	if got, want := since(), (site.Counts{Logins: 3, Elevations: 1, Connections: 3}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestSSHAsksForAPasswordAtTheTerminal logs in with a password instead of a key. It is asked for once: what confirms the new
// system is that sshd would ask again.
func TestSSHAsksForAPasswordAtTheTerminal(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	relay := lab.StartRelay(t, netip.AddrPortFrom(s.Target.Addr(), 22), lab.RelayOptions{})
	config := sshConfig(s, fmt.Sprintf("Host front-door\n  HostName %s\n  Port %d\n  User bob\n  HostKeyAlias %s\n  PubkeyAuthentication no\n",
		relay.Addr().Addr(), relay.Addr().Port(), s.Target.Name()))
	s.Inventory(s.Node("front-door"))
	before := s.Counts()
	ferry := s.Person("deploy", "--ssh-config", config)
	ferry.Sees("password: ")
	ferry.Types("not this one\n")
	ferry.Sees("password: ")
	ferry.Types(lab.Password + "\n")
	shown := ferry.Wants(0)
	if strings.Contains(shown, lab.Password) || !strings.Contains(shown, "web: done: generation 2") {
		t.Error("the terminal shows the password, or not the end")
	}
	// The first try, which asks nobody, is refused, and nobody is told.
	if strings.Contains(shown, "denied") {
		t.Error("the first try is shown")
	}
	// Besides the two tries, it is asked whether sshd answers: before the new system is activated, and after it.
	if got, want := s.Counts().Minus(before), (site.Counts{Logins: 1, Elevations: 1}); got != want || relay.Traffic().Connections != 4 {
		t.Errorf("%v on %d connections, want %v on 4", got, relay.Traffic().Connections, want)
	}
	if !strings.Contains(shown, "web: note: the login needs a person") {
		t.Error("it is not said how the new system is confirmed")
	}
	for line := range strings.Lines(shown) {
		visible := line[strings.LastIndexByte(strings.TrimSuffix(line, "\n"), '\r')+1:]
		if strings.Contains(visible, "password: ") && visible != "bob@"+s.Target.Name()+"'s password: \n" {
			t.Errorf("ssh's question stands in %q", visible)
		}
	}
}

// sshConfig writes a configuration file for ssh that knows the target's key.
func sshConfig(s *site.Site, text string) string {
	s.T.Helper()
	name := s.Project + "-ssh-config"
	text += fmt.Sprintf("Host *\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n", filepath.Join(s.Builder.Home(), ".ssh/known_hosts"))
	if err := s.Builder.WriteFile(name, []byte(text), 0o600); err != nil {
		s.T.Fatal(err)
	}
	return name
}

// TestTheTargetIsBehindAJumpHost reaches it through another machine, as the user's own ssh configuration says.
func TestTheTargetIsBehindAJumpHost(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Alone: true})
	jump := lab.StartTarget(t, lab.Options{NoSystemd: true})
	if err := s.Builder.Know(jump); err != nil {
		t.Fatal(err)
	}
	// Only the jump host resolves the name.
	hosts := s.Target.Addr().String() + " inner\n"
	if err := jump.WriteFile(t.Context(), "/etc/hosts", []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(s.Builder.Home(), ".ssh/config")
	entry := fmt.Sprintf("Host inner\n  User alice\n  ProxyJump carol@%s\n  HostKeyAlias %s\n\n", jump.Name(), s.Target.Name())
	if err := s.Builder.WriteFile(config, []byte(entry+s.Must("cat", config)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Inventory(s.Node("inner"))
	before := s.Counts()
	s.Deploy()
	if got, want := s.Counts().Minus(before), (site.Counts{Logins: 3, Elevations: 1}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if logins, err := jump.Authentications(t.Context()); err != nil || logins != 3 {
		t.Errorf("%d logins on the jump host, %v", logins, err)
	}
}

// TestAJumpHostAsksAtTheTerminal has one whose login needs a person while the target's needs none: an ssh that only the
// target's ssh knows of has to get the terminal. Nothing could confirm a new system, so none is activated.
func TestAJumpHostAsksAtTheTerminal(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	jump := lab.StartTarget(t, lab.Options{NoSystemd: true})
	if err := s.Builder.Know(jump); err != nil {
		t.Fatal(err)
	}
	config := sshConfig(s, fmt.Sprintf("Host front-door\n  HostName %s\n  User alice\n  HostKeyAlias %s\n  ProxyJump jump\n  IdentityFile ~/.ssh/id_ed25519\n"+
		"Host jump\n  HostName %s\n  User carol\n  HostKeyAlias %s\n  PubkeyAuthentication no\n", s.Target.Addr(), s.Target.Name(), jump.Addr(), jump.Name()))
	s.Inventory(s.Node("front-door"))
	before := s.State()
	for _, c := range []struct {
		action string
		status int
		says   string
	}{
		{"switch", 1, "ferry: error: web: activate: no new connection comes through without a person, so nothing could confirm the new system: ssh front-door: carol@"},
		{"boot", 0, "web: done: generation 2, "},
	} {
		s.Want(s.State(), before)
		ferry := s.Person("deploy", "--action", c.action, "--ssh-config", config)
		ferry.Sees("carol@" + jump.Name() + "'s password: ")
		ferry.Types(lab.Password + "\n")
		ferry.Sees("web: password for sudo: ")
		ferry.Types(lab.Password + "\n")
		shown := ferry.Wants(c.status)
		if !strings.Contains(shown, c.says) || strings.Contains(shown, "UNKNOWN port") {
			t.Errorf("it does not say %q, or shows the first try", c.says)
		}
	}
	ferry := s.Person("deploy", "--method", "plain", "--ssh-config", config)
	ferry.Sees("carol@" + jump.Name() + "'s password: ")
	ferry.Types("\x03")
	if shown := ferry.Wants(130); strings.Contains(shown, "denied") || strings.Contains(shown, "UNKNOWN port") {
		t.Error("the first try is shown")
	}
}
