package session

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
)

func TestPreflight(t *testing.T) {
	good := agent.Facts{Nix: "2.18.1", NixOS: true, System: "x86_64-linux", Machine: "x86_64", StoreFree: 1 << 30}
	for name, c := range map[string]struct {
		change func(*agent.Facts, *bool)
		says   string
	}{
		"all well":              {func(*agent.Facts, *bool) {}, ""},
		"free space not known":  {func(f *agent.Facts, _ *bool) { f.StoreFree = 0 }, ""},
		"locked":                {func(f *agent.Facts, _ *bool) { f.Lock = &agent.Lock{Who: "bob@there", Since: 1} }, "bob@there is deploying to this target since "},
		"locked by nobody":      {func(f *agent.Facts, _ *bool) { f.Lock = &agent.Lock{} }, "someone is deploying to this target"},
		"no Nix":                {func(f *agent.Facts, _ *bool) { f.Nix, f.NixError = "", "nix-store is not in PATH" }, "no working Nix: nix-store is not in PATH"},
		"a Nix without a word":  {func(f *agent.Facts, _ *bool) { f.Nix = "" }, "nix-store does not work there"},
		"no NixOS":              {func(f *agent.Facts, _ *bool) { f.NixOS = false }, "not a NixOS machine"},
		"no NixOS, and forced":  {func(f *agent.Facts, force *bool) { f.NixOS, *force = false, true }, ""},
		"another architecture":  {func(f *agent.Facts, _ *bool) { f.System, f.Machine = "aarch64-linux", "aarch64" }, "built for x86_64-linux, but the target is aarch64-linux"},
		"a full disk":           {func(f *agent.Facts, _ *bool) { f.StoreFree = 1 << 20 }, "disk is full: 1.0 MB free"},
		"the most serious is 1": {func(f *agent.Facts, _ *bool) { *f = agent.Facts{Lock: &agent.Lock{Who: "bob"}} }, "bob is deploying"},
	} {
		t.Run(name, func(t *testing.T) {
			facts, force := good, false
			c.change(&facts, &force)
			err := preflight(facts, "x86_64-linux", force)
			if c.says == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v", err)
			}
			if hints := (&Error{Err: err}).Hints(); len(hints) == 0 {
				t.Error("no hint")
			}
		})
	}
}

func TestRunsOn(t *testing.T) {
	for name, c := range map[string]struct {
		system string
		facts  agent.Facts
		runs   bool
	}{
		"the same":                       {system: "riscv64-linux", facts: agent.Facts{System: "riscv64-linux"}, runs: true},
		"32 bits on 64":                  {system: "i686-linux", facts: agent.Facts{System: "x86_64-linux", Machine: "x86_64"}, runs: true},
		"64 bits on a 32-bit system":     {system: "x86_64-linux", facts: agent.Facts{System: "i686-linux", Machine: "x86_64"}, runs: true},
		"64 bits on 32":                  {system: "x86_64-linux", facts: agent.Facts{System: "i686-linux", Machine: "i686"}, runs: false},
		"ARMv7 on ARMv8":                 {system: "armv7l-linux", facts: agent.Facts{System: "aarch64-linux", Machine: "aarch64"}, runs: true},
		"ARMv7 on ARMv6":                 {system: "armv7l-linux", facts: agent.Facts{System: "armv6l-linux", Machine: "armv6l"}, runs: false},
		"ARM on x86":                     {system: "aarch64-linux", facts: agent.Facts{System: "x86_64-linux", Machine: "x86_64"}, runs: false},
		"emulated":                       {system: "aarch64-linux", facts: agent.Facts{System: "aarch64-linux", Machine: "x86_64"}, runs: true},
		"x86 where another one is run":   {system: "x86_64-linux", facts: agent.Facts{System: "aarch64-linux", Machine: "x86_64"}, runs: false},
		"nothing is known of the target": {system: "x86_64-linux", facts: agent.Facts{}, runs: false},
	} {
		if got := runsOn(c.system, c.facts); got != c.runs {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFits(t *testing.T) {
	for name, c := range map[string]struct {
		facts agent.Facts
		n     uint64
		fits  bool
	}{
		"exactly":                {agent.Facts{StoreFree: 100}, 100, true},
		"not":                    {agent.Facts{StoreFree: 100}, 101, false},
		"not known":              {agent.Facts{}, 1 << 60, true},
		"compressed as it lands": {agent.Facts{StoreFree: 100, StoreCompresses: true}, 300, true},
	} {
		if err := Fits(c.facts, c.n); (err == nil) != c.fits {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLockedSaysSinceWhen(t *testing.T) {
	at := time.Date(2026, 11, 22, 20, 15, 0, 0, time.Local)
	if got := Locked(&agent.Lock{Who: "bob", Since: at.Unix()}).Error(); got != "bob is deploying to this target since 20:15:00" {
		t.Errorf("%q", got)
	}
}

func TestRootsOfEqualNamesInDifferentInventoriesDiffer(t *testing.T) {
	r := Roots{Dir: "/state"}
	seen := map[string]bool{}
	for _, inventory := range []string{"/a/ferry.nix", "/b/ferry.nix"} {
		for _, link := range []string{r.Built(inventory, "pi"), r.Deployed(inventory, "pi"), r.Tried(inventory, "pi")} {
			if seen[link] || !strings.HasPrefix(filepath.Base(link), "pi-") {
				t.Errorf("%s", link)
			}
			seen[link] = true
		}
	}
}

// TestWhatATargetForgetsIsSaidInWords and is no reason not to deploy.
func TestWhatATargetForgetsIsSaidInWords(t *testing.T) {
	for name, c := range map[string]struct {
		facts agent.Facts
		want  []string
	}{
		"nothing": {agent.Facts{}, nil},
		"the link": {agent.Facts{NoLink: "/etc is mounted read-only"}, []string{
			"the link /etc/nixos/current-configuration cannot be made: /etc is mounted read-only",
		}},
		"one folder": {agent.Facts{Emptied: []string{"/var/log/ferry", "/home"}}, []string{
			"a reboot empties /var/log/ferry: the journal of deployments is lost then",
		}},
		"all of them": {agent.Facts{NoLink: "x", Emptied: []string{"/nix/var/nix", "/var/lib/ferry", "/var/log/ferry"}}, []string{
			"the link /etc/nixos/current-configuration cannot be made: x",
			"a reboot empties /nix/var/nix, /var/lib/ferry and /var/log/ferry: what is deployed, the rollback of a --reboot that is tried " +
				"and the journal of deployments is lost then",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			found := Forgets(c.facts)
			if len(found) != len(c.want) {
				t.Fatalf("%+v", found)
			}
			for i, f := range found {
				if f.Err.Error() != c.want[i] || len(HintsOf(f.Err)) != 1 {
					t.Errorf("%q, hints %q", f.Err, HintsOf(f.Err))
				}
			}
			c.facts.Nix, c.facts.NixOS, c.facts.System = "2.18", true, "x86_64-linux"
			if err := preflight(c.facts, "x86_64-linux", false); err != nil {
				t.Error(err)
			}
		})
	}
}
