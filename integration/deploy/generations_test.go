package deploy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"ferry/integration/site"
)

// generations is what ferry generations --json prints.
type generations struct {
	Node, Current, Booted string
	Older                 int
	Generations           []struct {
		Number                                    int
		Time, Toplevel, Version, Bundle, Revision string
		Dirty, Current, Booted, Default           bool
	}
}

func generationsOf(s *site.Site, args ...string) generations {
	s.T.Helper()
	o := s.Ferry(append([]string{"generations", "--json"}, args...)...)
	var g generations
	if err := json.Unmarshal([]byte(o.Out), &g); o.Status != 0 || err != nil {
		s.T.Fatalf("status %d, %v", o.Status, err)
	}
	return g
}

// git runs git in the project.
func git(s *site.Site, args ...string) string {
	s.T.Helper()
	return strings.TrimSpace(s.Must("git", append([]string{"-C", s.Project, "-c", "user.name=Test", "-c", "user.email=test@example.com"}, args...)...))
}

// TestGenerationsSayWhatRunsAndWhatBoots lists them without root, after a deployment, and with something else running.
func TestGenerationsSayWhatRunsAndWhatBoots(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	git(s, "init", "--quiet")
	git(s, "add", ".")
	git(s, "commit", "--quiet", "--message=first")
	revision := git(s, "rev-parse", "HEAD")

	// No agent is there yet, so root is needed to install it.
	s.Ferry("generations").Fails(t, 1, "web: connect: sudo asks for a password, and there is no terminal to ask on",
		"--sudo-password-file or --sudo-password-command")
	before := s.Counts()
	g := generationsOf(s, "--sudo-password-file", s.Password)
	if got, want := s.Counts().Minus(before), (site.Counts{Logins: 1, Elevations: 1}); got != want {
		t.Errorf("to install the agent: %v, want %v", got, want)
	}
	installed := s.State()
	if len(g.Generations) != 1 || g.Node != "web" || g.Current != installed.Runs || g.Booted != installed.Runs {
		t.Fatalf("%+v", g)
	}
	if one := g.Generations[0]; one.Number != 1 || one.Toplevel != installed.Runs || !one.Current || !one.Booted || !one.Default || one.Revision+one.Bundle != "" {
		t.Errorf("%+v", one)
	}

	s.Deploy()
	deployed := s.State()
	before = s.Counts()
	g = generationsOf(s)
	if got, want := s.Counts().Minus(before), (site.Counts{Logins: 1}); got != want {
		t.Errorf("with the agent there: %v, want %v", got, want)
	}
	if len(g.Generations) != 2 || g.Current != deployed.Runs {
		t.Fatalf("%+v", g)
	}
	version := s.OnTarget("cat", deployed.Runs+"/nixos-version")
	made := s.OnTarget("date", "-u", "-d", "@"+s.OnTarget("stat", "-c", "%Y", "/nix/var/nix/profiles/system-2-link"), "+%Y-%m-%dT%H:%M:%SZ")
	if one := g.Generations[0]; one.Number != 1 || one.Current || one.Default || !one.Booted {
		t.Errorf("the first: %+v", one)
	}
	if two := g.Generations[1]; two.Number != 2 || two.Toplevel != deployed.Runs || two.Version != version || two.Bundle != deployed.Bundle ||
		two.Revision != revision || two.Dirty || !two.Current || two.Booted || !two.Default || two.Time != made {
		t.Errorf("the second: %+v, made %s", two, made)
	}

	o := s.Ferry("generations", "web")
	lines := strings.Split(strings.TrimSpace(o.Out), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[1], "  booted") || !strings.HasSuffix(lines[2], " current default") || !strings.Contains(lines[2], "  "+revision[:7]+"  ") {
		t.Errorf("the table is\n%s", o.Out)
	}

	s.Write("web/configuration.nix", site.Configuration("tested"))
	s.Deploy("--action", "test")
	o = s.Ferry("generations")
	o.Says(t, "ferry: note: web: the running system is none of them: "+s.State().Runs)
	if o.Status != 0 || strings.Contains(o.Out, "current") {
		t.Errorf("status %d:\n%s", o.Status, o.Out)
	}
}

// TestGenerationsRememberTheirRevisions reads the target's journal, which outlives the bundles.
func TestGenerationsRememberTheirRevisions(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Deploy()
	first := s.State()
	s.Write("web/configuration.nix", site.Configuration("second"))
	s.Deploy()
	line := fmt.Sprintf(`{"id":"abc","time":"2026-01-02T03:04:05Z","who":"bob@laptop","action":"switch","node":"web","bundle":%q,"toplevel":%q,`+
		`"revision":"0123456789abcdef0123456789abcdef01234567","dirty":true,"before":{},"after":{"current":%[2]q,"profile":%[2]q,"generation":2,"bundle":%[1]q},`+
		`"outcome":"committed"}`+"\n", first.Bundle, first.Runs)
	s.OnTarget("mkdir", "-p", "/var/log/ferry")
	if err := s.Target.WriteFile(t.Context(), "/var/log/ferry/deployments.jsonl", []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	if two := generationsOf(s).Generations[1]; two.Revision != "0123456789abcdef0123456789abcdef01234567" || !two.Dirty || two.Bundle != first.Bundle {
		t.Errorf("%+v", two)
	}
	if o := s.Ferry("generations"); !strings.Contains(o.Out, "  0123456+  ") {
		t.Errorf("the table is\n%s", o.Out)
	}
}

// TestGenerationsOfThisMachineNeedNoSSH lists those of a node whose target is local.
func TestGenerationsOfThisMachineNeedNoSSH(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Alone: true, Bare: true})
	s.Inventory(s.Node("local"))
	s.Must("mkdir", "-p", "/nix/var/nix/profiles")
	g := generationsOf(s)
	if g.Node != "web" || len(g.Generations) != 0 {
		t.Errorf("%+v", g)
	}
}
