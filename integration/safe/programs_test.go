package safe_test

import (
	"fmt"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// programs are the switch programs that NixOS has had: that of today, the first of its kind, and the one before.
var programs = []string{"2026", "2024-09", "perl"}

// userUnit is a service that runs in the manager of one user, by an expression for what it is.
func userUnit(name, user, service string) string {
	return fmt.Sprintf(`systemd.user.services.%s = { wantedBy = [ "default.target" ]; unitConfig.ConditionUser = %q; serviceConfig = %s; };
`, name, user, service)
}

const (
	runs  = `{ ExecStart = "${pkgs.busybox}/bin/busybox sleep 100000"; }`
	fails = `{ Type = "oneshot"; ExecStart = "${pkgs.busybox}/bin/busybox false"; }`
)

// TestAnEndIsJudgedWhicheverProgramSwitches has each switch program end in the ways that decide about the outcome.
func TestAnEndIsJudgedWhicheverProgramSwitches(t *testing.T) {
	t.Parallel()
	for _, rules := range programs {
		t.Run(rules, func(t *testing.T) {
			t.Parallel()
			x := newTrial(t, "alice", lab.Options{})
			program := fmt.Sprintf("system.switch.rules = %q;\n", rules)
			x.deployed(program)
			const back = "; the target rolled back to nixos-system-web-"
			for _, c := range []struct{ name, more, says string }{
				{"a unit that fails", `systemd.services.broken = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "/no/such/program"; };`,
					"activate: units failed: broken.service" + back},
				{"an activation script that fails", `system.activationScripts.broken = "false";`,
					"activate: the activation script failed (exit status 2): broken" + back},
				{"a bus that is gone in the middle", `system.activationScripts.bus = "[ -e /run/gone ] || { touch /run/gone; systemctl stop dbus.service; }";`,
					"activate: switch-to-configuration failed in the middle (exit status 1)" + back},
			} {
				// The program in Perl asks by systemctl, and that of 2024 waits for ever.
				if strings.Contains(c.more, "dbus") && rules != "2026" {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					x := x.in(t)
					before := x.State()
					x.rewrite(program + c.more)
					x.deploys().Fails(t, 4, "web: "+c.says, "the whole log is on the target: /run/ferry/")
					x.is(before)
				})
			}
			t.Run("a check before the switch", func(t *testing.T) {
				x := x.in(t)
				before := x.State()
				greeting := x.rewrite(program + `system.preSwitchChecks.disks = "false";`)
				if o := x.deploys(); rules == "2026" {
					o.Fails(t, 1, "web: activate: the system's check before a switch failed: disks; nothing has changed", "the whole log")
					x.is(before)
				} else {
					// They know of no checks.
					x.isNew(greeting)
				}
			})
			t.Run("another switch, for a moment", func(t *testing.T) {
				x := x.in(t)
				greeting := x.rewrite(program)
				_, ended := x.begin(confirm)
				x.locks()
				x.goOn(confirm)
				if o := ended(); o.Status != 0 {
					t.Errorf("status %d", o.Status)
				}
				x.isNew(greeting)
			})
			t.Run("another switch, to another system", func(t *testing.T) {
				x := x.in(t)
				before := x.State()
				x.rewrite(program)
				_, ended := x.begin(confirm)
				theirs := x.OnTarget("readlink", "-f", "/nix/var/nix/profiles/system-1-link")
				x.OnTarget(theirs+"/bin/switch-to-configuration", "test")
				x.goOn(confirm)
				o := ended()
				if o.Status != 5 {
					t.Errorf("status %d", o.Status)
				}
				o.Says(t, "somebody else has switched the target")
				x.isSettled()
				if got := x.State(); got.Runs != theirs || got.Boots != before.Boots || got.Profile != before.Profile {
					t.Errorf("the target is left as %+v", got)
				}
			})
		})
	}
}

// asUser runs a shell command on the target as a user who has a manager.
func (x *trial) asUser(user, command string) string {
	x.T.Helper()
	return x.OnTarget("runuser", "-u", user, "--", "sh", "-c", "export XDG_RUNTIME_DIR=/run/user/$(id -u); "+command)
}

// TestUnitsOfUsersAreJudgedByWhoseTheyAre has units of the user who deploys and of another one fail, in managers of their own. All
// units of users are of the system, and the switch program restarts them: only its users make the difference.
func TestUnitsOfUsersAreJudgedByWhoseTheyAre(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	x.OnTarget("sh", "-c", `for user in alice carol; do loginctl enable-linger $user; done
for uid in 1000 1002; do until systemctl --quiet is-active user@$uid; do sleep 0.1; done; done`)
	config := func(alices, carols string) string {
		return userUnit("hers", "alice", alices) + userUnit("other", "carol", carols)
	}
	x.deployed(config(runs, runs))
	active := func(user, unit string) string {
		return x.asUser(user, "/usr/bin/systemctl --user is-active "+unit+"; true")
	}
	if a, b := active("alice", "hers"), active("carol", "other"); a != "active" || b != "active" {
		t.Fatalf("the units are %s and %s", a, b)
	}
	t.Run("who deploys", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		x.rewrite(config(fails, runs))
		o := x.deploys()
		o.Fails(t, 4, "web: activate: units failed: alice: hers.service; the target rolled back to ", "the whole log")
		x.is(before)
		if e := x.lastEntry(); e.Reason != "units failed: alice: hers.service" {
			t.Errorf("the journal says %+v", e)
		}
		if got := active("alice", "hers"); got != "active" {
			t.Errorf("afterwards it is %s", got)
		}
	})
	const named = "units of other users failed, which changes nothing: carol: other.service"
	t.Run("another user", func(t *testing.T) {
		x := x.in(t)
		greeting := x.rewrite(config(runs, fails))
		x.Deploy().Says(t, "web: note: "+named)
		x.isNew(greeting)
		if e := x.lastEntry(); e.Outcome != "committed" || len(e.UserUnits) != 1 || e.UserUnits[0] != "carol: other.service" {
			t.Errorf("the journal says %+v", e)
		}
		if o := x.Ferry("status", "--json"); !strings.Contains(o.Out, "in the last deployment, "+named) {
			t.Error("status does not say so")
		}
	})
	t.Run("one that had failed before", func(t *testing.T) {
		x := x.in(t)
		x.rewrite(config(fails, fails))
		x.checked(`units.failed = "ignore";`)
		x.Deploy()
		if o := x.Ferry("status", "--json"); !strings.Contains(o.Out, `"1 unit failed: alice: hers.service"`) || strings.Contains(o.Out, "of other users") {
			t.Error("status does not say so")
		}
		greeting := x.rewrite(config(fails, fails))
		x.checked("")
		if o := x.Deploy(); strings.Contains(o.Errors, named) {
			t.Error("it is told as new")
		}
		x.isNew(greeting)
	})
	t.Run("a user without a bus", func(t *testing.T) {
		x := x.in(t)
		x.asUser("alice", "/usr/bin/systemctl --user stop dbus.socket dbus.service; rm -f $XDG_RUNTIME_DIR/bus")
		greeting := x.rewrite(config(runs, fails))
		x.Deploy().Says(t, "warning: user activation for alice failed")
		x.isNew(greeting)
	})
}
