package see_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"ferry/integration/site"
)

// names are things that come, go and change.
type names struct{ Added, Removed, Changed []string }

// unitLists are what is done to units.
type unitLists struct{ Stop, Restart, Reload, Start, Again, Skip, Left, Idle []string }

// comparison is what ferry diff --json prints.
type comparison struct {
	Node          string
	Before, After struct {
		Name, Toplevel, Bundle, Source string
		Here                           bool
	}
	Closure *struct {
		Packages []struct {
			Name, Change  string
			Before, After []string
		}
		PathsBefore int `json:"paths_before"`
		PathsAfter  int `json:"paths_after"`
		SizeBefore  int `json:"size_before"`
		SizeAfter   int `json:"size_after"`
	}
	System *struct {
		Units              unitLists
		UserActions        unitLists `json:"user_unit_actions"`
		Etc, Users, Groups names
		Boot               []string
		Program, Refused   string
		Reexec             bool
		MayDiffer          []string `json:"may_differ"`
		Problems           []string
	}
	NeedsReboot string `json:"needs_reboot"`
	UnitsJudged bool   `json:"units_judged"`
	Unknown     []string
}

func diffOf(s *site.Site, args ...string) comparison {
	s.T.Helper()
	o := s.Ferry(append([]string{"diff", "--json"}, args...)...)
	var c comparison
	if err := json.Unmarshal([]byte(o.Out), &c); o.Status != 0 || err != nil {
		s.T.Fatalf("status %d, %v", o.Status, err)
	}
	return c
}

// unitsBefore and unitsAfter have a unit for everything that may happen to one.
const (
	unitsBefore = `
  systemd.services.goes = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000"; };
  systemd.services.reloads = { wantedBy = [ "multi-user.target" ]; reloadIfChanged = true; reload = "true"; environment.TURN = "one";
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000"; };
  systemd.services.goes-on = { wantedBy = [ "multi-user.target" ]; restartIfChanged = false; environment.TURN = "one";
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000"; };
  systemd.services.idles = { environment.TURN = "one"; serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox true"; };
  users.users.bob = { isNormalUser = true; };
  environment.etc."goes".text = "1";
  system.extraDependencies = [ (pkgs.runCommand "tool-1.9" { } "mkdir $out") (pkgs.runCommand "old-2" { } "mkdir $out") ];
`
	unitsAfter = `
  systemd.services.comes = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000"; };
  systemd.services.reloads = { wantedBy = [ "multi-user.target" ]; reloadIfChanged = true; reload = "true"; environment.TURN = "two";
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000"; };
  systemd.services.goes-on = { wantedBy = [ "multi-user.target" ]; restartIfChanged = false; environment.TURN = "two";
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000"; };
  systemd.services.idles = { environment.TURN = "two"; serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox true"; };
  users.users.eve = { isNormalUser = true; };
  environment.etc."comes".text = "1";
  system.extraDependencies = [ (pkgs.runCommand "tool-1.10" { } "mkdir $out") (pkgs.runCommand "fresh-0.1" { } "mkdir $out") ];
`
)

// mainProcesses are the main processes of units on the target.
func mainProcesses(s *site.Site, units ...string) map[string]string {
	s.T.Helper()
	processes := map[string]string{}
	for _, unit := range units {
		processes[unit] = s.OnTarget("systemctl", "show", "-p", "MainPID", "--value", unit)
	}
	return processes
}

