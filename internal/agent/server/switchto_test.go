package server

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// lockScript is the beginning of a switch-to-configuration of today: it does not wait for another one.
const lockScript = `#!/bin/sh
exec 9>>"$FERRY_TEST_ROOT/run/nixos/switch-to-configuration.lock"
flock -n 9 || { echo "Could not acquire lock" >&2; exit 11; }
`

// hold holds NixOS's lock until release.
func (m *fakeMachine) hold() (release func()) {
	m.T.Helper()
	m.Write(switchLock, "")
	file, err := os.OpenFile(m.Path(switchLock), os.O_RDWR, 0)
	if err != nil {
		m.T.Fatal(err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		m.T.Fatal(err)
	}
	return func() { _ = file.Close() }
}

// newLocks gives both systems a switch-to-configuration that locks.
func (m *fakeMachine) newLocks() {
	m.T.Helper()
	m.Write("/run/nixos/.keep", "")
	for _, system := range []string{string(oldSystem), string(newSystem)} {
		m.Program(system+"/bin/switch-to-configuration", strings.Replace(switchScript, "#!/bin/sh\n", lockScript, 1))
	}
}

// waitsFor waits until a job waits for another switch-to-configuration.
func (m *fakeMachine) waitsFor(kind JobKind) {
	m.T.Helper()
	log := filepath.Join(machine.RunFolder, job+"-"+string(kind), logFile)
	until(m.T, "it waits", func() bool {
		return strings.Contains(m.Read(log), "ferry: waiting for another switch-to-configuration: process ")
	})
}

// TestASwitchByHandIsWaitedForEverywhere has somebody else switch, for a moment, whenever ferry wants to.
func TestASwitchByHandIsWaitedForEverywhere(t *testing.T) {
	t.Run("an activation", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		m.newLocks()
		// It begins after the guard has looked, and lets go when the activation has seen it.
		m.Program("/bin/systemd-run", strings.Replace(fakeSystemdRun, `echo "arm $unit $after"`, `[ -e "$FERRY_TEST_ROOT/hold" ] || {
			: >"$FERRY_TEST_ROOT/hold"
			setsid flock "$FERRY_TEST_ROOT/run/nixos/switch-to-configuration.lock" sh -c ': >"$FERRY_TEST_ROOT/held"; until grep -q waiting "$FERRY_TEST_ROOT/run/ferry/deployment1-switch/log"; do sleep 0.01; done' >/dev/null 2>&1 &
			until [ -e "$FERRY_TEST_ROOT/held" ]; do sleep 0.01; done
		}
		echo "arm $unit $after"`, 1))
		f := m.connect(locked("s1"))
		r, log := f.ask(guarded("switch"))
		waits(t, r)
		if r, _ := f.ask(finish(agent.VerdictConfirm)); r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
			t.Errorf("%+v, %v", r.Switch, r.Error)
		}
		if !strings.Contains(log, "ferry: waiting for another switch-to-configuration: ") {
			t.Errorf("the log is %q", log)
		}
	})
	t.Run("a commit", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		m.newLocks()
		f := m.connect(locked("s1"))
		r, _ := f.ask(guarded("switch"))
		waits(t, r)
		release := m.hold()
		f.send(finish(agent.VerdictConfirm))
		m.waitsFor(JobSwitch)
		release()
		if r, _ = f.answer(); r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
			t.Errorf("%+v, %v", r.Switch, r.Error)
		}
	})
	t.Run("a commit without a switch", func(t *testing.T) {
		m := newMachine(t)
		m.newLocks()
		release := m.hold()
		f := m.connect(locked("s1"))
		f.send(commitment("boot"))
		m.waitsFor(JobCommit)
		release()
		if r, _ := f.answer(); r.Error != nil || r.Commit.Status != 0 || r.Commit.Refused != "" {
			t.Errorf("%+v, %v", r.Commit, r.Error)
		}
	})
	t.Run("one that begins after the last look", func(t *testing.T) {
		m := newMachine(t)
		m.Program(string(newSystem)+"/bin/switch-to-configuration", strings.Replace(switchScript, "#!/bin/sh\n", `#!/bin/sh
[ -e "$FERRY_TEST_ROOT/locked" ] || { echo "Could not acquire lock" >&2; : >"$FERRY_TEST_ROOT/locked"; exit 11; }
`, 1))
		if r, _ := m.connect(locked("s1")).ask(commitment("boot")); r.Error != nil || r.Commit.Status != 0 || r.Commit.Refused != "" {
			t.Errorf("%+v, %v", r.Commit, r.Error)
		}
		if want := []string{"nix-env --set 1-new", "1-new boot"}; !slices.Equal(m.calls(), want) {
			t.Errorf("ran %q", m.calls())
		}
	})
	t.Run("a description", func(t *testing.T) {
		m := newMachine(t)
		m.newLocks()
		release := m.hold()
		f := m.connect(locked("s1"))
		f.send(activation("dry-activate"))
		m.waitsFor(JobActivate)
		release()
		if r, _ := f.answer(); r.Error != nil || r.Activate.Status != 0 {
			t.Errorf("%+v, %v", r.Activate, r.Error)
		}
	})
}

