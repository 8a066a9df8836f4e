package deploy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

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
		"without room for the agent": {lab.Options{NoSystemd: true}, "", "mkdir -p /var/lib/ferry && mount -t tmpfs -o size=64k none /var/lib/ferry",
			"web: connect: could not install the agent: failed to write the agent to /var/lib/ferry, is the disk full", nil},
		"with a folder for the agent that cannot be written": {lab.Options{NoSystemd: true}, "", "mkdir -p /var/lib/ferry && mount -t tmpfs -o ro none /var/lib/ferry",
			"web: connect: could not install the agent: failed to make a file in /var/lib/ferry", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, siteOptions{target: c.target, bare: true})
			s.onTarget("sh", "-c", c.prepare)
			if c.system != "" {
				s.inventory(strings.Replace(s.node("alice@"+s.target.Name()), s.target.System(), c.system, 1))
			}
			s.ferry("deploy", "--sudo-password-file", s.password).fails(t, 1, c.text, c.hints...)
			left := s.onTarget("find", "/var/lib/ferry", "-name", ".new-*")
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

// TestForceNotNixOS deploys to a machine without the mark of a NixOS, on demand.
func TestForceNotNixOS(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{target: lab.Options{NotNixOS: true}, bare: true})
	s.deploy("--force-not-nixos").says(t, "web: done: generation 1, ")
	if got := s.onTarget("cat", "/etc/greeting"); got != "first" {
		t.Errorf("the target greets with %q", got)
	}
}

// with is a configuration with more in it.
func with(configuration, more string) string {
	return strings.Replace(configuration, "{\n", "{\n"+more+"\n", 1)
}

// data is a part of a configuration: so many store paths of so many bytes each, which cannot be compressed. They are made
// anew for every name.
func data(name string, paths, bytes int) string {
	var b strings.Builder
	for i := range paths {
		fmt.Fprintf(&b, `environment.etc."data/%d".source = derivation {
    name = "data-%s-%d"; system = "x86_64-linux"; builder = "/bin/sh";
    args = [ "-c" "/usr/bin/head -c %d /dev/urandom >$out" ];
  };
`, i, name, i, bytes)
	}
	return b.String()
}

// until waits for something to become true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("in two minutes it did not happen: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestADiskThatFillsUpInTheMiddle stops a ship for want of space, makes room, and runs the same command again.
func TestADiskThatFillsUpInTheMiddle(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{target: lab.Options{StoreLimit: 256 << 20}})
	before := s.state()
	relay := s.relayed("alice", lab.RelayOptions{})
	const paths, size = 12, 4 << 20
	s.write("web/configuration.nix", with(configuration("first"), data("fill", paths, size)))

	s.onTarget("sh", "-c", fill(34))
	s.ferry("deploy", "--sudo-password-file", s.password).fails(t, 1,
		"web: ship: the target's disk is too full: 5", "on the target: sudo nix-collect-garbage")
	s.onTarget("rm", "/nix/filler")

	_, ended := s.background("deploy", "--sudo-password-file", s.password)
	sentBefore := relay.Traffic().Up
	until(t, "a third is shipped", func() bool { return relay.Traffic().Up-sentBefore > paths*size/3 })
	relay.Freeze()
	s.onTarget("sh", "-c", fill(6))
	relay.Thaw()
	ended().fails(t, 1, "web: ship: the target's disk is full: ", "on the target: sudo nix-collect-garbage --delete-older-than 30d; then run this again, what has arrived is kept")
	s.want(s.state(), before)

	s.onTarget("rm", "/nix/filler")
	sent := relay.Traffic().Up
	s.deploy().says(t, "web: done: generation 2")
	if again := relay.Traffic().Up - sent; again > paths*size*3/4 {
		t.Errorf("%d bytes were sent the second time, of %d", again, paths*size)
	}
	s.onTarget("nix-store", "--verify", "--check-contents")
}
