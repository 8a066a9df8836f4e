package server

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// countingSystemctl tells of the service loop.service, which is started again between two looks while /control/loops is there.
// The file states has the other services.
const countingSystemctl = `#!/bin/sh
control=$FERRY_TEST_ROOT/control
case $1 in
list-units) cat "$control/failed" 2>/dev/null;;
show)
	case $* in *StateChangeTimestampMonotonic*) ;; *) exit 1;; esac
	while [ "$1" != -- ]; do shift; done
	n=$(cat "$control/count")
	[ ! -e "$control/loops" ] || echo $((n + 1)) >"$control/count"
	for name; do case $name in
	waits.service) printf 'Id=waits.service\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\nExecMainStatus=1\nNRestarts=9\n\n';;
	again.service) printf 'Id=again.service\nActiveState=activating\nSubState=auto-restart\nResult=success\nExecMainStatus=0\nNRestarts=9\n\n';;
	'*.service'|loop.service) printf 'Id=loop.service\nActiveState=active\nSubState=running\nResult=success\nExecMainStatus=0\nNRestarts=%s\nStateChangeTimestampMonotonic=%s\n\n' "$n" "$(cat "$control/since")";;
	esac; done
	cat "$control/others" 2>/dev/null;;
stop) shift 2; for unit; do echo "stop $unit" >>"$FERRY_TEST_ROOT/timers"; done;;
esac
exit 0
`

func (m *fakeMachine) withServices(failed, count string, since int64) *fakeMachine {
	m.T.Helper()
	m.withSystemd()
	m.Program("/bin/systemctl", countingSystemctl)
	m.Write("/control/failed", failed)
	m.Write("/control/count", count+"\n")
	m.Write("/control/since", fmt.Sprintf("%d000\n", since))
	return m
}

func TestUnitsThatWaitToBeStartedAgainAfterAFailureAreInTrouble(t *testing.T) {
	m := newMachine(t).withServices("● a.mount loaded failed failed A\nwaits.service loaded activating auto-restart W\nagain.service loaded activating auto-restart-queued G\n", "0", 0)
	got := failedUnits(t.Context(), new(run.Runner), m.Root)
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
			m := newMachine(t).withServices("", c.count, machine.Uptime()-c.since)
			if got := troubledBefore(t.Context(), new(run.Runner), m.Root); !slices.Equal(got, c.before) {
				t.Errorf("before: %q", got)
			}
			if c.loops {
				m.Write("/control/loops", "")
			}
			if got := systemManager(new(run.Runner), m.Root).troubledAfter(t.Context(), 0, c.known); !slices.Equal(got, c.after) {
				t.Errorf("after: %q", got)
			}
		})
	}
	m := newMachine(t).withServices("", "1", machine.Uptime()-100)
	m.Write("/control/loops", "")
	if got := systemManager(new(run.Runner), m.Root).troubledAfter(t.Context(), machine.Uptime()+1000, nil); len(got) > 0 {
		t.Errorf("what was started again before the switch: %q", got)
	}
}

func TestANewCrashLoopIsNotKeptBesideAnOldFailure(t *testing.T) {
	m := newMachine(t).withServices("old.service loaded failed failed O\n", "0", 0)
	f := m.connect(locked("s1"))
	begin := guarded("switch")
	begin.Switch.Units = agent.Units("no-new")
	r, _ := f.ask(begin)
	waits(t, r)
	m.Write("/control/count", "3\n")
	m.Write("/control/since", fmt.Sprintf("%d000\n", machine.Uptime()))
	m.Write("/control/loops", "")
	r, _ = f.ask(finish(agent.VerdictConfirm))
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.Reason != "units failed: loop.service" {
		t.Errorf("%+v, %v", r.Switch, r.Error)
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
			if strings.Join(got.units, "|") != c.units || strings.Join(got.usersWithoutBus, "|") != c.noBus || got.last != c.last {
				t.Errorf("%q", got)
			}
		})
	}
}

// open lets other users reach the machine's files.
func (m *fakeMachine) open() {
	m.T.Helper()
	for _, folder := range []string{m.Root.Dir, filepath.Dir(m.Root.Dir)} {
		if err := os.Chmod(folder, 0o755); err != nil {
			m.T.Fatal(err)
		}
	}
}

// TestUnitsOfUsersAreAskedOfTheirManagers, none of which holds up the others.
func TestUnitsOfUsersAreAskedOfTheirManagers(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.open()
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
	if got := troubledBefore(t.Context(), new(run.Runner), m.Root); !slices.Equal(got, []string{"alice: u1.service", "alice: u2.service"}) {
		t.Errorf("%q", got)
	}
}

