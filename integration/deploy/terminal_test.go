package deploy_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// TestSSHAsksForThePassphraseOfItsKeyAtTheTerminal also covers --ssh-config, which names the key.
func TestSSHAsksForThePassphraseOfItsKeyAtTheTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	home := s.builder.Home()
	key := s.project + "-key"
	s.must("cp", home+"/.ssh/id_ed25519", key)
	s.must("ssh-keygen", "-q", "-p", "-f", key, "-P", "", "-N", "open sesame")
	config := s.sshConfig(fmt.Sprintf("Host front-door\n  HostName %s\n  User alice\n  HostKeyAlias %s\n  IdentityFile %s\n", s.target.Addr(), s.target.Name(), key))
	s.inventory(s.node("front-door"))

	o := s.ferry("deploy", "--ssh-config", config, "--sudo-password-file", s.password)
	if o.status != 1 {
		t.Errorf("without a terminal: status %d", o.status)
	}
	o.says(t, "ferry: error: web: connect: ssh front-door: alice@", "Permission denied", "ferry: hint: try the login by hand: ssh -F "+config+" front-door")

	ferry := s.person("deploy", "--ssh-config", config)
	ferry.sees("Enter passphrase for key '" + key + "': ")
	ferry.types("open sesame\n")
	ferry.sees("web: password for sudo: ")
	ferry.types(lab.Password + "\n")
	if shown := ferry.wants(0); strings.Contains(shown, "sesame") {
		t.Error("the terminal shows the passphrase")
	}
}

// TestSSHAsksForAPasswordAtTheTerminal logs in with a password instead of a key.
func TestSSHAsksForAPasswordAtTheTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	config := s.sshConfig(fmt.Sprintf("Host front-door\n  HostName %s\n  User bob\n  HostKeyAlias %s\n  PubkeyAuthentication no\n", s.target.Addr(), s.target.Name()))
	s.inventory(s.node("front-door"))
	ferry := s.person("deploy", "--ssh-config", config)
	ferry.sees("password: ")
	ferry.types("not this one\n")
	ferry.sees("password: ")
	ferry.types(lab.Password + "\n")
	shown := ferry.wants(0)
	if strings.Contains(shown, lab.Password) || !strings.Contains(shown, "web: done: generation 2") {
		t.Error("the terminal shows the password, or not the end")
	}
	for line := range strings.Lines(shown) {
		visible := line[strings.LastIndexByte(strings.TrimSuffix(line, "\n"), '\r')+1:]
		if strings.Contains(visible, "password: ") && visible != "bob@"+s.target.Name()+"'s password: \n" {
			t.Errorf("ssh's question stands in %q", visible)
		}
	}
}

// sshConfig writes a configuration file for ssh that knows the target's key.
func (s *site) sshConfig(text string) string {
	s.t.Helper()
	name := s.project + "-ssh-config"
	text += fmt.Sprintf("Host *\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n", filepath.Join(s.builder.Home(), ".ssh/known_hosts"))
	if err := s.builder.WriteFile(name, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name
}

// TestTheTargetIsBehindAJumpHost reaches it through another machine, as the user's own ssh configuration says.
func TestTheTargetIsBehindAJumpHost(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{alone: true})
	jump := lab.StartTarget(t, lab.Options{NoSystemd: true})
	if err := s.builder.Know(jump); err != nil {
		t.Fatal(err)
	}
	// Only the jump host resolves the name.
	hosts := s.target.Addr().String() + " inner\n"
	if err := jump.WriteFile(t.Context(), "/etc/hosts", []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(s.builder.Home(), ".ssh/config")
	entry := fmt.Sprintf("Host inner\n  User alice\n  ProxyJump carol@%s\n  HostKeyAlias %s\n\n", jump.Name(), s.target.Name())
	if err := s.builder.WriteFile(config, []byte(entry+s.must("cat", config)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.inventory(s.node("inner"))
	before := s.counts()
	s.deploy()
	if got, want := s.counts().minus(before), (counts{1, 1, 0}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if logins, err := jump.Authentications(t.Context()); err != nil || logins != 1 {
		t.Errorf("%d logins on the jump host, %v", logins, err)
	}
}