// TestDiffSaysWhatASwitchThenDoes compares what runs with the working tree, deploys that, and looks whether it was true.
func TestDiffSaysWhatASwitchThenDoes(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Write("web/configuration.nix", site.With(site.Configuration("first"), unitsBefore))
	s.Deploy()
	before := s.State()
	s.Write("web/configuration.nix", site.With(site.Configuration("second"), unitsAfter))

	counts := s.Counts()
	c := diffOf(s, "web")
	if got, want := s.Counts().Minus(counts), (site.Counts{Logins: 1}); got != want {
		t.Errorf("diff took %v, want %v", got, want)
	}
	if c.Node != "web" || c.Before.Toplevel != before.Runs || c.Before.Bundle != before.Bundle || !c.Before.Here || !c.After.Here || c.NeedsReboot != "" || c.UnitsJudged {
		t.Errorf("%+v", c)
	}
	u := c.System.Units
	for what, pair := range map[string][2][]string{
		"stop": {u.Stop, {"goes.service"}}, "restart": {u.Restart, {"greeter.service"}}, "reload": {u.Reload, {"reloads.service"}},
		"start": {u.Start, {"comes.service"}}, "skip": {u.Skip, {"goes-on.service"}}, "idle": {u.Idle, {"idles.service"}},
		"files that come": {c.System.Etc.Added, {"comes"}}, "files that go": {c.System.Etc.Removed, {"goes"}}, "changed files": {c.System.Etc.Changed, {"greeting"}},
		"users that come": {c.System.Users.Added, {"eve"}}, "users that go": {c.System.Users.Removed, {"bob"}},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: got %q, want %q", what, pair[0], pair[1])
		}
	}
	var packages []string
	for _, p := range c.Closure.Packages {
		if len(p.Before)+len(p.After) > 0 && !strings.HasPrefix(p.Name, "nixos-system-") && p.Change != "rebuilt" {
			packages = append(packages, fmt.Sprintf("%s %s %s", p.Name, p.Change, strings.Join(append(p.Before, p.After...), ",")))
		}
	}
	if got := strings.Join(packages, "; "); got != "fresh added 0.1; old removed 2; tool upgraded 1.9,1.10" {
		t.Errorf("packages: %s", got)
	}
	o := s.Ferry("diff")
	for _, line := range []string{
		"web: from what runs (generation 2) to the working tree", "  units stopped     goes.service", "  units restarted   greeter.service",
		"  packages          tool  1.9 -> 1.10", "  users added       eve", "  /etc changed      greeting",
	} {
		if !strings.Contains(o.Out, line+"\n") {
			t.Errorf("it does not say %q", line)
		}
	}
	for line := range strings.Lines(o.Out) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 80 {
			t.Errorf("too wide: %s", line)
		}
	}

	processes := mainProcesses(s, "greeter", "reloads", "goes-on")
	said := s.Deploy().Errors
	now := mainProcesses(s, "greeter", "reloads", "goes-on")
	if now["greeter"] == processes["greeter"] || now["reloads"] != processes["reloads"] || now["goes-on"] != processes["goes-on"] {
		t.Errorf("processes were %v and are %v", processes, now)
	}
	if !strings.Contains(said, "stopping the following units: goes.service, greeter.service\n") ||
		!strings.Contains(said, "the following new units were started: comes.service\n") {
		t.Error("the switch did something else")
	}
	s.OnTarget("sh", "-c", "! id bob 2>/dev/null && id eve && test -e /etc/comes && ! test -e /etc/goes")

	t.Run("source", func(t *testing.T) {
		o := s.In(t).Ferry("diff", "--source", "web", "2", "3")
		for _, line := range []string{
			"diff --git a/web/configuration.nix b/web/configuration.nix\n", "--- a/web/configuration.nix\n", "+++ b/web/configuration.nix\n",
			"-  users.users.bob = { isNormalUser = true; };\n", "+  users.users.eve = { isNormalUser = true; };\n",
		} {
			if o.Status != 0 || !strings.Contains(o.Out, line) {
				t.Errorf("status %d, it lacks %q", o.Status, line)
			}
		}
	})
	t.Run("generations", func(t *testing.T) {
		s := s.In(t)
		back := diffOf(s, "web", "3", "2")
		if !reflect.DeepEqual(back.System.Units.Start, []string{"goes.service"}) || !reflect.DeepEqual(back.System.Users.Added, []string{"bob"}) {
			t.Errorf("%+v", back.System)
		}
		same := s.Ferry("diff", "web", before.Bundle, "2")
		if same.Status != 0 || !strings.Contains(same.Out, "  the same system\n") {
			t.Errorf("%+v", same)
		}
		s.Ferry("diff", "web", "9").Fails(t, 1, "web: connect: the target has no generation 9", "ferry generations web lists what is there")
		s.Ferry("diff", "web", "x").Fails(t, 1, `web: connect: "x" is no system: expected a generation's number`, "ferry generations web lists the generations")
	})
	t.Run("a system that is not here", func(t *testing.T) {
		s := s.In(t)
		// It is made on the target: another system in name and closure.
		s.OnTarget("sh", "-ec", `mkdir /tmp/nixos-system-web-9; ln -s "$(readlink -f /run/current-system)/etc" /tmp/nixos-system-web-9/etc
p=$(nix-store --add /tmp/nixos-system-web-9); ln -s "$p" /nix/var/nix/profiles/system-9-link`)
		c := diffOf(s, "web", "9", "3")
		if c.Before.Here || c.System != nil || c.Closure == nil || c.Closure.PathsBefore != 1 || c.Closure.PathsAfter < 10 || len(c.Unknown) != 1 {
			t.Errorf("%+v", c)
		}
		o := s.Ferry("diff", "web", "9", "3")
		if o.Status != 0 || !strings.Contains(o.Out, "generation 9 is not in this machine's store") {
			t.Errorf("status %d", o.Status)
		}
		s.Ferry("diff", "--source", "web", "9", "3").Fails(t, 1, "web: connect: what generation 9 was made from is not known", "compare bundles, by their store paths")
	})
}
