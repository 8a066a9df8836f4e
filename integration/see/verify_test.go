package see_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// verified is what ferry verify --json prints.
type verified struct {
	Node, Deployed, Rebuilt, Unknown string
	Same                             bool
	NixHere                          string `json:"nix_here"`
	NixThere                         string `json:"nix_there"`
	Report                           *struct {
		Causes []struct {
			Name, Kind, Text string
			PartOf           []string `json:"part_of"`
		}
		Differing int
	}
}

func verifiedOf(s *site.Site, status int, args ...string) verified {
	s.T.Helper()
	o := s.Ferry(append([]string{"verify", "--json"}, args...)...)
	var v verified
	if err := json.Unmarshal([]byte(o.Out), &v); o.Status != status || err != nil {
		s.T.Fatalf("status %d, %v", o.Status, err)
	}
	return v
}

// buildsNothing keeps the target's Nix from building and fetching.
func buildsNothing(s *site.Site) {
	s.T.Helper()
	s.OnTarget("sh", "-c", "printf 'max-jobs = 0\\nsubstituters =\\n' >>/etc/nix/nix.conf && { systemctl restart nix-daemon || true; }")
}

// TestVerifyProvesThatNothingIsRebuilt evaluates on targets with an older and a newer Nix than the building machine's.
func TestVerifyProvesThatNothingIsRebuilt(t *testing.T) {
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			s := site.New(t, site.Options{Target: lab.Options{Suite: suite}})
			s.Write("web/page.html", "hello\n")
			s.Write("web/configuration.nix", site.With(site.Configuration("first"), `environment.etc."page".source = ./page.html; environment.etc."all".source = ./.; environment.etc."whole".source = ../.;`))
			s.Ferry("verify", "--sudo-password-file", s.Password).Fails(t, 1, "web: connect: no deployment of ferry's has left its configuration on the target",
				"ferry verify --here web evaluates on this machine")
			s.Deploy()
			buildsNothing(s)
			deployed := s.State()
			counts := s.Counts()
			v := verifiedOf(s, 0)
			if got, want := s.Counts().Minus(counts), (site.Counts{Logins: 1}); got != want {
				t.Errorf("it took %v, want %v", got, want)
			}
			if !v.Same || v.Deployed != deployed.Runs || v.Rebuilt != deployed.Runs || v.Report != nil || v.NixThere == "" {
				t.Errorf("%+v", v)
			}
			s.Want(s.State(), deployed)
			if o := s.Ferry("verify"); o.Status != 0 || !strings.HasPrefix(o.Out, "web: the same: nixos-rebuild on the target evaluates to /nix/store/") {
				t.Errorf("status %d", o.Status)
			}
			if v := verifiedOf(s, 0, "--here"); !v.Same || v.Rebuilt != deployed.Runs {
				t.Errorf("here: %+v", v)
			}
		})
	}
}

// TestVerifySaysWhyItDiffers has configurations that are evaluated to something else on the target.
func TestVerifySaysWhyItDiffers(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{Suite: "trixie"}})
	for name, c := range map[string]struct {
		more  string
		kinds string
		want  []string
	}{
		"the environment": {
			`environment.etc."home".text = "home: ${builtins.getEnv "HOME"}";`, "setting",
			[]string{`etc-home: its text is "home: /home/alice" instead of "home: "; if that is from builtins.getEnv: it gives nothing where evaluation is pure (it is part of etc, nixos-system-web-24.05pre-git)`},
		},
		"Nix's version": {
			`environment.etc."nix".text = "made by Nix ${builtins.nixVersion}";`, "nix",
			[]string{`etc-nix: it contains Nix's own version, `},
		},
		// A node that is built by emulation or a builder, and asks for the system that evaluates.
		"the evaluating machine": {
			`environment.etc."system".text = builtins.currentSystem or "aarch64-linux"; environment.etc."time".text = toString (builtins.currentTime or 1700000000);`,
			"impure system",
			[]string{
				"etc-system: it is for x86_64-linux instead of aarch64-linux: builtins.currentSystem in the configuration, or another system (it is part of etc, ",
				"etc-time: it contains a time, ", " instead of 1700000000: builtins.currentTime in the configuration (it is part of etc, ",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.In(t)
			s.Write("web/configuration.nix", site.With(site.Configuration(name), c.more))
			s.Deploy()
			o := s.Ferry("verify")
			if o.Status != 1 || !strings.HasSuffix(o.Errors, "ferry: error: web: verify: plain nixos-rebuild would build another system than ferry's\n") {
				t.Errorf("status %d", o.Status)
			}
			said := strings.Join(strings.Fields(o.Out), " ")
			differ := 2 + len(strings.Fields(c.kinds))
			if !strings.Contains(said, fmt.Sprintf("in all %d derivations differ", differ)) || !strings.HasPrefix(o.Out, "web: DIFFERENT: nixos-rebuild on the target would build another system\n") {
				t.Error("it does not say that")
			}
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q", want)
				}
			}
			v := verifiedOf(s, 1)
			var kinds []string
			if v.Report != nil {
				for _, cause := range v.Report.Causes {
					kinds = append(kinds, cause.Kind)
				}
			}
			slices.Sort(kinds)
			if v.Same || v.Report == nil || strings.Join(kinds, " ") != c.kinds || v.Report.Differing != differ {
				t.Errorf("%+v", v)
			}
		})
	}
	t.Run("an error there", func(t *testing.T) {
		s := s.In(t)
		s.Write("web/configuration.nix", site.With(site.Configuration("error"), `environment.etc."x".text = if builtins.getEnv "HOME" == "" then "x" else throw "not at home";`))
		s.Deploy()
		o := s.Ferry("verify")
		if o.Status != 1 || !strings.Contains(o.Errors, "not at home") {
			t.Errorf("status %d", o.Status)
		}
	})
}
