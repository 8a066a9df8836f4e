package server

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
)

// TestACommitThatIsKilledIsUndone kills the process of an action boot while it writes the boot loader; systemd starts it again.
func TestACommitThatIsKilledIsUndone(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.Program("/bin/systemd-run", strings.Replace(fakeSystemdRun, `setsid "$@"`, `echo "$restarts" >"$FERRY_TEST_ROOT/control/restarts"
	setsid "$@"`, 1))
	m.Program("/bin/systemd-run", strings.Replace(m.Read("/bin/systemd-run"), "for arg; do\n", "for arg; do\n\tcase $arg in --property=Restart=*) restarts=${arg#*=};; esac\n", 1))
	m.Write("/control/hang-new-boot", "")
	f := m.connect(locked("s1"))
	f.send(commitment("boot"))
	folder := m.jobFolder(JobCommit)
	until(t, "the boot loader is written", func() bool { return slices.Contains(m.calls(), "1-new boot") })
	if got := m.Read("/control/restarts"); got != "Restart=on-abnormal\n" {
		t.Errorf("the unit has %q", got)
	}
	killHolder(t, m)
	if err := os.Remove(m.Path("/control/hang-new-boot")); err != nil {
		t.Fatal(err)
	}
	until(t, "it is gone", func() bool { return !running(folder) })
	again := exec.CommandContext(t.Context(), os.Args[0], "job", folder)
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, _ := f.answer()
	if r.Error != nil || r.Commit.Status != -1 || r.Commit.Error != "it was killed" || r.Commit.Unclean {
		t.Errorf("%+v, %v", r.Commit, r.Error)
	}
	want := []string{"nix-env --set 1-new", "1-new boot", "nix-env --switch-generation 1", "0-old boot"}
	if calls := m.calls(); !slices.Equal(calls, want) {
		t.Errorf("ran %q", calls)
	}
	m.isOld()
	if entries := readJournal(m.Root, 9); len(entries) != 1 || entries[0].Outcome != agent.JournalFailed || !strings.Contains(entries[0].Reason, "it was killed") {
		t.Errorf("the journal has %+v", entries)
	}
	// A third start has nothing to do.
	if err := runJobIn(t.Context(), m.Root, folder); err != nil || !slices.Equal(m.calls(), want) {
		t.Errorf("%v, ran %q", err, m.calls())
	}
}

// TestACommitThatIsKilledBeforeItBeganIsSaidToBe: its process has only said that it begins.
func TestACommitThatIsKilledBeforeItBeganIsSaidToBe(t *testing.T) {
	m := newMachine(t).withSystemd()
	folder := "/run/ferry/" + job + "-commit/"
	m.Write(folder+jobFile, `{"kind":"commit","toplevel":"`+string(newSystem)+`","bundle":"`+string(newBundle)+`","action":"boot","session":"s1"}`)
	m.Write(folder+begunFile, "")
	m.Write(folder+logFile, "")
	if err := runJobIn(t.Context(), m.Root, m.Path(folder)); err != nil {
		t.Fatal(err)
	}
	if status, ended, err := readStatus(m.Path(folder)); err != nil || !ended || status.Error != "it was killed before it began" || status.Unclean {
		t.Errorf("%+v, %v, %v", status, ended, err)
	}
	if calls := m.calls(); calls != nil {
		t.Errorf("ran %q", calls)
	}
}
