package units

import (
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent/machine"
	"ferry/internal/agent/machine/machinetest"
	"ferry/internal/run"
)

func TestUnitsThatWaitToBeStartedAgainAfterAFailureAreInTrouble(t *testing.T) {
	m := newMachine(t).WithServices("● a.mount loaded failed failed A\nwaits.service loaded activating auto-restart W\nagain.service loaded activating auto-restart-queued G\n", "0", 0)
	got := Troubled(t.Context(), new(run.Runner), m.Root)
	if !slices.Equal(got, []string{"a.mount", "waits.service"}) {
		t.Errorf("%q", got)
	}
}

func TestAServiceThatIsStartedAgainAndAgainIsInTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		loops         bool
		count         string
		since         int64 // before now, in milliseconds
		known         []string
		before, after []string
	}{
		"it goes on":                     {true, "1", 100, nil, []string{"loop.service"}, []string{"loop.service"}},
		"it goes on as before":           {true, "1", 100, []string{"loop.service"}, []string{"loop.service"}, nil},
		"it was started again once":      {false, "1", settled.Milliseconds() + 1, nil, []string{"loop.service"}, nil},
		"it was started again once, now": {false, "1", settled.Milliseconds() - 1000, nil, []string{"loop.service"}, nil},
		"it never was":                   {false, "0", 100, nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).WithServices("", c.count, machine.Uptime()-c.since)
			if got := TroubledBefore(t.Context(), new(run.Runner), m.Root); !slices.Equal(got, c.before) {
				t.Errorf("before: %q", got)
			}
			if c.loops {
				m.Write("/control/loops", "")
			}
			if got := System(new(run.Runner), m.Root).TroubledAfter(t.Context(), 0, c.known); !slices.Equal(got, c.after) {
				t.Errorf("after: %q", got)
			}
		})
	}
	m := newMachine(t).WithServices("", "1", machine.Uptime()-100)
	m.Write("/control/loops", "")
	if got := System(new(run.Runner), m.Root).TroubledAfter(t.Context(), machine.Uptime()+1000, nil); len(got) > 0 {
		t.Errorf("what was started again before the switch: %q", got)
	}
}

func TestWhatASwitchProgramSaysOfUnitsIsRead(t *testing.T) {
	for name, c := range map[string]struct{ log, units, noBus, last string }{
		"the new one": {"starting the following units: a.service\nFailed to start a.service\nwarning: the following units failed: a.service, b.service\n× a.service - A\n",
			"a.service|b.service", "", "× a.service - A"},
		"the old one":         {"Job for c.service failed because the control process exited with error code.\nwarning: the following units failed: c.service\n", "c.service", "", "warning: the following units failed: c.service"},
		"a refused call":      {"Failed to reload d.path: Job type reload is not applicable\nferry: going on\n", "d.path", "", "Failed to reload d.path: Job type reload is not applicable"},
		"units of a user":     {"reloading user units for alice...\nFailed to restart user unit u1.service\nwarning: the following user units failed: u1.service\nSee `systemctl --user status u1.service` for details.\nwarning: user activation for alice failed\n", "alice: u1.service", "", "warning: user activation for alice failed"},
		"a user, no name":     {"reloading user units for alice...\nError: timed out\nwarning: user activation for alice failed\n", "alice: its user units", "", "warning: user activation for alice failed"},
		"a user without bus":  {"reloading user units for alice...\nError: Failed to open dbus connection\n\nCaused by:\n  no such file\nwarning: user activation for alice failed\nreloading user units for bob...\n", "", "alice", "reloading user units for bob..."},
		"nothing of that":     {"activating the configuration...\nFailed to start the day\n", "", "", "Failed to start the day"},
		"a snippet":           {"Activation script snippet 'broken' failed (1)\n", "", "", "Activation script snippet 'broken' failed (1)"},
		"nothing at all":      {"", "", "", ""},
		"hostile":             {"warning: the following units failed: \x1b[2Ja.service\n", "a.service", "", "warning: the following units failed: a.service"},
		"a line without end":  {"warning: the following units failed: e.service", "e.service", "", "warning: the following units failed: e.service"},
		"its tmpfiles' units": {"Failed to restart sysinit-reactivation.target: Unit not found.\n", "sysinit-reactivation.target", "", "Failed to restart sysinit-reactivation.target: Unit not found."},
	} {
		t.Run(name, func(t *testing.T) {
			got := parseComplaints(strings.NewReader(c.log))
			if strings.Join(got.Units, "|") != c.units || strings.Join(got.UsersWithoutBus, "|") != c.noBus || got.Last != c.last {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestUnitsOfUsersAreAskedOfTheirManagers, none of which holds up the others.
func TestUnitsOfUsersAreAskedOfTheirManagers(t *testing.T) {
	m := newMachine(t).WithSystemd()
	m.Open()
	t.Setenv("SECRET", "root's")
	m.Program("/bin/systemctl", `#!/bin/sh
[ "$1" != --user ] || [ "$(id -u):$(id -g):$SECRET" = "${XDG_RUNTIME_DIR##*/}:100:" ] || exit 1
case "$1 $2 $XDG_RUNTIME_DIR" in
'--user list-units '*/1000) printf 'u1.service loaded failed failed U\nu2.service loaded activating auto-restart U\nu3.service loaded activating auto-restart U\n';;
'--user show '*/1000) printf 'Id=u2.service\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\n\nId=u3.service\nActiveState=activating\nSubState=auto-restart\nResult=success\n';;
'--user '*) sleep 60;;
esac
`)
	m.Write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\naaron:x:1001:100::/home/aaron:/bin/sh\n")
	m.Write("/run/user/1000/systemd/private", "")
	m.Write("/run/user/1001/systemd/private", "")
	if got := TroubledBefore(t.Context(), new(run.Runner), m.Root); !slices.Equal(got, []string{"alice: u1.service", "alice: u2.service"}) {
		t.Errorf("%q", got)
	}
}

// newMachine is one whose programs are found first.
func newMachine(t *testing.T) *machinetest.Machine {
	t.Helper()
	m := machinetest.New(t)
	m.RunsPrograms()
	return m
}
