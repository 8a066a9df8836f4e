package fleet_test

import (
	"fmt"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestNodesAreEvaluatedTogetherByEveryNix builds several nodes, one of which is wrong and one warns: those that share a process of Nix get
// what is theirs.
func TestNodesAreEvaluatedTogetherByEveryNix(t *testing.T) {
	t.Parallel()
	for title, suite := range map[string]string{"2.8": "", "2.26": "trixie"} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s := site.New(t, site.Options{Builder: lab.BuilderOptions{Suite: suite}, Bare: true})
			inventory := fmt.Sprintf("{\n  nixpkgs = %q;\n", s.Nixpkgs)
			for i := range 9 {
				name := fmt.Sprintf("n%d", i)
				inventory += fmt.Sprintf("  nodes.%[1]s = { configuration = ./%[1]s.nix; target = \"root@%[1]s\"; };\n", name)
				s.Write(name+".nix", site.Configuration(name))
			}
			s.Write("ferry.nix", inventory+"}\n")
			s.Write("n4.nix", site.With(site.Configuration("n4"), `  nothing.like = "this";`))
			s.Write("n6.nix", site.With(site.Configuration("n6"), `  environment.etc.warned.text = builtins.trace "beware of n6" "";`))
			o := s.Ferry("build", "--all", "-v")
			if o.Status != 3 || strings.Count(o.Errors, "n4: evaluate: ") != 1 {
				t.Errorf("status %d", o.Status)
			}
			o.Says(t, " -A part1 ", "nothing", "n6 | trace: beware of n6")
			if n := strings.Count(o.Out, "\n"); n != 8 {
				t.Errorf("%d bundles", n)
			}
			for i := range 9 {
				if i == 4 {
					continue
				}
				name := fmt.Sprintf("n%d", i)
				alone := strings.TrimSpace(s.Ferry("build", name, "--no-cache").Out)
				if !strings.HasSuffix(alone, "-ferry-"+name) || !strings.Contains(o.Out, name+" "+alone+"\n") {
					t.Errorf("%s is %s alone, and together one of\n%s", name, alone, o.Out)
				}
			}
		})
	}
}
