package deploy_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/lab"
)

// terminal runs ferry in the project with a person at the keyboard.
type terminal struct {
	s *site
	*lab.Terminal
}

func (s *site) terminal(args ...string) *terminal {
	s.t.Helper()
	t, err := lab.OpenTerminal(s.command(args...))
	if err != nil {
		s.t.Fatal(err)
	}
	return &terminal{s, t}
}

// sees waits until the terminal shows text.
func (t *terminal) sees(text string) {
	t.s.t.Helper()
	ctx, cancel := context.WithTimeout(t.s.t.Context(), time.Minute)
	defer cancel()
	if err := t.Expect(ctx, text); err != nil {
		t.s.t.Fatal(err)
	}
}

func (t *terminal) types(text string) {
	t.s.t.Helper()
	if err := t.Type(text); err != nil {
		t.s.t.Fatal(err)
	}
}

// ends waits for the end of ferry, which must have that exit status, and gives what the terminal has shown.
func (t *terminal) ends(status int) string {
	t.s.t.Helper()
	// A program that waits for someone to type would wait for ever.
	hung := time.AfterFunc(time.Minute, func() { _ = t.Type("\x03\x03") })
	defer hung.Stop()
	got, err := t.Wait()
	if err != nil {
		t.s.t.Fatal(err)
	}
	shown := t.Shown()
	t.s.t.Logf("ferry: status %d\n%s", got, shown)
	if got != status {
		t.s.t.Errorf("status %d, want %d", got, status)
	}
	return shown
}

// TestThePasswordIsTypedAtTheTerminal types it wrong, then right: it is asked for again, and never shown.
func TestThePasswordIsTypedAtTheTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.counts()
	ferry := s.terminal("deploy")
	ferry.sees("web: password for sudo: ")
	ferry.types("not this one\n")
	ferry.sees("web: wrong password, try again: ")
	ferry.types(lab.Password + "\n")
	shown := ferry.ends(0)
	for _, typed := range []string{"not this one", lab.Password} {
		if strings.Contains(shown, typed) {
			t.Errorf("the terminal shows %q", typed)
		}
	}
	if !strings.Contains(shown, "web: done: generation 2") {
		t.Error("it does not say that it is done")
	}
	if got, want := s.counts().minus(before), (counts{1, 1, 0}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestAPasswordWrongThreeTimesIsAnError types it wrong until sudo gives up.
func TestAPasswordWrongThreeTimesIsAnError(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.state()
	ferry := s.terminal("deploy")
	ferry.sees("web: password for sudo: ")
	ferry.types("one\n")
	for _, wrong := range []string{"two\n", "three\n"} {
		ferry.sees("web: wrong password, try again: ")
		ferry.types(wrong)
	}
	if shown := ferry.ends(1); !strings.Contains(shown, "ferry: error: web: connect: sudo: the password was wrong\n") {
		t.Error("it does not say why")
	}
	s.want(s.state(), before)
}

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

	ferry := s.terminal("deploy", "--ssh-config", config)
	ferry.sees("Enter passphrase for key '" + key + "': ")
	ferry.types("open sesame\n")
	ferry.sees("web: password for sudo: ")
	ferry.types(lab.Password + "\n")
	if shown := ferry.ends(0); strings.Contains(shown, "sesame") {
		t.Error("the terminal shows the passphrase")
	}
}

// TestSSHAsksForAPasswordAtTheTerminal logs in with a password instead of a key.
func TestSSHAsksForAPasswordAtTheTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	config := s.sshConfig(fmt.Sprintf("Host front-door\n  HostName %s\n  User bob\n  HostKeyAlias %s\n  PubkeyAuthentication no\n", s.target.Addr(), s.target.Name()))
	s.inventory(s.node("front-door"))
	ferry := s.terminal("deploy", "--ssh-config", config)
	ferry.sees("password: ")
	ferry.types("not this one\n")
	ferry.sees("password: ")
	ferry.types(lab.Password + "\n")
	shown := ferry.ends(0)
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
