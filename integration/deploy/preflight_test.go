package deploy_test

import (
	"fmt"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestTargetsThatCannotBeDeployedTo is what is known of a target before anything is built for it.
func TestTargetsThatCannotBeDeployedTo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		target  lab.Options
		system  string // of the node, if it is another one than the target's
		prepare string // a shell command on the target
		text    string
		hints   []string
	}{
		"without Nix": {lab.Options{NoSystemd: true}, "", "mv /usr/bin/nix-store /usr/bin/away",
			"web: connect: the target has no working Nix: nix-store is not in PATH", []string{"install Nix there first"}},
		"with a Nix that does not work": {lab.Options{NoSystemd: true}, "", "printf '#!/bin/sh\\necho no such library >&2\\nexit 127\\n' >/usr/local/bin/nix-store && chmod 755 /usr/local/bin/nix-store",
			"web: connect: the target has no working Nix: nix-store: exit status 127: no such library", []string{"install Nix there first"}},
		"not NixOS": {lab.Options{NoSystemd: true, NotNixOS: true}, "", "true",
			"web: connect: the target is not a NixOS machine: /etc/NIXOS is missing", []string{"--force-not-nixos"}},
		"of another architecture": {lab.Options{NoSystemd: true, System: "aarch64-linux"}, "x86_64-linux", "true",
			"web: connect: the node is built for x86_64-linux, but the target is aarch64-linux", []string{`set system = "aarch64-linux" for this node`}},
		"with a full disk": {lab.Options{NoSystemd: true, StoreLimit: 96 << 20}, "", fill(20),
			"web: connect: the target's disk is full: ", []string{"nix-collect-garbage"}},
		"without room for the agent": {lab.Options{NoSystemd: true}, "", "mkdir -p /var/lib/ferry && mount -t tmpfs -o size=64k,mode=0755 none /var/lib/ferry",
			"web: connect: could not install the agent: failed to write the agent to /var/lib/ferry, is the disk full", nil},
		"with a folder for the agent that cannot be written": {lab.Options{NoSystemd: true}, "", "mkdir -p /var/lib/ferry && mount -t tmpfs -o ro,mode=0755 none /var/lib/ferry",
			"web: connect: could not install the agent: failed to make a file in /var/lib/ferry", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := site.New(t, site.Options{Target: c.target, Bare: true})
			s.OnTarget("sh", "-c", c.prepare)
			if c.system != "" {
				s.Inventory(strings.Replace(s.Node("alice@"+s.Target.Name()), s.Target.System(), c.system, 1))
			}
			s.Ferry("deploy", "--sudo-password-file", s.Password).Fails(t, 1, c.text, c.hints...)
			left := s.OnTarget("find", "/var/lib/ferry", "-name", ".new-*")
			if left != "" {
				t.Errorf("left in /var/lib/ferry: %s", left)
			}
		})
	}
}

// fill is a shell command that leaves so many megabytes of /nix.
func fill(free int) string {
	return fmt.Sprintf("fallocate -l $(($(stat -f -c '%%a * %%S' /nix) - %d * 1000000)) /nix/filler", free)
}

// TestForceNotNixOS deploys to a machine without the mark of a NixOS, and so without a system that it could go back to: both
// on demand only.
func TestForceNotNixOS(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{NotNixOS: true}, Bare: true})
	s.Ferry("deploy", "--sudo-password-file", s.Password, "--force-not-nixos").Fails(t, 1,
		"web: connect: the target could not roll back by itself: it has no /run/current-system that could be returned to", "--unsafe")
	if got := s.OnTarget("sh", "-c", "ls -d /run/current-system /nix/var/nix/profiles/system 2>/dev/null; true"); got != "" {
		t.Errorf("the target has %s", got)
	}
	s.Deploy("--force-not-nixos", "--unsafe").Says(t, "web: done: generation 1, ")
	if got := s.OnTarget("cat", "/etc/greeting"); got != "first" {
		t.Errorf("the target greets with %q", got)
	}
}

// TestADiskThatFillsUpInTheMiddle stops a ship for want of space, makes room, and runs the same command again.
func TestADiskThatFillsUpInTheMiddle(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{StoreLimit: 256 << 20}})
	before := s.State()
	relay := s.Relayed("alice", lab.RelayOptions{})
	const paths, size = 12, 4 << 20
	s.Write("web/configuration.nix", site.With(site.Configuration("first"), site.Data("fill", paths, size)))

	s.OnTarget("sh", "-c", fill(34))
	s.Ferry("deploy", "--sudo-password-file", s.Password).Fails(t, 1,
		"web: ship: the target's disk is too full: ", "on the target: sudo nix-collect-garbage")
	s.OnTarget("rm", "/nix/filler")

	_, ended := s.Background("deploy", "--sudo-password-file", s.Password)
	sentBefore := relay.Traffic().Up
	site.Until(t, "a third is shipped", func() bool { return relay.Traffic().Up-sentBefore > paths*size/3 })
	relay.Freeze()
	s.OnTarget("sh", "-c", fill(6))
	relay.Thaw()
	ended().Fails(t, 1, "web: ship: the target's disk is full: ", "on the target: sudo nix-collect-garbage --delete-older-than 30d; then run this again, what has arrived is kept")
	s.Want(s.State(), before)

	s.OnTarget("rm", "/nix/filler")
	sent := relay.Traffic().Up
	s.Deploy().Says(t, "web: done: generation 2")
	if again := relay.Traffic().Up - sent; again > paths*size*3/4 {
		t.Errorf("%d bytes were sent the second time, of %d", again, paths*size)
	}
	s.OnTarget("nix-store", "--verify", "--check-contents")
}
