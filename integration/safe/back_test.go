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
		x.switchesByHand("--rollback")
		goesBack(t)
	})
	t.Run("after a generation made by someone else", func(t *testing.T) {
		x := x.in(t)
		greeting := x.rewrite("")
		toplevel := x.Toplevel(x.Bundle())
		if err := x.Target.InstallClosure(t.Context(), x.Builder, toplevel); err != nil {
			t.Fatal(err)
		}
		x.switchesByHand("--set", toplevel)
		if s := x.State(); s.Greeting != greeting || s.Boots != toplevel {
			t.Fatalf("the target is %+v", s)
		}
		goesBack(t)
	})
}

// TestAnActivationScriptThatLivesOnIsEnded kills the switch-to-configuration alone: its activation script would bring the new
// system in after the target has gone back.
func TestAnActivationScriptThatLivesOnIsEnded(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	before := x.State()
	x.rewrite("")
	_, ended := x.begin(activate)
	x.OnTarget("sh", "-c", "rm /run/at-activate; pkill -KILL -f '/bin/switch-to-configuration test$'")
	// The old system is held up as the new one was.
	x.Await(activate)
	toplevel := x.Toplevel(x.Bundle())
	if left := x.OnTarget("sh", "-c", "pgrep -af '[/]activate "+toplevel+"'; true"); left != "" {
		t.Errorf("the new system's activation script is at work: %s", left)
	}
	x.goOn(activate)
	o := ended()
	if o.Status != 4 {
		t.Errorf("status %d", o.Status)
	}
	o.Says(t, "; the target rolled back to ")
	x.is(before)
}

// TestWhatRanBeforeRunsAgain has a socket and a timer that nothing but a person has started, and that the new system's activation
// stops before it fails.
func TestWhatRanBeforeRunsAgain(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	const units = `
  systemd.sockets.called.socketConfig.ListenStream = "/run/called";
  systemd.services.called.serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sleep 1";
`
	x.deployed(units)
	x.OnTarget("systemctl", "start", "called.socket")
	before := x.State()
	x.rewrite(units + `system.activationScripts = { stops = "systemctl stop called.socket"; zz-broken = "false"; };`)
	o := x.deploys()
	o.Fails(t, 4, "web: activate: the activation script failed (exit status 2): zz-broken; the target rolled back to ", "the whole log")
	o.Says(t, "ferry: starting again what ran before: called.socket")
	if got := x.OnTarget("systemctl", "is-active", "called.socket"); got != "active" {
		t.Errorf("the socket is %s", got)
	}
	x.is(before)
}