// TestWhatASwitchProgramSaysOfUnitsIsJudged: it decides where no unit is in trouble when ferry looks, but for what other users than
// root and the login user have a hand in.
func TestWhatASwitchProgramSaysOfUnitsIsJudged(t *testing.T) {
	const (
		alice = "reloading user units for alice...\nwarning: the following user units failed: u1.service\nwarning: user activation for alice failed\n"
		eve   = "reloading user units for eve...\nwarning: the following user units failed: e1.service\nwarning: user activation for eve failed\n"
		on    = "restarting sysinit-reactivation.target\n"
	)
	for name, c := range map[string]struct {
		says, before, after string
		policy              agent.Units
		reason              string // "": it is kept
		named               string // of other users
	}{
		"a unit of the login user":             {says: alice + on, reason: "units failed: alice: u1.service"},
		"nobody cares":                         {says: alice + on, policy: "ignore"},
		"one that had failed before":           {says: alice + on, before: "u1.service loaded failed failed U"},
		"one that fails and is not complained": {says: eve + on, after: "u1.service loaded failed failed U", reason: "units failed: alice: u1.service", named: "eve: e1.service"},
		"one that both say":                    {says: alice + eve + on, after: "u1.service loaded failed failed U", reason: "units failed: alice: u1.service", named: "eve: e1.service"},
		"a user without a manager":             {says: "reloading user units for alice...\nError: Failed to open dbus connection\nwarning: user activation for alice failed\n" + on},
		"one whose manager is gone":            {says: "reloading user units for alice...\nError: timed out\nwarning: user activation for alice failed\n" + on, named: "alice: its user units"},
		"a unit of another user":               {says: eve + on, named: "eve: e1.service"},
		"another user without a name":          {says: "reloading user units for eve...\nError: timed out\nwarning: user activation for eve failed\n" + on, named: "eve: its user units"},
		"another user who speaks for others":   {says: "reloading user units for eve...\nFailed to start user unit e1.service: x\n" + on + "warning: the following units failed: sshd.service\n" + alice + on, named: "eve: e1.service, alice: u1.service"},
		"a unit of the system beside them":     {says: eve + on + "warning: the following units failed: a.service\n", reason: "units failed: a.service", named: "eve: e1.service"},
		"a unit that runs by now":              {says: "Failed to start a.service\nwarning: the following units failed: a.service\n", reason: "units failed: a.service"},
		"a pending unit that is gone":          {says: "Failed to start gone.service: Unit gone.service not found.\n", reason: "units failed: gone.service"},
		"nothing that would be a name":         {says: "something went wrong\n", reason: "units failed (exit status 4), and switch-to-configuration does not name them: something went wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			m.open()
			// Whoever starts the agent with sudo, as the login user does.
			t.Setenv("SUDO_UID", "1000")
			m.Write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\neve:x:1001:100::/home/eve:/bin/sh\n")
			m.Write("/run/user/1000/systemd/private", "")
			m.Program("/bin/systemctl", strings.Replace(fakeSystemctl, "case $1 in", "case $1 in\n--user) [ $2 != list-units ] || cat "+m.Path("/control/user-failed")+";;", 1))
			m.Write("/control/user-failed", c.before)
			m.Write("/control/user-fails", c.before+c.after)
			m.Write("/control/says", c.says)
			m.Write("/control/status-test", "4\n")
			m.Program(string(newSystem)+"/bin/switch-to-configuration", strings.Replace(switchScript, `echo "done" >&2`,
				`cat "$FERRY_TEST_ROOT/control/says" >&2; cp "$FERRY_TEST_ROOT/control/user-fails" "$FERRY_TEST_ROOT/control/user-failed"`, 1))
			m.Write("/control/old-is-well", "")
			f := m.connect(locked("s1"))
			begin := guarded("test")
			begin.Switch.Units = c.policy
			r, _ := f.ask(begin)
			if r.Error == nil && r.Switch.Phase == agent.Waiting {
				if r, _ = f.ask(finish(agent.VerdictConfirm)); c.reason != "" {
					t.Error("it is kept")
				}
			}
			if r.Error != nil || c.reason == "" && r.Switch.Outcome != agent.SwitchActivated ||
				c.reason != "" && (r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.Reason != c.reason) {
				t.Fatalf("%+v, %v", r.Switch, r.Error)
			}
			if got := strings.Join(r.Switch.UserUnits, ", "); got != c.named {
				t.Errorf("of others: %q", got)
			}
			if got := readJournal(m.Root, 1); len(got) != 1 || !slices.Equal(got[0].UserUnits, r.Switch.UserUnits) {
				t.Errorf("the journal says %+v", got)
			}
		})
	}
}
