package see_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"ferry/integration/site"
)

// foretoldUnits is a part of a configuration that has units for whatever may happen to one, in their first or second turn.
func foretoldUnits(rules string, second bool) string {
	turn := "one"
	if second {
		turn = "two"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "system.switch.rules = %q;\n", rules)
	unit := func(name, text, wantedBy string) {
		text = strings.NewReplacer("SLEEP", "${pkgs.busybox}/bin/busybox sleep 100000", "TRUE", "${pkgs.busybox}/bin/busybox true", "TURN", turn,
			"RELOAD", "${pkgs.busybox}/bin/busybox sh -c 'echo >>/run/%n.reloads'").Replace(text)
		manager := "systemd."
		if rest, isUser := strings.CutPrefix(name, "user "); isUser {
			manager, name = "systemd.user.", rest
		}
		fmt.Fprintf(&b, "%sunits.%q = { wantedBy = [ %q ]; text = ''\n%s''; };\n", manager, name, wantedBy, text)
	}
	const service = "[Service]\nExecStart=SLEEP\n"
	either := func(one, two string) string {
		if second {
			return two
		}
		return one
	}
	const multi = "multi-user.target"
	unit("t-changed.service", service+"Environment=T=TURN\n", multi)
	unit("t-same.service", service, multi)
	unit("t-described.service", "[Unit]\nDescription=TURN\n"+service, multi)
	unit("t-comment.service", service+"Environment=A=1 ; TURN\n", multi)
	unit("t-reset.service", service+either("", "Environment=\n")+"Environment=A=1\n", multi)
	unit("t-reload.service", service+"ExecReload=RELOAD\nX-ReloadIfChanged=true\nEnvironment=T=TURN\n", multi)
	unit("t-trigger.service", "[Unit]\nX-Reload-Triggers=TURN\n"+service+"ExecReload=RELOAD\n", multi)
	unit("t-dropped.service", "[Unit]\n"+either("X-Reload-Triggers=1\n", "")+service+"ExecReload=RELOAD\n", multi)
	unit("t-reloads.service", service+"ExecReload=RELOAD TURN\n", multi)
	unit("t-reloadless.service", service+either("ExecReload=RELOAD\n", ""), multi)
	unit("t-path.path", "[Path]\nPathExists=/nowhere/TURN\nUnit=t-same.service\n", multi)
	unit("t-timer.timer", "[Timer]\nOnCalendar="+either("yearly", "monthly")+"\nUnit=t-same.service\n", "timers.target")
	unit("t-restarts.service", service+"X-StopIfChanged=false\nEnvironment=T=TURN\n", multi)
	unit("t-goes-on.service", service+"X-RestartIfChanged=false\nEnvironment=T=TURN\n", multi)
	unit("t-moment.service", "[Service]\nType=oneshot\nExecStart=TRUE\n", multi)
	unit("t-template@.service", service+"Environment=T=TURN\n", "nothing.target")
	unit("t-stopped.service", service, multi)
	// The service starts when somebody comes, but where something else wants it.
	unit("t-alone.service", service+"Environment=T=TURN\n", "nothing.target")
	unit("t-alone.socket", "[Socket]\nListenStream=/run/t-alone\n", "sockets.target")
	unit("t-both.service", "[Unit]\nRequires=t-both.socket\nAfter=t-both.socket\n"+service+"Environment=T=TURN\n", multi)
	unit("t-both.socket", "[Socket]\nListenStream=/run/t-both\n", "sockets.target")
	unit("t-becomes.service", service+"Environment=T=TURN\n", either(multi, "nothing.target"))
	// The network's target is wanted by what runs, and by what does not and is started.
	unit("t-wants-network.service", "[Unit]\nWants=network.target\nAfter=network.target\n"+service, multi)
	unit("t-wants-pre.service", "[Unit]\nWants=t-pre.target\n"+service, either("nothing.target", multi))
	unit("t-pre.target", "[Unit]\nRefuseManualStart=yes\n", "nothing.target")
	unit("t-by-pre.service", service, "t-pre.target")
	unit("user t-user.service", service+"Environment=T=TURN\n", "default.target")
	unit("user t-user-same.service", service, "default.target")
	if second {
		b.WriteString("systemd.extraConfig = \"DefaultTasksMax=90%\";\n")
		unit("t-becomes.socket", "[Socket]\nListenStream=/run/t-becomes\n", "sockets.target")
		unit("t-new.service", service, multi)
		unit("t-wanted-by-network.service", service, "network.target")
		unit("t-by-hand.service", service, "nothing.target")
	} else {
		unit("t-gone.service", service, multi)
	}
	return b.String()
}

