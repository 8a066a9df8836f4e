package deploy_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
)

// TestATargetThatForgetsKeepsItsBundle has an /etc/nixos that cannot be written, and a journal that a reboot empties: both are
// said before anything is shipped, the bundle is kept and found all the same, and what ran before is known after the reboot.
func TestATargetThatForgetsKeepsItsBundle(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	const (
		root = "/nix/var/nix/gcroots/ferry/current-configuration"
		link = "/etc/nixos/current-configuration"
	)
	s.OnTarget("sh", "-c", "mkdir -p /etc/nixos /var/log/ferry && mount -t tmpfs -o ro none /etc/nixos && mount -t tmpfs -o mode=755 none /var/log/ferry")
	const (
		noLink  = "the link /etc/nixos/current-configuration cannot be made: /etc/nixos is mounted read-only"
		emptied = "a reboot empties /var/log/ferry: the journal of deployments is lost then"
	)
	o := s.Deploy()
	o.Says(t, "web: note: "+noLink, "web: note: "+emptied, "so only "+root+" keeps the bundle", "web: done: generation ")
	if said := o.Errors; strings.Index(said, noLink) > strings.Index(said, "web: ship ") {
		t.Errorf("it is said late:\n%s", said)
	}
	// It wraps what it says.
	said := strings.Join(strings.Fields(s.Ferry("check", "--sudo-password-file", s.Password).Out), " ")
	if !strings.Contains(said, "note: etc: "+noLink) || !strings.Contains(said, "note: persistence: "+emptied) {
		t.Errorf("ferry check says %s", said)
	}
	is := func(name string) string { return s.OnTarget("sh", "-c", "readlink "+name+" || true") }
	first := is(root)
	if !strings.HasPrefix(first, "/nix/store/") || !strings.HasSuffix(first, "-ferry-web") || is(link) != "" {
		t.Errorf("%s leads to %q, %s to %q", root, first, link, is(link))
	}
	s.Deploy().Says(t, "web: nothing to do: ")
	s.Write("web/configuration.nix", site.Configuration("second"))
	s.Deploy()
	second := is(root)
	s.OnTarget("nix-store", "--gc")
	s.OnTarget("sh", "-c", "nix-store --verify-path $(nix-store --query --requisites "+root+")")

	// Both file systems are gone.
	s.Reboot()
	if is(root) != second || second == first {
		t.Errorf("after the reboot %s is %q, and was %q", root, is(root), second)
	}
	s.Deploy().Says(t, "web: nothing to do: ")
	o = s.Ferry("rollback", "--sudo-password-file", s.Password)
	o.Says(t, "web: done: generation ")
	if o.Status != 0 || is(root) != first || is(link) != first {
		t.Errorf("status %d; %s leads to %q, %s to %q, and not to %q", o.Status, root, is(root), link, is(link), first)
	}
}
