package server

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

func (m *fakeMachine) jobFolder(kind JobKind) string {
	return m.Path(filepath.Join(machine.RunFolder, job+"-"+string(kind)))
}

func TestActivateGivesLogStatusAndWhatRunsThen(t *testing.T) {
	for status, runs := range map[int]string{0: string(newSystem), 1: string(oldSystem), 2: string(newSystem), 4: string(newSystem), 100: string(oldSystem)} {
		m := newMachine(t)
		m.Write("/control/status-test", strconv.Itoa(status)+"\n")
		r, log := m.connect(locked("s1")).ask(activation("test"))
		if r.Error != nil {
			t.Fatal(r.Error)
		}
		if r.Activate.Status != status || r.Activate.Current != runs || r.Activate.Error != "" {
			t.Errorf("status %d: %+v", status, r.Activate)
		}
		if log != "switching: test\ndone\n" || m.Read(strings.TrimPrefix(r.Activate.Log, m.Dir)) != log {
			t.Errorf("status %d: the log is %q", status, log)
		}
		if calls := m.calls(); !slices.Equal(calls, []string{"1-new test"}) {
			t.Errorf("status %d: ran %q", status, calls)
		}
	}
}

func TestActivateSaysWhatCannotBeRun(t *testing.T) {
	m := newMachine(t)
	m.Write(string(newSystem)+"/bin/switch-to-configuration", "not executable")
	if err := os.Chmod(m.Path(string(newSystem)+"/bin/switch-to-configuration"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, _ := m.connect(locked("s1")).ask(activation("test"))
	if r.Error != nil || r.Activate.Status != -1 || !strings.Contains(r.Activate.Error, "permission denied") {
		t.Errorf("%+v, %v", r.Activate, r.Error)
	}
}

func TestJobOutlivesTheConnectionAndIsFollowedFromWhereItWas(t *testing.T) {
	m := newMachine(t)
	m.Write("/control/wait", "")
	first := m.connect(locked("s1"))
	first.send(activation("test"))
	kind, payload, err := first.wire.Read()
	if err != nil || kind != agent.FrameLog {
		t.Fatalf("frame %q, %v", kind, err)
	}
	_ = first.in.Close()
	// That agent is in the middle of an answer: it goes on, and its lock is in the way of others but not of its own session.
	m.Write("/control/go", "")
	if response, _ := first.answer(); response.Activate == nil {
		t.Fatalf("%+v", response.Error)
	}
	<-first.ended
	first.ended <- nil

	second := m.connect(locked("s1"))
	r := activation("test")
	r.Offset = int64(len(payload))
	response, log := second.ask(r)
	if response.Error != nil || response.Activate.Status != 0 || string(payload)+log != "switching: test\ndone\n" {
		t.Errorf("%+v, %v: %q then %q", response.Activate, response.Error, payload, log)
	}
	if calls := m.calls(); !slices.Equal(calls, []string{"1-new test"}) {
		t.Errorf("ran %q", calls)
	}
}

// The agent wrote job.json and was gone before systemd-run: the next one starts the job, once.
func TestJobThatWasOnlyWrittenDownIsStarted(t *testing.T) {
	m := newMachine(t)
	text, err := json.Marshal(Job{Kind: JobActivate, Toplevel: newSystem, Bundle: newBundle, Action: "test", Session: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	folder := "/run/ferry/" + job + "-activate/"
	m.Write(folder+jobFile, string(text))
	m.Write(folder+logFile, "")
	opts := locked("s1")
	opts.beginGrace = time.Millisecond
	r, _ := m.connect(opts).ask(activation("test"))
	if r.Error != nil || r.Activate.Status != 0 {
		t.Errorf("%+v, %v", r.Activate, r.Error)
	}
	if calls := m.calls(); !slices.Equal(calls, []string{"1-new test"}) {
		t.Errorf("ran %q", calls)
	}
}

func TestJobThatDoesNotBeginNeverWill(t *testing.T) {
	m := newMachine(t)
	opts := locked("s1")
	opts.beginGrace = time.Millisecond
	opts.Program = "/bin/true"
	f := m.connect(opts)
	r, _ := f.ask(activation("test"))
	if r.Error == nil || !strings.Contains(r.Error.Text, "did not begin") {
		t.Errorf("%+v, %v", r.Activate, r.Error)
	}
	if _, err := os.Stat(m.jobFolder(JobActivate)); !os.IsNotExist(err) {
		t.Errorf("its folder: %v", err)
	}
}

func TestJobThatComesTooLateDoesNothing(t *testing.T) {
	m := newMachine(t)
	folder := "/run/ferry/" + job + "-activate/"
	m.Write(folder+jobFile, `{"kind":"activate","toplevel":"`+string(newSystem)+`","action":"test"}`)
	m.Write(folder+begunFile, "")
	if err := runJobIn(t.Context(), m.Root, m.Path(folder)); err != nil {
		t.Error(err)
	}
	if calls := m.calls(); calls != nil {
		t.Errorf("ran %q", calls)
	}
}

func TestJobThatIsKilledIsToldSo(t *testing.T) {
	m := newMachine(t)
	m.Write("/control/wait", "")
	f := m.connect(locked("s1"))
	f.send(activation("test"))
	if kind, _, err := f.wire.Read(); err != nil || kind != agent.FrameLog {
		t.Fatalf("frame %q, %v", kind, err)
	}
	killHolder(t, m)
	r, _ := f.answer()
	if r.Error != nil || r.Activate.Status != -1 || r.Activate.Error != "it was killed" {
		t.Errorf("%+v, %v", r.Activate, r.Error)
	}
	m.Write("/control/go", "")
	// Once more: it is known to have been killed, and not begun again.
	if r, _ := f.ask(activation("test")); r.Error != nil || r.Activate.Error != "it was killed" {
		t.Errorf("%+v, %v", r.Activate, r.Error)
	}
}

// killHolder kills the job's process.
func killHolder(t *testing.T, m *fakeMachine) {
	t.Helper()
	held := atWork(m.Root)
	if held == nil {
		t.Fatal("no job is at work")
	}
	process, err := os.FindProcess(held.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
}

const systemdRunScript = `#!/bin/sh
echo "systemd-run" >>"$FERRY_TEST_ROOT/calls"
while [ "$1" != -- ]; do case $1 in --*) ;; *) exit 9;; esac; shift; done
shift
[ -e "$FERRY_TEST_ROOT/control/systemd-lies" ] || [ ! -e "$FERRY_TEST_ROOT/control/systemd-fails" ] || { echo "Failed to start" >&2; exit 1; }
"$@" </dev/null >/dev/null 2>&1 &
[ ! -e "$FERRY_TEST_ROOT/control/systemd-lies" ] || { while [ ! -e "$FERRY_TEST_ROOT/calls.2" ]; do sleep 0.01; grep -q test "$FERRY_TEST_ROOT/calls" && break; done; echo "Connection timed out" >&2; exit 1; }
`

func TestJobIsStartedThroughSystemd(t *testing.T) {
	for name, c := range map[string]struct {
		control string
		runs    []string
		fails   string
	}{
		"":                               {"", []string{"systemd-run", "1-new test"}, ""},
		"which refuses":                  {"systemd-fails", []string{"systemd-run"}, "Failed to start"},
		"which fails but has started it": {"systemd-lies", []string{"systemd-run", "1-new test"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Write(machine.SystemdRuns+"/.keep", "")
			m.Program("/bin/systemd-run", systemdRunScript)
			m.Program("/bin/systemctl", "#!/bin/sh\ncase $1 in --version) echo 'systemd 252 (252.1)';; *) echo '● old.service loaded failed failed x';; esac\n")
			if c.control != "" {
				m.Write("/control/"+c.control, "")
			}
			f := m.connect(locked("s1"))
			if f.hello.Facts.Systemd != 252 {
				t.Errorf("systemd %d", f.hello.Facts.Systemd)
			}
			r, _ := f.ask(activation("test"))
			if (r.Error != nil) != (c.fails != "") || r.Error != nil && !strings.Contains(r.Error.Text, c.fails) {
				t.Errorf("%+v, %v", r.Activate, r.Error)
			}
			if r.Activate != nil && len(r.Activate.Failed) != 0 {
				t.Errorf("a unit that had failed before is named: %q", r.Activate.Failed)
			}
			if calls := m.calls(); !slices.Equal(calls, c.runs) {
				t.Errorf("ran %q", calls)
			}
			if c.fails == "" {
				return
			}
			// Tried again it is a new job, not the one that failed to start.
			if err := os.Remove(m.Path("/control/" + c.control)); err != nil {
				t.Fatal(err)
			}
			if r, _ := f.ask(activation("test")); r.Error != nil || r.Activate.Status != 0 {
				t.Errorf("again: %+v, %v", r.Activate, r.Error)
			}
		})
	}
}

func TestUnitCommandUsesOnlyWhatOldSystemdsHave(t *testing.T) {
	argv := unitCommand("/run/ferry/"+job+"-activate", Job{Kind: JobActivate, Toplevel: newSystem}, "/var/lib/ferry/agent-x")
	want := []string{
		"systemd-run", "--quiet", "--no-ask-password", "--unit=ferry-deployment1-activate", "--description=ferry: activate new",
		"--property=KillMode=process", "--", "/var/lib/ferry/agent-x", "job", "/run/ferry/deployment1-activate",
	}
	if !slices.Equal(argv, want) {
		t.Errorf("%q", argv)
	}
}

func TestCommitMovesTheBootDefaultAndThenTheRoot(t *testing.T) {
	m := newMachine(t)
	m.Link(string(newBundle), machine.GCRoots+"/pending")
	r, log := m.connect(locked("s1")).ask(commitment("boot"))
	if r.Error != nil || *r.Commit != (agent.CommitResult{Generation: 2, Log: m.jobFolder(JobCommit) + "/log"}) {
		t.Errorf("%+v, %v", r.Commit, r.Error)
	}
	if calls := m.calls(); !slices.Equal(calls, []string{"nix-env --set 1-new", "1-new boot"}) {
		t.Errorf("ran %q", calls)
	}
	if log != "switching: boot\ndone\n" {
		t.Errorf("the log is %q", log)
	}
	if p := readProfile(m.Root); p != (profile{string(newSystem), 2}) {
		t.Errorf("the profile is %+v", p)
	}
	if got := m.StorePath(currentConfiguration); got != string(newBundle) {
		t.Errorf("the root is %q", got)
	}
	if got, err := os.Readlink(m.Path(currentRoot)); err != nil || got != string(newBundle) {
		t.Errorf("Nix would not find the root: %q, %v", got, err)
	}
	if m.Exists(machine.GCRoots + "/pending") {
		t.Error("the bundle is still pending")
	}
}

func TestCommitOfWhatTheProfileIsAlreadyWritesTheBootLoader(t *testing.T) {
	m := newMachine(t)
	r := commitment("boot")
	r.Toplevel = oldSystem
	if r, _ := m.connect(locked("s1")).ask(r); r.Error != nil || r.Commit.Generation != 1 {
		t.Errorf("%+v, %v", r.Commit, r.Error)
	}
	if calls := m.calls(); !slices.Equal(calls, []string{"0-old boot"}) {
		t.Errorf("ran %q", calls)
	}
}

func TestCommitOfTheRootAloneTouchesNothingElse(t *testing.T) {
	m := newMachine(t)
	if r, _ := m.connect(locked("s1")).ask(commitment("root")); r.Error != nil || r.Commit.Status != 0 || r.Commit.Error != "" {
		t.Errorf("%+v, %v", r.Commit, r.Error)
	}
	if calls := m.calls(); len(calls) != 0 {
		t.Errorf("ran %q", calls)
	}
}

func TestCommitThatFailsPutsBackWhatWasThere(t *testing.T) {
	for name, c := range map[string]struct {
		control map[string]string
		status  int
		says    string
		runs    []string
		boots   profile
	}{
		"the boot loader cannot be written": {
			map[string]string{"status-boot": "1\n", "old-is-well": ""}, 1, "",
			[]string{"nix-env --set 1-new", "1-new boot", "nix-env --switch-generation 1", "0-old boot"}, profile{string(oldSystem), 1},
		},
		"not even the old one": {
			map[string]string{"status-boot": "1\n"}, 1, "the boot loader could not be put back: exit status 1",
			[]string{"nix-env --set 1-new", "1-new boot", "nix-env --switch-generation 1", "0-old boot"}, profile{string(oldSystem), 1},
		},
		"the profile cannot be set": {
			map[string]string{"nix-env-fails": ""}, -1, "read-only file system", []string{"nix-env --set 1-new"}, profile{string(oldSystem), 1},
		},
		"the root cannot be moved": {
			map[string]string{".." + currentRoot + "/in-the-way": ""}, -1, "file exists",
			[]string{"nix-env --set 1-new", "1-new boot", "nix-env --switch-generation 1", "0-old boot"}, profile{string(oldSystem), 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Link(string(newBundle), machine.GCRoots+"/pending")
			for file, text := range c.control {
				m.Write("/control/"+file, text)
			}
			r, _ := m.connect(locked("s1")).ask(commitment("boot"))
			if r.Error != nil || r.Commit.Status != c.status || !strings.Contains(r.Commit.Error, c.says) || c.says == "" && r.Commit.Error != "" {
				t.Errorf("%+v, %v", r.Commit, r.Error)
			}
			if calls := m.calls(); !slices.Equal(calls, c.runs) {
				t.Errorf("ran %q", calls)
			}
			if p := readProfile(m.Root); p != c.boots {
				t.Errorf("the profile is %+v", p)
			}
			if got := m.StorePath(currentConfiguration); got != string(oldBundle) {
				t.Errorf("the root is %q", got)
			}
			if !m.Exists(machine.GCRoots + "/pending") {
				t.Error("what was shipped is not kept")
			}
		})
	}
}

func TestOldJobsAreRemoved(t *testing.T) {
	m := newMachine(t)
	now := time.Now()
	for name, c := range map[string]struct {
		status bool
		age    time.Duration
		stays  bool
	}{
		"ended-activate": {true, keepJobs + time.Hour, false}, "recent-activate": {true, time.Hour, true}, "running-commit": {false, 0, true},
	} {
		folder := machine.RunFolder + "/" + name
		m.Write(folder+"/"+logFile, "")
		if c.status {
			m.Write(folder+"/"+statusFile, "{}")
			if err := os.Chtimes(m.Path(folder+"/"+statusFile), now.Add(-c.age), now.Add(-c.age)); err != nil {
				t.Fatal(err)
			}
		}
	}
	removeOldJobs(m.Root, now)
	if left, _ := filepath.Glob(m.Path(machine.RunFolder) + "/*-*"); len(left) != 2 {
		t.Errorf("left: %q", left)
	}
}
