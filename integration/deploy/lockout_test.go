package deploy_test

import (
	"fmt"
	"strings"
	"testing"

	"ferry/integration/site"
)

// openDoor is a configuration that keeps this login, with an address of the machine's own and a line more.
func openDoor(s *site.Site, line string) string {
	own := s.Target.Addr().String()
	address := fmt.Sprintf("networking.interfaces.host0.ipv4.addresses = [ { address = %q; prefixLength = 24; } ];", own)
	return strings.Replace(site.Configuration("door"), "{ pkgs, ... }:\n{\n", "{ pkgs, lib, ... }:\n{\n  "+line+"\n  "+address+"\n", 1)
}

// TestASystemThatWouldLockThisLoginOutIsNotActivated goes through what can be known before, on a real target: each is said,
// and nothing changes.
func TestASystemThatWouldLockThisLoginOutIsNotActivated(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Write("web/configuration.nix", openDoor(s, ""))
	s.Deploy()
	before := s.State()
	own := s.Target.Addr().String()
	other := own[:strings.LastIndexByte(own, '.')+1] + "99"
	for _, c := range []struct{ name, config, says string }{
		{"sshd off", strings.Replace(openDoor(s, ""), "openssh.enable = true", "openssh.enable = false", 1), "sshd is off in the new system"},
		{"another port", openDoor(s, "services.openssh.ports = [ 2222 ];"),
			"sshd listens on port 2222 in the new system, and this connection uses 22"},
		{"another address of sshd", openDoor(s, `services.openssh.listenAddresses = [ { addr = "127.0.0.1"; port = 22; } ];`),
			"sshd listens only on 127.0.0.1 in the new system, and this connection uses " + own},
		{"a socket on another port", openDoor(s, "services.openssh.startWhenNeeded = true; services.openssh.ports = [ 2222 ];"),
			"sshd listens on port 2222 in the new system, and this connection uses 22"},
		{"others allowed", openDoor(s, `services.openssh.settings.AllowUsers = [ "bob" ];`), "AllowUsers of sshd keeps alice out in the new system"},
		{"no keys in homes", openDoor(s, "services.openssh.authorizedKeysInHomedir = false;"), "is not alice's in the new system"},
		{"the user gone", openDoor(s, "users.mutableUsers = false;"), "the new system does not have the user alice any more"},
		{"no sudo", openDoor(s, "security.sudo.enable = false;"), "sudo has no rules in the new system: alice cannot become root with it"},
		{"another address", strings.Replace(openDoor(s, ""), own, other, 1), "host0 has " + other + " in the new system, and this connection uses " + own},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.In(t)
			s.Write("web/configuration.nix", c.config)
			// Before anything is shipped, and without root, which alone can read the rules of sudo.
			warns, says := "WARNING the new system may lock this very login out: ", c.says
			if c.name == "no sudo" {
				warns, says = "not known ", "whether sudo could still make alice root: its rules cannot be read without root"
			}
			if plan := strings.Join(strings.Fields(s.Ferry("plan").Out), " "); !strings.Contains(plan, warns) || !strings.Contains(plan, says) {
				t.Errorf("the plan does not say %q", says)
			}
			o := s.Ferry("deploy", "--sudo-password-file", s.Password)
			o.Fails(t, 1, "web: activate: the new system may lock this very login out: ", "--allow-lockout")
			o.Says(t, c.says)
			s.Want(s.State(), before)
		})
	}
	t.Run("dry-activate only tells", func(t *testing.T) {
		s := s.In(t)
		s.Write("web/configuration.nix", openDoor(s, "services.openssh.ports = [ 2222 ];"))
		s.Deploy("--action", "dry-activate").Says(t, "note: it may lock this very login out: sshd listens on port 2222")
		s.Want(s.State(), before)
	})
	t.Run("a person says no", func(t *testing.T) {
		s := s.In(t)
		p := s.Person("deploy", "--sudo-password-file", s.Password)
		p.Sees("sshd listens on port 2222")
		p.Sees("activate it all the same? [y/N] ")
		p.Types("no\n")
		if o := p.Ends(); o.Status != 1 {
			t.Errorf("status %d", o.Status)
		}
		s.Want(s.State(), before)
	})
	t.Run("what locks nobody out", func(t *testing.T) {
		s := s.In(t)
		s.Write("web/configuration.nix", openDoor(s, `services.openssh.ports = [ 22 2222 ]; services.openssh.settings.AllowGroups = [ "sudo" ];`))
		if plan := s.Ferry("plan", "--json").Out; !strings.Contains(plan, `"lockout": [],`) || strings.Contains(plan, "WARNING") {
			t.Errorf("the plan warns")
		}
		s.Deploy()
	})
}
