package server

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"

	"golang.org/x/sys/unix"
)

// otherAgent is the session of who comes while another one's agent holds the lock.
var otherAgent = Options{Who: "bob@there", Session: "s2", leaving: time.Millisecond}

// setStamp makes the lock look as if its holder had stamped it so long ago.
func setStamp(t *testing.T, m *fakeMachine, ago time.Duration) {
	t.Helper()
	at := unix.NsecToTimeval(machine.Uptime()*int64(time.Millisecond) - int64(ago))
	if err := unix.Utimes(m.Root.Path(lockFile), []unix.Timeval{at, at}); err != nil {
		t.Fatal(err)
	}
}

func stopped(t *testing.T, r machine.Root, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for r.ProcessState(pid) != "T" {
		time.Sleep(time.Millisecond)
	}
}

// TestAnAgentThatDoesNotRunIsEndedByTheNextFerrys locks that a stopped agent, and one that has given no sign for long, does not
// hold a target for ever, whoever wants it next.
func TestAnAgentThatDoesNotRunIsEndedByTheNextFerrys(t *testing.T) {
	for name, c := range map[string]struct {
		session string
		do      func(t *testing.T, m *fakeMachine, pid int)
		ended   string
	}{
		"stopped":                       {"s2", func(t *testing.T, m *fakeMachine, pid int) { stopped(t, machine.Root{}, pid) }, "terminated"},
		"stopped, of the same session":  {"s1", func(t *testing.T, m *fakeMachine, pid int) { stopped(t, machine.Root{}, pid) }, "terminated"},
		"without a sign for some while": {"s2", func(t *testing.T, m *fakeMachine, _ int) { setStamp(t, m, holderLimit+time.Minute) }, "terminated"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			holder := hold(t, "s1")
			if got, by, err := takeLock(machine.Root{Dir: m.Root.Dir}, otherAgent, time.Now()); got != nil || by == nil || err != nil {
				t.Fatalf("while it runs: %v, %v, %v", got, by, err)
			}
			c.do(t, m, holder.Process.Pid)
			got, by, err := takeLock(m.Root, Options{Session: c.session, leaving: time.Millisecond}, time.Now())
			if got == nil || by != nil || err != nil {
				t.Fatalf("%v, %+v, %v", got, by, err)
			}
			got.release()
			if err := holder.Wait(); err == nil || !strings.Contains(err.Error(), c.ended) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// TestAnAgentThatIsDeafIsKilled locks that one that does not run, and does not hear either, is killed in the end.
func TestAnAgentThatIsDeafIsKilled(t *testing.T) {
	m := newMachine(t)
	t.Setenv("FERRY_TEST_DEAF", "1")
	holder := hold(t, "s1")
	setStamp(t, m, time.Hour)
	impatient := otherAgent
	impatient.takeOver = 50 * time.Millisecond
	got, by, err := takeLock(m.Root, impatient, time.Now())
	if got == nil || by != nil || err != nil {
		t.Fatalf("%v, %+v, %v", got, by, err)
	}
	got.release()
	if err := holder.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v", err)
	}
}

// TestAnAgentWhoseSSHIsGoneIsEnded locks that an agent that runs, and that nobody can reach any more, gives way.
func TestAnAgentWhoseSSHIsGoneIsEnded(t *testing.T) {
	m := newMachine(t)
	holder := hold(t, "s1")
	sshd := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := sshd.Start(); err != nil {
		t.Fatal(err)
	}
	id := machine.ProcessID{Pid: sshd.Process.Pid, Start: machine.Root{}.StartTicks(sshd.Process.Pid)}
	file, err := os.OpenFile(m.Root.Path(lockFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	mine := readHolding(file)
	mine.SSHD = id
	if err := writeHolding(file, mine); err != nil {
		t.Fatal(err)
	}
	if got, by, err := takeLock(m.Root, otherAgent, time.Now()); got != nil || by == nil || err != nil {
		t.Fatalf("while its ssh is there: %v, %v, %v", got, by, err)
	}
	_ = sshd.Process.Kill()
	_ = sshd.Wait()
	got, by, err := takeLock(m.Root, otherAgent, time.Now())
	if got == nil || by != nil || err != nil {
		t.Fatalf("%v, %+v, %v", got, by, err)
	}
	got.release()
	if err := holder.Wait(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("it ended with %v", err)
	}
}

// TestAJobIsNotEndedAsAnAgentIs locks that what stands in the agents' lock leads to no guard.
func TestAJobIsNotEndedAsAnAgentIs(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"job", "rollback", "reboot-back", "settle", "keep", "dial"} {
		cmd := &exec.Cmd{Path: self, Args: []string{"ferry-agent", word, "folder"}, Env: append(os.Environ(), "FERRY_TEST_SLEEP=1")}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for !isAgent(cmd.Process.Pid) {
			time.Sleep(time.Millisecond)
		}
		if mayEnd(cmd.Process.Pid) {
			t.Errorf("%s would be ended", word)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// TestAnAgentAtWorkSaysSo locks that frames come while ferry waits for an answer, and none while it does not.
func TestAnAgentAtWorkSaysSo(t *testing.T) {
	m := newMachine(t)
	opts := locked("s1")
	opts.beat = time.Millisecond
	f := m.connect(opts)
	before, err := os.Stat(m.Root.Path(lockFile))
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Duration(machine.Uptime()-before.ModTime().UnixMilli()) * time.Millisecond; age < 0 || age > time.Minute {
		t.Errorf("the lock's stamp is %v old", age)
	}
	if r, _ := f.ask(agent.Request{Method: agent.MethodExec, Argv: []string{"sleep", "0.2"}}); r.Error != nil {
		t.Fatal(r.Error)
	}
	if f.beats.Load() == 0 {
		t.Error("it said nothing")
	}
	after, err := os.Stat(m.Root.Path(lockFile))
	if err != nil || !after.ModTime().After(before.ModTime()) {
		t.Errorf("the lock was stamped at %v and %v, %v", before.ModTime(), after.ModTime(), err)
	}
}

// TestFoldersThatAreSomebodyElsesAreRefused locks that a service with RuntimeDirectory=ferry, StateDirectory=ferry or
// LogsDirectory=ferry cannot have the agent's files in its hands.
func TestFoldersThatAreSomebodyElsesAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files away: run it as root")
	}
	const somebody = 4242
	for name, c := range map[string]struct {
		path  string
		spoil func(string) error
		says  string
	}{
		"the jobs'":          {machine.RunFolder, func(p string) error { return os.Chown(p, somebody, 0) }, "belongs to the user with the number 4242"},
		"the agents'":        {agent.Folder, func(p string) error { return os.Chown(p, somebody, 0) }, "belongs to the user with the number 4242"},
		"the journal's":      {filepath.Dir(journalFile), func(p string) error { return os.Chown(p, somebody, 0) }, "belongs to the user with the number 4242"},
		"a trial's":          {trialFolder, func(p string) error { return os.Chown(p, somebody, 0) }, "belongs to the user with the number 4242"},
		"one in the jobs'":   {machine.RunFolder + "/kept", func(p string) error { return os.Chown(p, somebody, 0) }, "belongs to the user with the number 4242"},
		"below an open one":  {"/run", func(p string) error { return os.Chmod(p, 0o1777) }, "others than root may write to"},
		"a link in others'":  {"/others", func(p string) error { return os.Chown(p, somebody, 0) }, "belongs to the user with the number 4242"},
		"a link into others": {"/var/lib/private/ferry", func(p string) error { return os.Chown(p, somebody, 0) }, "belongs to the user with the number 4242"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			for _, folder := range []string{machine.RunFolder, filepath.Dir(journalFile), c.path} {
				if err := os.MkdirAll(m.Root.Path(folder), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			switch c.path {
			case "/others":
				// The folder that it leads to in the end is root's, and who may move a link on the way is not.
				m.Write("/own/ferry/.keep", "")
				m.Link(m.Path("/others/link"), agent.Folder)
				m.Link("../own/ferry", "/others/link")
			case "/var/lib/private/ferry":
				m.Link("private/ferry", agent.Folder)
			}
			if err := os.MkdirAll(m.Root.Path(agent.Folder), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := ownFolders(m.Root); err != nil {
				t.Fatalf("as it should be: %v", err)
			}
			if err := c.spoil(m.Root.Path(c.path)); err != nil {
				t.Fatal(err)
			}
			if err := ownFolders(m.Root); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			opts := m.on(locked("s1"))
			if c.path == machine.RunFolder {
				// One that is only too wide is narrowed.
				if err := errors.Join(os.Chown(m.Root.Path(c.path), 0, 0), os.Chmod(m.Root.Path(c.path), 0o777), ownFolders(m.Root)); err != nil {
					t.Error(err)
				}
				if info, err := os.Stat(m.Root.Path(c.path)); err != nil || info.Mode().Perm() != 0o755 {
					t.Errorf("%v, %v", info, err)
				}
				return
			}
			if err := Serve(t.Context(), strings.NewReader(""), new(strings.Builder), opts); err == nil || errors.Is(err, os.ErrNotExist) {
				t.Errorf("the agent said %v", err)
			}
		})
	}
}