// TestASwitchByHandThatLastsIsNamed: nothing has changed, and it is said whose it is.
func TestASwitchByHandThatLastsIsNamed(t *testing.T) {
	m := newMachine(t)
	m.newLocks()
	defer m.hold()()
	r, _ := m.connect(locked("s1")).ask(commitment("boot"))
	want := fmt.Sprintf("another switch-to-configuration is at work on the target: process %d (", os.Getpid())
	if r.Error != nil || r.Commit.Status != 11 || !strings.HasPrefix(r.Commit.Refused, want) {
		t.Errorf("%+v, %v", r.Commit, r.Error)
	}
	if p := readProfile(m.Root); p != (profile{string(oldSystem), 1}) {
		t.Errorf("the profile is %+v", p)
	}
}

// TestASwitchByHandBeforeTheActivationIsLeftAsItIs has it end while ferry waits for it.
func TestASwitchByHandBeforeTheActivationIsLeftAsItIs(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.Write(string(thirdSystem)+"/.keep", "")
	m.Program("/bin/systemd-run", strings.Replace(fakeSystemdRun, `echo "arm $unit $after"`,
		`ln -sfn `+string(thirdSystem)+` "$FERRY_TEST_ROOT/run/current-system"; echo "arm $unit $after"`, 1))
	r, _ := m.connect(locked("s1")).ask(guarded("switch"))
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRefused || r.Switch.Reason != "somebody else has switched the target to third (4444444…) meanwhile" {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	if len(m.calls()) > 0 || m.StorePath("/run/current-system") != string(thirdSystem) {
		t.Errorf("ran %q", m.calls())
	}
}

// TestAStatusIsJudgedByHowFarItCame has statuses that alone say nothing.
func TestAStatusIsJudgedByHowFarItCame(t *testing.T) {
	const refused, back = agent.SwitchRefused, agent.SwitchRolledBack
	for name, c := range map[string]struct {
		says    string
		status  int
		outcome agent.SwitchOutcome
		reason  string
	}{
		"1 before anything":            {"Failed to open dbus connection", 1, refused, "switch-to-configuration refused (exit status 1)"},
		"2 before anything":            {"This is not a NixOS installation!", 2, refused, "switch-to-configuration refused (exit status 2)"},
		"1 with a check":               {"Pre-switch check 'disk' failed\nPre-switch checks failed", 1, refused, "the system's check before a switch failed: disk"},
		"1 with units stopped":         {"stopping the following units: a.service", 1, back, "switch-to-configuration failed in the middle (exit status 1)"},
		"1 with a swap away":           {"stopping swap device: /swap", 1, back, "switch-to-configuration failed in the middle (exit status 1)"},
		"1 without D-Bus":              {"Error: Failed to process dbus messages while waiting for jobs", 1, back, "switch-to-configuration failed in the middle (exit status 1)"},
		"11 of another error":          {"stopping the following units: a.service\nactivating the configuration...\nUnable to list users with logind: x", 11, back, "switch-to-configuration failed in the middle (exit status 11)"},
		"2 of the activation":          {"activating the configuration...\nFailed to run activate script", 2, back, "the activation script failed (exit status 2)"},
		"a check that only says it":    {"activating the configuration...\nPre-switch checks failed", 1, back, "switch-to-configuration failed in the middle (exit status 1)"},
		"a lock that only is named so": {"activating the configuration...\nCould not acquire lock", 11, back, "switch-to-configuration failed in the middle (exit status 11)"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).withSystemd()
			m.Program(string(newSystem)+"/bin/switch-to-configuration", fmt.Sprintf("#!/bin/sh\ncat >&2 <<END\n%s\nEND\nexit %d\n", c.says, c.status))
			r, _ := m.connect(locked("s1")).ask(guarded("switch"))
			if r.Error != nil || r.Switch.Outcome != c.outcome || r.Switch.Reason != c.reason {
				t.Errorf("%+v, %v", r.Switch, r.Error)
			}
			if ran := slices.Equal(m.calls(), []string{"0-old test"}); ran != (c.outcome == back) {
				t.Errorf("ran %q", m.calls())
			}
			m.isOld()
		})
	}
}

