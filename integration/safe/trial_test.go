package safe_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// trial is a site whose deployments are held up in each phase of a switch, to be hurt there.
type trial struct {
	*site.Rehearsal
	login string
	turn  *int
}

// in is the trial in a part of the test.
func (x *trial) in(t *testing.T) *trial { return &trial{x.Rehearsal.In(t), x.login, x.turn} }

// The programs by which the phases outside of switch-to-configuration are held up: they stand before the target's own.
const (
	holdFunction = `#!/bin/sh
hold() {
	touch /run/at-$1
	while [ -e /run/hold-$1 ]; do sleep 0.05; done
}
`
	systemdRun = holdFunction + `case "$*" in *--unit=ferry-rollback-*) ;; *) exec /usr/bin/systemd-run "$@" ;; esac
hold arm
/usr/bin/systemd-run "$@"
status=$?
hold armed
exit $status
`
	systemctl = holdFunction + `case "$*" in "stop -- "*-unconfirmed.timer*) hold disarm ;; esac
exec /usr/bin/systemctl "$@"
`
	// sshrc holds up who logs in after an activation, which is a ferry that wants to confirm.
	sshrc = "while [ -e /run/hold-confirm ] && [ -e /run/at-activate ]; do sleep 0.05; done\n"
)

// The phases of a switch, in which its target can be held up.
var (
	arm      = site.OnTarget("arm")      // nothing is armed yet
	armed    = site.OnTarget("armed")    // the timer runs, and nothing has changed
	activate = site.OnTarget("activate") // the activation script runs
	commit   = site.OnTarget("commit")   // the profile is set, and the boot loader not written
	disarm   = site.OnTarget("disarm")   // all is done, and the timer still runs
	// confirm is the phase in which the new system runs and waits.
	confirm = site.Stage{
		Name:    "confirm",
		Begin:   func(r *site.Rehearsal) { r.OnTarget("sh", "-c", "rm -f /run/at-activate; touch /run/hold-confirm") },
		Reached: func(r *site.Rehearsal) bool { return strings.Contains(state(r), `"phase":"waiting"`) },
		Release: func(r *site.Rehearsal) { r.OnTarget("rm", "/run/hold-confirm") },
		Changes: true,
	}
)

// folder is the target's folder of the switch that was begun last, as a word of a shell command: that of who held the lock
// last. Two may have begun in the same second.
const folder = `/run/ferry/$(sed 's/.*"session":"\([a-z0-9]*\)".*/\1/' /run/ferry/work)-switch`

// state is what the guard says of the switch that was begun last.
func state(r *site.Rehearsal) string {
	return r.OnTarget("sh", "-c", "cat "+folder+"/state 2>/dev/null; true")
}

// newTrial makes a site where login deploys, and deploys a first system there. opts say more about it.
func newTrial(t *testing.T, login string, opts lab.Options) *trial {
	t.Helper()
	return newTrialAs(t, login, "", opts)
}

// newTrialAs is newTrial with more attributes of the node.
func newTrialAs(t *testing.T, login, attributes string, opts lab.Options) *trial {
	t.Helper()
	x := &trial{&site.Rehearsal{Site: site.New(t, site.Options{Login: login, Target: opts})}, login, new(int)}
	x.Inventory(x.Node(login+"@"+x.Target.Name(), attributes))
	home := "/root"
	if login != "root" {
		home = "/home/" + login
	}
	for name, text := range map[string]string{"/usr/local/bin/systemd-run": systemdRun, "/usr/local/bin/systemctl": systemctl, home + "/.ssh/rc": sshrc} {
		if err := x.Target.WriteFile(t.Context(), name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	x.rewrite("")
	x.Deploy()
	return x
}

// eachLogin runs a test as a user who has to give a password for sudo, and as root.
func eachLogin(t *testing.T, test func(t *testing.T, x *trial)) { eachLoginOf(t, lab.Options{}, test) }

// eachLoginOf is the same on a target that opts say more about.
func eachLoginOf(t *testing.T, opts lab.Options, test func(t *testing.T, x *trial)) {
	for _, login := range []string{"alice", "root"} {
		t.Run(login, func(t *testing.T) {
			t.Parallel()
			test(t, newTrial(t, login, opts))
		})
	}
}

// switchesByHand moves the system profile as nix-env is told, and switches to what it then stands for. A user who logs out in the
// middle makes that fail, as alice may just have done: it is done once more then, as a person would.
func (x *trial) switchesByHand(nixEnv ...string) {
	x.T.Helper()
	x.OnTarget(append([]string{"sh", "-c", `profile=/nix/var/nix/profiles/system
nix-env -p $profile "$@" && { $profile/bin/switch-to-configuration switch || $profile/bin/switch-to-configuration switch; }`, "sh"}, nixEnv...)...)
}

// rewrite gives the project another configuration, with more in it, and returns its greeting.
func (x *trial) rewrite(more string) string {
	x.T.Helper()
	*x.turn++
	greeting := fmt.Sprintf("turn %d", *x.turn)
	x.Write("web/configuration.nix", site.With(site.Configuration(greeting), site.Holds()+more))
	return greeting
}

// quickly makes the target wait for ferry as long as these tests can.
const quickly = "--confirm-timeout=3s"

// begin deploys and returns when the target is held up in the phase; the function waits for ferry's end.
func (x *trial) begin(phase site.Stage, flags ...string) (*exec.Cmd, func() site.Outcome) {
	x.T.Helper()
	phase.Begin(x.Rehearsal)
	cmd, ended := x.Background(append([]string{"deploy", "--sudo-password-file", x.Password}, flags...)...)
	x.Await(phase)
	return cmd, ended
}

// deploys deploys to the end.
func (x *trial) deploys(flags ...string) site.Outcome {
	x.T.Helper()
	return x.Ferry(append([]string{"deploy", "--sudo-password-file", x.Password}, flags...)...)
}

// goOn lets the target go on in a phase.
func (x *trial) goOn(phase site.Stage) { phase.Release(x.Rehearsal) }

// is waits until nothing goes on at the target, and fails the test unless it is as it was in want and nothing is left of a
// switch: no process, unit, timer, lock, GC root or place for a token.
func (x *trial) is(want site.State) {
	x.T.Helper()
	x.isSettled()
	got := x.State()
	// Who is called so now may have been started again, but has to run.
	want.Greeter = got.Greeter
	x.Want(got, want)
}

// isNew is is for a switch that was committed, to the system with the greeting.
func (x *trial) isNew(greeting string) {
	x.T.Helper()
	x.isSettled()
	got := x.State()
	system := x.OnTarget("readlink", "-f", "/etc/nixos/current-configuration/profile")
	x.Want(got, site.State{
		Runs: system, Profile: system, Generation: got.Generation, Boots: system, Bundle: got.Bundle, Greeting: greeting, Greeter: got.Greeter,
	})
}

func (x *trial) isSettled() {
	x.T.Helper()
	x.NothingRunsThere()
	const left = `ls -d /nix/var/nix/gcroots/ferry/back /run/ferry/*/confirm 2>/dev/null
# A login that a power cut has ended may leave this one.
systemctl --failed --no-legend | grep -v ' user@'
systemctl is-active --quiet greeter sshd || echo a unit does not run
pgrep -f 'sleep 77[7]' || true`
	if found := x.OnTarget("sh", "-c", left); found != "" {
		x.T.Errorf("left on the target: %s", found)
	}
}
