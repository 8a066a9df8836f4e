package deploy_test

import (
	"strings"
	"testing"

	"ferry/internal/lab"
)

// TestPlainNixOnTheTargetMakesTheSameSystem is the first promise: stop using ferry today, and plain Nix on the target goes
// on from the bundle's own paths with the same derivation, whose output is there already.
func TestPlainNixOnTheTargetMakesTheSameSystem(t *testing.T) {
	for title, o := range map[string]siteOptions{
		"Nix 2.8 on both ends":           {},
		"Nix 2.26 here, 2.8 there":       {builder: lab.BuilderOptions{Suite: "trixie"}},
		"Nix 2.8 here, 2.26 there":       {target: lab.Options{Suite: "trixie"}},
		"aarch64 with Nix 2.26 and 2.26": {builder: lab.BuilderOptions{Suite: "trixie", Aarch64: true}, target: lab.Options{Suite: "trixie", System: "aarch64-linux"}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			o.bare = true
			s := newSite(t, o)
			bundle, toplevel := s.installBundle("first", "")
			deriver := strings.TrimSpace(s.must("nix-store", "--query", "--deriver", toplevel))
			if o := s.script(bundle, "boot"); o.status != 0 {
				t.Fatalf("boot: status %d", o.status)
			}
			// Not through the bundle's store path: readFile of Nix 2.8 takes a file there to refer to all that the bundle does.
			const current = "/etc/nixos/current-configuration"
			plain := []string{"nix-instantiate", "<nixpkgs/nixos>", "-A", "system", "-I", "nixpkgs=" + current + "/nixpkgs",
				"-I", "nixos-config=" + current + "/configuration.nix"}
			if got := s.onTarget(plain...); got != deriver {
				t.Errorf("plain Nix on the target makes %s, ferry %s", got, deriver)
			}
			if got := s.onTarget("nix-store", "--realise", deriver); got != toplevel {
				t.Errorf("its output is %s, want %s", got, toplevel)
			}
		})
	}
}
