package server

import (
	"context"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// TestABootLoaderThatHangsIsEndedBeforeTheOldOneIsWritten has a commit that does not end, after the activation and alone.
func TestABootLoaderThatHangsIsEndedBeforeTheOldOneIsWritten(t *testing.T) {
	t.Run("of a switch", func(t *testing.T) {
		m := newMachine(t).withSystemd()
		m.Write("/control/hang-new-boot", "")
		begin := guarded("switch")
		begin.Switch.Limits.Activation = 2
		f := m.connect(locked("s1"))
		r, _ := f.ask(begin)
		waits(t, r)
		r, _ = f.ask(finish(agent.VerdictConfirm))
		if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.From != agent.Committing ||
			r.Switch.Reason != "the commit failed: it did not end within 2s" {
			t.Errorf("%+v, %v", r.Switch, r.Error)
		}
		want := []string{"1-new test", "nix-env --set 1-new", "1-new boot", "nix-env --switch-generation 1", "0-old boot", "0-old test"}
		if calls := m.calls(); !slices.Equal(calls, want) {
			t.Errorf("ran %q", calls)
		}
		m.isOld()
	})
	t.Run("without one", func(t *testing.T) {
		m := newMachine(t)
		m.Write("/control/hang-new-boot", "")
		r := commitment("boot")
		r.ActivationLimit = 1
		got, _ := m.connect(locked("s1")).ask(r)
		if got.Error != nil || got.Commit.Status != -1 || got.Commit.Error != "it did not end within 1s" || got.Commit.Unclean {
			t.Errorf("%+v, %v", got.Commit, got.Error)
		}
		want := []string{"nix-env --set 1-new", "1-new boot", "nix-env --switch-generation 1", "0-old boot"}
		if calls := m.calls(); !slices.Equal(calls, want) {
			t.Errorf("ran %q", calls)
		}
		m.isOld()
	})
}

// TestADescriptionThatHangsIsEnded is about what changes nothing.
func TestADescriptionThatHangsIsEnded(t *testing.T) {
	m := newMachine(t)
	m.Write("/control/hang-new-dry-activate", "")
	r := activation("dry-activate")
	r.ActivationLimit = 1
	got, _ := m.connect(locked("s1")).ask(r)
	if got.Error != nil || got.Activate.Status != -1 || got.Activate.Error != "it did not end within 1s" {
		t.Errorf("%+v, %v", got.Activate, got.Error)
	}
}

// TestALimitThatIsTooLongIsRefused: a lock would be held for as long.
func TestALimitThatIsTooLongIsRefused(t *testing.T) {
	f := newMachine(t).connect(locked("s1"))
	for _, limit := range []int{-1, maxLimit + 1} {
		r := commitment("boot")
		r.ActivationLimit = limit
		if got, _ := f.ask(r); got.Error == nil || !strings.Contains(got.Error.Text, "is not allowed") {
			t.Errorf("%d: %+v, %v", limit, got.Commit, got.Error)
		}
	}
}

// TestAMenuThatHangsEndsTheTrial has a boot loader that hangs while a system is prepared to be tried.
func TestAMenuThatHangsEndsTheTrial(t *testing.T) {
	m := newTriable(t)
	m.Write("/control/hang-once", "")
	m.Program(string(oldSystem)+"/bin/switch-to-configuration", strings.ReplaceAll(strings.Replace(menuScript, "cd ",
		`hang="$FERRY_TEST_ROOT/control/hang-once"
if [ -e "$hang" ]; then rm "$hang"; while :; do sleep 0.01; done; fi
cd `, 1), "SYSTEM", string(oldSystem)))
	status, _ := m.work(func(ctx context.Context, r machine.Root, job Job, log *os.File) jobStatus {
		job.Limit = 1
		return bootOnceJob(ctx, r, job, log)
	})
	if status.Status == 0 || status.Error != "it did not end within 1s" || status.Unclean {
		t.Errorf("%+v", status)
	}
	m.untouched()
	if slices.Contains(m.calls(), "systemctl reboot") {
		t.Error("it was rebooted all the same")
	}
}

// TestACommitThatHasFailedIsNotTriedAgain kills the guard while the old boot loader is written: its successor writes that, and
// does not commit again.
func TestACommitThatHasFailedIsNotTriedAgain(t *testing.T) {
	m := newMachine(t).withSystemd()
	m.Write("/control/status-boot", "1\n")
	m.Write("/control/old-is-well", "")
	m.Write("/control/hang-old-boot", "")
	f := m.connect(locked("s1"))
	r, _ := f.ask(guarded("switch"))
	waits(t, r)
	f.send(finish(agent.VerdictConfirm))
	folder := m.jobFolder(JobSwitch)
	until(t, "the old boot loader is written", func() bool { return slices.Contains(m.calls(), "0-old boot") })
	state, err := readState(folder)
	if err != nil || state.Phase != agent.Undoing {
		t.Fatalf("%+v, %v", state, err)
	}
	if err := syscall.Kill(state.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.Path("/control/hang-old-boot")); err != nil {
		t.Fatal(err)
	}
	r, _ = f.answer()
	if r.Error != nil || r.Switch.Outcome != agent.SwitchRolledBack || r.Switch.From != agent.Committing ||
		!strings.Contains(r.Switch.Reason, "boot loader could not be written (exit status 1)") {
		t.Errorf("%+v, %v", r.Switch, r.Error)
	}
	want := []string{"1-new test", "nix-env --set 1-new", "1-new boot", "nix-env --switch-generation 1", "0-old boot", "0-old boot", "0-old test"}
	if calls := m.calls(); !slices.Equal(calls, want) {
		t.Errorf("ran %q", calls)
	}
	m.isOld()
}
