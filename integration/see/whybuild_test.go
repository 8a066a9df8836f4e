package see_test

import (
	"encoding/json"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// building is what ferry why-build --json prints.
type building struct {
	Node, Deployed, New, Unknown string
	Same                         bool
	Build, Fetch                 []string
	Foreign                      []struct {
		Derivation, System string
		Emulated           bool
	}
	Report *struct {
		Causes []struct{ Name, Kind, Text string }
	}
}

func buildingOf(s *site.Site, args ...string) building {
	s.T.Helper()
	o := s.Ferry(append([]string{"why-build", "--json"}, args...)...)
	var b building
	if err := json.Unmarshal([]byte(o.Out), &b); o.Status != 0 || err != nil {
		s.T.Fatalf("status %d, %v", o.Status, err)
	}
	return b
}

// TestWhyBuildNamesTheInputThatHasChanged asks before and after a deployment, and never the target.
func TestWhyBuildNamesTheInputThatHasChanged(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	if b := buildingOf(s); b.Report != nil || b.Unknown == "" || b.Deployed != "" {
		t.Errorf("before a deployment: %+v", b)
	}
	s.Deploy()
	counts := s.Counts()
	if b := buildingOf(s); !b.Same || len(b.Build) != 0 || b.Report != nil || b.Deployed != s.State().Runs {
		t.Errorf("after one: %+v", b)
	}
	if o := s.Ferry("why-build"); o.Status != 0 || !strings.HasPrefix(o.Out, "web: nothing is to be built\n") {
		t.Errorf("status %d", o.Status)
	}
	s.Write("web/configuration.nix", strings.Replace(site.Configuration("first"), `text = "first"`, `text = "why it is built"`, 1))
	b := buildingOf(s)
	if b.Same || b.Report == nil || len(b.Report.Causes) != 1 || b.Report.Causes[0].Name != "etc-greeting" || len(b.Build) != 4 || len(b.Foreign) != 0 {
		t.Errorf("%+v", b)
	}
	o := s.Ferry("why-build")
	if said := strings.Join(strings.Fields(o.Out), " "); !strings.HasPrefix(o.Out, "web: 4 derivations to be built, 0 paths to be fetched\n") ||
		!strings.Contains(said, `because etc-greeting: its text is "why it is built" instead of "first" (it is part of etc, nixos-system-web-24.05pre-git)`) {
		t.Error("it does not say so")
	}
	if got := s.Counts().Minus(counts); got != (site.Counts{}) {
		t.Errorf("the target was asked: %v", got)
	}
}

// TestWhyBuildSaysWhatIsEmulated asks for a system of another architecture, where this machine emulates it and where not.
func TestWhyBuildSaysWhatIsEmulated(t *testing.T) {
	t.Parallel()
	for name, aarch64 := range map[string]bool{"emulated": true, "by a builder": false} {
		t.Run(name, func(t *testing.T) {
			s := site.New(t, site.Options{Builder: lab.BuilderOptions{Aarch64: aarch64}})
			s.Inventory(strings.Replace(s.Node("alice@"+s.Target.Name()), "x86_64-linux", "aarch64-linux", 1))
			s.Write("web/configuration.nix", site.Configuration("never built before"))
			b := buildingOf(s)
			if len(b.Build) == 0 || len(b.Foreign) != len(b.Build) || b.Foreign[0].System != "aarch64-linux" || b.Foreign[0].Emulated != aarch64 {
				t.Errorf("%d to build: %+v", len(b.Build), b.Foreign)
			}
			if o := s.Ferry("why-build"); !strings.Contains(o.Out, "\n  "+name) || !strings.Contains(o.Out, " for aarch64-linux: ") {
				t.Error("it does not say so")
			}
		})
	}
}
