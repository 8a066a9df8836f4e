package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

func TestANewCrashLoopIsNotKeptBesideAnOldFailure(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.WithServices("old.service loaded failed failed O\n", "0", 0)
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
			m.Open()
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
