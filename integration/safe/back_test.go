package safe_test

import (
	"testing"

	"ferry/internal/lab"
)

// TestExactlyWhatWasThereIsReturnedTo goes back from a system that cuts its connection and from one whose boot loader fails, on
// targets whose system before is not simply the generation before.
func TestExactlyWhatWasThereIsReturnedTo(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	goesBack := func(t *testing.T) {
		t.Helper()
		x := x.in(t)
		before := x.State()
		x.rewrite(service("systemctl --no-block stop sshd"))
		if o := x.deploys(quickly, "--replace-unknown"); o.Status != 4 {
			t.Errorf("cut off: status %d", o.Status)
		}
		x.is(before)
		x.rewrite(`system.switch.fault = { phase = "boot"; exitCode = 1; actions = [ "boot" ]; };`)
		if o := x.deploys("--replace-unknown"); o.Status != 4 {
			t.Errorf("a boot loader that fails: status %d", o.Status)
		}
		x.is(before)
	}
	t.Run("after a test", func(t *testing.T) {
		x := x.in(t)
		x.rewrite("")
		x.Deploy("--action", "test")
		if s := x.State(); s.Runs == s.Profile {
			t.Fatal("what runs is what boots")
		}
		goesBack(t)
	})
	t.Run("after a test that was taken back by hand", func(t *testing.T) {
		x := x.in(t)
		x.OnTarget("/nix/var/nix/profiles/system/bin/switch-to-configuration", "test")
		goesBack(t)
	})
	t.Run("after a rollback of the profile by hand", func(t *testing.T) {
		x := x.in(t)
		x.rewrite("")
		x.Deploy()
		x.OnTarget("sh", "-c", "nix-env -p /nix/var/nix/profiles/system --rollback && /nix/var/nix/profiles/system/bin/switch-to-configuration switch")
		goesBack(t)
	})
	t.Run("after a generation made by someone else", func(t *testing.T) {
		x := x.in(t)
		greeting := x.rewrite("")
		toplevel := x.Toplevel(x.Bundle())
		if err := x.Target.InstallClosure(t.Context(), x.Builder, toplevel); err != nil {
			t.Fatal(err)
		}
		x.OnTarget("sh", "-c", `nix-env -p /nix/var/nix/profiles/system --set "$0" && "$0/bin/switch-to-configuration" switch`, toplevel)
		if s := x.State(); s.Greeting != greeting || s.Boots != toplevel {
			t.Fatalf("the target is %+v", s)
		}
		goesBack(t)
	})
}
