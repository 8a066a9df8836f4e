package safe_test

import (
	"fmt"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestExitCodesOfTheSwitchAreToldApart goes through what NixOS's switch-to-configuration may answer, and what only a boot
// loader may.
func TestExitCodesOfTheSwitchAreToldApart(t *testing.T) {
	t.Parallel()
	fault := func(action, phase string, code int) string {
		return fmt.Sprintf(`system.switch.fault = { phase = %q; exitCode = %d; actions = [ %q ]; };`, phase, code, action)
	}
	eachLogin(t, func(t *testing.T, x *trial) {
		const back = "; the target rolled back to nixos-system-web-"
		for _, c := range []struct {
			name, more string
			status     int
			says       string
		}{
			{"1 refused", fault("test", "check", 1), 1, "activate: switch-to-configuration refused (exit status 1); nothing has changed"},
			{"2 the activation script failed", `system.activationScripts.broken = "false";`, 4, "activate: the activation script failed (exit status 2): broken" + back},
			{"3 the reload failed", fault("test", "end", 3), 4, "activate: systemd could not be reloaded (exit status 3)" + back},
			{"4 a unit failed", `systemd.services.broken = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "/no/such/program"; };`, 4,
				"activate: units failed: broken.service" + back},
			{"101 a panic", fault("test", "end", 101), 4, "activate: switch-to-configuration ended with status 101" + back},
			{"a boot loader that fails", fault("boot", "boot", 1), 4, "commit: the boot loader could not be written (exit status 1)" + back},
		} {
			t.Run(c.name, func(t *testing.T) {
				x := x.in(t)
				before := x.State()
				x.rewrite(c.more)
				x.deploys().Fails(t, c.status, "web: "+c.says, "the whole log is on the target: /run/ferry/")
				x.is(before)
			})
		}
		for name, c := range map[string]struct{ more, says string }{
			"100 needs a reboot":            {fault("test", "check", 100), "web: note: this change needs a reboot: it is installed, and runs from the next boot on"},
			"100 that was known in advance": {`system.initInterfaceVersion = "another";`, "web: note: this change needs a reboot: its init is of another kind than the one that runs ("},
		} {
			t.Run(name, func(t *testing.T) {
				x := x.in(t)
				before := x.State()
				x.rewrite(c.more)
				x.Deploy().Says(t, c.says, ", from the next boot on")
				x.isSettled()
				after := x.State()
				bundle := x.Bundle()
				toplevel := x.Toplevel(bundle)
				x.Want(after, site.State{
					Runs: before.Runs, Profile: toplevel, Generation: after.Generation, Boots: toplevel, Bundle: bundle, Greeting: before.Greeting, Greeter: before.Greeter,
				})
			})
		}
		greeting := x.rewrite("")
		x.Deploy()
		x.isNew(greeting)
	})
}

// TestAnActivationThatHangsIsEnded goes back after the limit, and what it was about is not there any more.
func TestAnActivationThatHangsIsEnded(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	for name, snippet := range map[string]string{
		"in a program":                 "sleep 7771",
		"deaf to signals":              "trap '' TERM INT HUP; while :; do sleep 7772; done",
		"with a child in its session":  "sleep 7773 & sleep 7774",
		"with a daemon that left it":   "/usr/bin/setsid -f sh -c \"trap '' TERM INT HUP; sleep 7775; sleep 7776\"; sleep 7774",
		"with its output still in use": "/usr/bin/setsid -f sleep 7775 >/dev/null; /usr/bin/setsid -f sleep 7778; exit 1",
	} {
		t.Run(name, func(t *testing.T) {
			x := x.in(t)
			before := x.State()
			x.rewrite(fmt.Sprintf("system.activationScripts.hang = %q;", snippet))
			o := x.deploys("--activation-timeout=2s")
			if o.Status != 4 || !strings.Contains(o.Errors, "; the target rolled back to nixos-system-web-") {
				t.Errorf("status %d", o.Status)
			}
			x.is(before)
		})
	}
	greeting := x.rewrite("")
	x.Deploy()
	x.isNew(greeting)
}

// TestABootLoaderThatHangsIsEnded has one that is deaf to signals and leaves a daemon behind: in the commit of a system that was
// confirmed, and where nothing else is done. It is gone before the old one's is written, which is what boots.
func TestABootLoaderThatHangsIsEnded(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	const hangs = `system.switch.fault = { phase = "boot"; sleep = 7771; deaf = true; actions = [ "boot" ]; };`
	before := x.State()
	x.rewrite(hangs)
	const limit = "--activation-timeout=8s"
	x.deploys(limit).Fails(t, 4, "web: commit: the commit failed: it did not end within 8s; the target rolled back to nixos-system-web-", "the whole log")
	x.is(before)
	x.rewrite(hangs)
	x.deploys(limit, "--action=boot").Fails(t, 1, "web: commit: the commit failed: it did not end within 8s; nothing has changed", "the whole log")
	x.is(before)
	greeting := x.rewrite("")
	x.Deploy()
	x.isNew(greeting)
}

// TestTheTimerOfTheWayBackCanBeSeen looks for it while it is armed, as a person would.
func TestTheTimerOfTheWayBackCanBeSeen(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	greeting := x.rewrite("")
	_, ended := x.begin(activate)
	timers := func() string { return x.OnTarget("systemctl", "list-timers", "--no-legend", "--no-pager") }
	if got := timers(); !strings.Contains(got, " ferry-rollback-") {
		t.Errorf("while it activates: %s", got)
	}
	unit := x.OnTarget("sh", "-c", "systemctl list-timers --no-legend --full 'ferry-rollback-*' | grep -o 'ferry-rollback-[a-z0-9]*.service'")
	if got := x.OnTarget("systemctl", "show", "-p", "Description", "--value", unit); !strings.HasPrefix(got, "ferry: roll back to the system before ") {
		t.Errorf("the timer's unit is described as %q", got)
	}
	confirm.Begin(x.Rehearsal)
	x.OnTarget("touch", "/run/at-activate")
	x.goOn(activate)
	x.Await(confirm)
	site.Until(t, "there is one timer, of a target that waits", func() bool {
		got := x.OnTarget("systemctl", "list-timers", "--no-legend", "--full", "ferry-*")
		return strings.Count(got, "\n") == 0 && strings.Contains(got, "-unconfirmed.timer")
	})
	x.goOn(confirm)
	if o := ended(); o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
	if got := timers(); strings.Contains(got, "ferry") {
		t.Errorf("afterwards: %s", got)
	}
	x.isNew(greeting)
}
