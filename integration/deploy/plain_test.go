package deploy_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestPlainNixOnTheTargetMakesTheSameSystem is the first promise: stop using ferry today, and plain Nix on the target goes
// on from the bundle's own paths with the same derivation, whose output is there already.
func TestPlainNixOnTheTargetMakesTheSameSystem(t *testing.T) {
	for title, o := range map[string]site.Options{
		"Nix 2.8 on both ends":           {},
		"Nix 2.26 here, 2.8 there":       {Builder: lab.BuilderOptions{Suite: "trixie"}},
		"Nix 2.8 here, 2.26 there":       {Target: lab.Options{Suite: "trixie"}},
		"aarch64 with Nix 2.26 and 2.26": {Builder: lab.BuilderOptions{Suite: "trixie", Aarch64: true}, Target: lab.Options{Suite: "trixie", System: "aarch64-linux"}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			o.Bare = true
			s := site.New(t, o)
			bundle, toplevel := installBundle(s, "first", "")
			deriver := strings.TrimSpace(s.Must("nix-store", "--query", "--deriver", toplevel))
			if o := runScript(s, bundle, "boot"); o.Status != 0 {
				t.Fatalf("boot: status %d", o.Status)
			}
			// Not through the bundle's store path: readFile of Nix 2.8 takes a file there to refer to all that the bundle does.
			const current = "/etc/nixos/current-configuration"
			plain := []string{"nix-instantiate", "<nixpkgs/nixos>", "-A", "system", "-I", "nixpkgs=" + current + "/nixpkgs",
				"-I", "nixos-config=" + current + "/configuration.nix"}
			if got := s.OnTarget(plain...); got != deriver {
				t.Errorf("plain Nix on the target makes %s, ferry %s", got, deriver)
			}
			if got := s.OnTarget("nix-store", "--realise", deriver); got != toplevel {
				t.Errorf("its output is %s, want %s", got, toplevel)
			}
		})
	}
}