// seen is what a look at a machine's units tells: when each began, and how often it was reloaded.
type seen map[string][2]string

// look asks for the units of the test.
func look(s *site.Site) seen {
	s.T.Helper()
	out := s.OnTarget("sh", "-c", `
show() { "$@" list-units --all --plain --no-legend 't-*' | while read -r unit _ state _; do
	[ "$state" = inactive ] || state=$("$@" show -p InvocationID --value "$unit")
	printf '%s %s %s\n' "$prefix$unit" "$state" "$(cat "/run/$unit.reloads" 2>/dev/null | wc -l)"
done; }
prefix= show systemctl
prefix=user/ show su -s /bin/sh -c 'XDG_RUNTIME_DIR=/run/user/$(id -u) exec systemctl --user "$@"' -- alice sh
`)
	units := seen{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 {
			units[f[0]] = [2]string{f[1], f[2]}
		}
	}
	return units
}

// happened says what has happened to units between two looks: verbs and names, sorted.
func (before seen) happened(after seen) []string {
	all := maps.Clone(before)
	maps.Copy(all, after)
	var happened []string
	for unit := range all {
		was, is := before[unit], after[unit]
		ran, runs := was[0] != "" && was[0] != "inactive", is[0] != "" && is[0] != "inactive"
		switch {
		case ran && !runs:
			happened = append(happened, "stop "+unit)
		case ran && was[0] != is[0]:
			happened = append(happened, "restart "+unit)
		case !ran && runs:
			happened = append(happened, "start "+unit)
		case runs && was[1] != is[1]:
			happened = append(happened, "reload "+unit)
		}
	}
	slices.Sort(happened)
	return happened
}

// TestAPlanForetellsWhatTheSystemsOwnSwitchProgramDoes plans a change with a unit for each rule, deploys it, and compares with what has
// happened: for today's program, the one of autumn 2024, and the one in Perl.
func TestAPlanForetellsWhatTheSystemsOwnSwitchProgramDoes(t *testing.T) {
	for _, rules := range []string{"2026", "2024-09", "perl"} {
		t.Run(rules, func(t *testing.T) {
			t.Parallel()
			s := site.New(t, site.Options{})
			s.Write("web/configuration.nix", site.With(site.Configuration("first"), foretoldUnits(rules, false)))
			s.Deploy("--replace-unknown")
			// Debian has a second name for the folder of users' units, by which their managers know it; NixOS has not.
			s.OnTarget("sh", "-ec", `rm -f /etc/xdg/systemd/user
loginctl enable-linger alice
systemctl start t-alone.service t-template@x.service t-template@y.z.service
systemctl stop t-stopped.service
user() { su alice -s /bin/sh -c 'XDG_RUNTIME_DIR=/run/user/$(id -u) exec systemctl --user "$@"' sh "$@"; }
for try in $(seq 100); do user daemon-reload && break; sleep 0.1; done
user start t-user t-user-same`)
			s.Write("web/configuration.nix", site.With(site.Configuration("first"), foretoldUnits(rules, true)))
			p := planOf(s)
			if p.System.Program != rules || len(p.System.MayDiffer)+len(p.System.Problems) > 0 || p.System.Refused != "" {
				t.Errorf("the program: %+v", p.System)
			}
			before := look(s)
			said := s.Deploy().Errors
			got := before.happened(look(s))
			want := []string{}
			for prefix, u := range map[string]unitLists{"": p.System.Units, "user/": p.System.UserActions} {
				for verb, units := range map[string][]string{"stop": u.Stop, "restart": u.Restart, "reload": u.Reload, "start": u.Start} {
					for _, unit := range units {
						if strings.HasPrefix(unit, "t-") {
							want = append(want, verb+" "+prefix+unit)
						}
					}
				}
			}
			for _, unit := range p.System.Units.Again {
				// What only runs for a moment is over.
				if strings.HasPrefix(unit, "t-") && unit != "t-moment.service" {
					want = append(want, "start "+unit)
				}
			}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("happened:\n%s\nforetold:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if !slices.Contains(p.System.Units.Again, "t-moment.service") || !slices.Contains(p.System.Units.Again, "t-stopped.service") ||
				!slices.Contains(p.System.Units.Skip, "t-goes-on.service") {
				t.Errorf("again %q, skipped %q", p.System.Units.Again, p.System.Units.Skip)
			}
			if is := strings.Contains(said, "restarting systemd..."); is != p.System.Reexec || is != (rules != "perl") {
				t.Errorf("systemd started itself anew: %v, foretold: %v", is, p.System.Reexec)
			}
			t.Logf("happened: %s", strings.Join(got, ", "))
		})
	}
}