// TestTheChecksOfASystemAreAskedOnce: by the activation, and not by the commit of a system that was confirmed.
func TestTheChecksOfASystemAreAskedOnce(t *testing.T) {
	m := newMachine(t).withSystemd()
	for _, system := range []string{string(oldSystem), string(newSystem)} {
		m.Program(system+"/bin/switch-to-configuration", strings.Replace(switchScript, "status=0\n", "status=0\n"+`echo "$which $1 ${NIXOS_NO_CHECK:-asks}" >>"$FERRY_TEST_ROOT/checks"
`, 1))
	}
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	if r, _ = f.ask(finish(agent.VerdictConfirm)); r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	if got := m.Read("/checks"); got != "new test asks\nnew boot 1\n" {
		t.Errorf("asked: %q", got)
	}
	// Where nothing was activated, it asks.
	m = newMachine(t)
	m.Program(string(newSystem)+"/bin/switch-to-configuration", `#!/bin/sh
[ -n "$NIXOS_NO_CHECK" ] || { echo "Pre-switch check 'disk' failed"; echo "Pre-switch checks failed" >&2; exit 1; }
`)
	r, _ = m.connect(locked("s1")).ask(commitment("boot"))
	if r.Error != nil || r.Commit.Status != 1 || r.Commit.Refused != "the system's check before a switch failed: disk" || r.Commit.Unclean {
		t.Errorf("%+v, %v", r.Commit, r.Error)
	}
}

// TestAUserWhoLogsOutDoesNotEndASwitch: the program asks logind about a user who has just left, and ends in the middle.
func TestAUserWhoLogsOutDoesNotEndASwitch(t *testing.T) {
	leaves := func(m *fakeMachine, system string, times int) {
		m.Program(system+"/bin/switch-to-configuration", strings.Replace(switchScript, "#!/bin/sh\n", fmt.Sprintf(`#!/bin/sh
echo x >>"$FERRY_TEST_ROOT/begun"
[ "$(wc -l <"$FERRY_TEST_ROOT/begun")" -gt %d ] || {
	echo "activating the configuration..." >&2
	echo "Error: user eve: Unknown object '/org/freedesktop/login1/user/_1007'." >&2
	exit 1
}
`, times), 1))
	}
	t.Run("once", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		leaves(m, string(newSystem), 1)
		f := m.connect(locked("s1"))
		r, log := f.ask(guarded("switch"))
		waits(t, r)
		if !strings.Contains(log, "ferry: a user has logged out") {
			t.Errorf("the log is %q", log)
		}
		if r, _ := f.ask(finish(agent.VerdictConfirm)); r.Error != nil || r.Switch.Outcome != agent.SwitchCommitted {
			t.Errorf("%+v, %v", r.Switch, r.Error)
		}
	})
	t.Run("again and again", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		leaves(m, string(newSystem), leavingUsers+1)
		r, _ := m.connect(locked("s1")).ask(guarded("switch"))
		if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || !strings.Contains(r.Switch.Reason, "in the middle (exit status 1)") {
			t.Errorf("%+v, %v", r.Switch, r.Error)
		}
	})
	t.Run("on the way back", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		m.Program(string(newSystem)+"/bin/switch-to-configuration", "#!/bin/sh\nln -sfn "+string(newSystem)+" $FERRY_TEST_ROOT/run/current-system\necho activating the configuration... >&2\nexit 2\n")
		leaves(m, string(oldSystem), 1)
		r, _ := m.connect(locked("s1")).ask(guarded("switch"))
		if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.Trouble != "" {
			t.Errorf("%+v, %v", r.Switch, r.Error)
		}
	})
}
