package deploy_test

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// matrix adds Debian's newest Nix, in a release that breaks at times. Its base root is made with FERRY_LAB_SUITES=sid.
var matrix = flag.Bool("matrix", false, "deploy between all versions of Nix that Debian has")

// TestVersionsOfNixWorkTogether deploys between machines with different ones.
func TestVersionsOfNixWorkTogether(t *testing.T) {
	t.Parallel()
	type pair struct{ here, there string }
	pairs := []pair{{"bookworm", "trixie"}, {"trixie", "bookworm"}, {"trixie", "trixie"}}
	if *matrix {
		pairs = append(pairs, pair{"sid", "bookworm"}, pair{"sid", "trixie"}, pair{"sid", "sid"}, pair{"bookworm", "sid"}, pair{"trixie", "sid"})
	}
	for _, p := range pairs {
		t.Run(p.here+" to "+p.there, func(t *testing.T) {
			t.Parallel()
			s := site.New(t, site.Options{Builder: lab.BuilderOptions{Suite: p.here}, Target: lab.Options{Suite: p.there}})
			deployTwice(s)
		})
	}
}

// TestAPlainUserBuildsAndDeploys has a builder where nobody is root.
func TestAPlainUserBuildsAndDeploys(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Builder: lab.BuilderOptions{Plain: true}})
	deployTwice(s)
}

// deployTwice makes a first and a changed deployment, and one with nothing to do, and checks what they leave.
func deployTwice(s *site.Site) {
	s.T.Helper()
	for i, greeting := range []string{"first", "second"} {
		s.Write("web/configuration.nix", site.Configuration(greeting))
		before := s.Counts()
		s.Deploy()
		if got, want := s.Counts().Minus(before), (site.Counts{Logins: 3, Elevations: 1}); got != want {
			s.T.Errorf("%s: %v, want %v", greeting, got, want)
		}
		bundle := s.Bundle()
		toplevel := s.Toplevel(bundle)
		got := s.State()
		s.Want(got, site.State{Runs: toplevel, Profile: toplevel, Generation: fmt.Sprintf("system-%d-link", i+2), Boots: toplevel, Bundle: bundle, Greeting: greeting, Greeter: got.Greeter})
	}
	s.Deploy().Says(s.T, "web: nothing to do")
}

// elfMachine is the machine that a program on the target is made for, as its header numbers it.
func elfMachine(s *site.Site, program string) string {
	s.T.Helper()
	return strings.TrimSpace(s.OnTarget("sh", "-c", "od -An -tu2 -j18 -N2 "+program))
}

// TestAnAarch64TargetIsDeployedFromAnEmulatingBuilder builds for another CPU, and has its own agent there.
func TestAnAarch64TargetIsDeployedFromAnEmulatingBuilder(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Builder: lab.BuilderOptions{Aarch64: true}, Target: lab.Options{System: "aarch64-linux"}})
	deployTwice(s)
	const aarch64 = "183"
	for _, program := range []string{"/var/lib/ferry/agent-*", "$(readlink -f /run/current-system/sw/bin/ls)"} {
		if got := elfMachine(s, program); got != aarch64 {
			t.Errorf("%s is for machine %s, want %s", program, got, aarch64)
		}
	}
	verifies(s)
}

// verifies fails the test unless the target evaluates what it has to the same system, although its CPU is another.
func verifies(s *site.Site) {
	s.T.Helper()
	if o := s.Ferry("verify"); o.Status != 0 || !strings.HasPrefix(o.Out, "web: the same: nixos-rebuild on the target evaluates to /nix/store/") {
		s.T.Errorf("status %d:\n%s", o.Status, o.Out)
	}
}

// TestACrossCompiledSystemNeedsNoEmulation builds for another CPU with tools of this one, because the configuration says so.
func TestACrossCompiledSystemNeedsNoEmulation(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{System: "aarch64-linux"}, Bare: true})
	s.Write("web/configuration.nix", site.With(site.Configuration("first"), `  nixpkgs.buildPlatform = "x86_64-linux";
  nixpkgs.hostPlatform = "aarch64-linux";`))
	s.Deploy("--action", "boot").Says(t, "web: done: generation 1, ", "from the next boot on")
	if got := s.OnTarget("cat", "/nix/var/nix/profiles/system/system"); got != "aarch64-linux" {
		t.Errorf("the system is for %s", got)
	}
	if got := elfMachine(s, "$(readlink -f /nix/var/nix/profiles/system/sw/bin/ls)"); got != "183" {
		t.Errorf("its programs are for machine %s", got)
	}
	verifies(s)
}

// TestAnotherMachineThanTheNodesIsRefused finds out before anything is built or shipped.
func TestAnotherMachineThanTheNodesIsRefused(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true})
	refused := func(what, says string) {
		t.Helper()
		o := s.Ferry("deploy", "--sudo-password-file", s.Password)
		if o.Status != 1 {
			t.Errorf("%s: status %d", what, o.Status)
		}
		o.Says(t, says)
		if paths := s.OnTarget("sh", "-c", "ls -d /nix/store/*-ferry-web 2>/dev/null || true"); paths != "" {
			t.Errorf("%s: shipped %s", what, paths)
		}
	}
	// systemd makes the kernel tell those who log in that they are on a 32-bit machine.
	personality := "[Service]\nPersonality=x86\n"
	if err := s.Target.WriteFile(t.Context(), "/etc/systemd/system/ssh.service.d/x86.conf", []byte(personality), 0o644); err != nil {
		t.Fatal(err)
	}
	s.OnTarget("sh", "-c", "systemctl daemon-reload && systemctl restart ssh")
	refused("i686", "ferry: error: web: connect: the node is built for x86_64-linux, but the target is i686-linux\n"+
		"ferry: hint: set system = \"i686-linux\" for this node in the inventory\n")
	if got := elfMachine(s, "/var/lib/ferry/agent-*"); got != "3" {
		t.Errorf("the agent is for machine %s, want 3, a 386", got)
	}
	if err := s.Target.WriteFile(t.Context(), "/usr/bin/uname", []byte("#!/bin/sh\necho mips64\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	refused("unknown", "ferry: error: web: connect: the target is a \"mips64\" machine, and ferry has no agent for that\n")
}
