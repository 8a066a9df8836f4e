package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// machine is what a switch changes on a target.
type machine struct {
	running, installed, boots string // toplevels: current system, system profile, boot loader's default
	root                      string // the bundle that the GC root of the current configuration leads to
	generations               string
}

func machineOf(s *site.Site) machine {
	s.T.Helper()
	return machine{
		running:     s.OnTarget("readlink", "-f", "/run/current-system"),
		installed:   s.OnTarget("readlink", "-f", "/nix/var/nix/profiles/system"),
		boots:       strings.TrimSpace(s.OnTarget("cat", "/boot/default")),
		root:        s.OnTarget("sh", "-c", "readlink -f /etc/nixos/current-configuration || true"),
		generations: s.OnTarget("sh", "-c", "ls -d /nix/var/nix/profiles/system-*-link | tr '\\n' ' '"),
	}
}

// installBundle builds the node from a configuration with the greeting and the extra lines, and puts its closure into the target.
func installBundle(s *site.Site, greeting, extra string) (bundle, toplevel string) {
	s.T.Helper()
	s.Write("web/configuration.nix", strings.Replace(site.Configuration(greeting), "{\n", "{\n"+extra+"\n", 1))
	bundle = strings.TrimSpace(s.Ferry("build").Out)
	if err := s.Target.InstallClosure(s.T.Context(), s.Builder, bundle); err != nil {
		s.T.Fatal(err)
	}
	return bundle, s.OnTarget("readlink", "-f", bundle+"/profile")
}

// runScript runs the bundle's script on the target as root, with nothing in its environment that it could lean on.
func runScript(s *site.Site, bundle string, args ...string) site.Outcome {
	s.T.Helper()
	argv := append([]string{"env", "-i", "NIXOS_INSTALL_BOOTLOADER=1", bundle + "/nixos-rebuild-switch"}, args...)
	return runOnTarget(s, argv...)
}

func runOnTarget(s *site.Site, argv ...string) site.Outcome {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(s.T.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := s.Target.Command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.T.Fatal(err)
	}
	s.T.Logf("%s: status %d\n%s%s", strings.Join(argv, " "), cmd.ProcessState.ExitCode(), errs.String(), out.String())
	return site.Outcome{Status: cmd.ProcessState.ExitCode(), Out: out.String(), Errors: errs.String()}
}

// expect compares what the target is with what it should be.
func expect(s *site.Site, what string, got, want machine) {
	s.T.Helper()
	if got != want {
		s.T.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
	}
}

// nothingLeft makes sure that a finished script leaves no folder, unit or root of the garbage collector behind.
func nothingLeft(s *site.Site) {
	s.T.Helper()
	for _, command := range []string{
		"ls -d /run/ferry-by-hand.* /tmp/tmp.* 2>/dev/null || true",
		"systemctl list-units --all --no-legend 'ferry-by-hand*' 2>/dev/null || true",
		"systemctl list-units --failed --no-legend 2>/dev/null | grep ferry || true",
	} {
		if left := s.OnTarget("sh", "-c", command); left != "" {
			s.T.Errorf("left behind: %s", left)
		}
	}
}

func TestBundlesScriptIsTheWholeDeployment(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := machineOf(s)
	bundle, toplevel := installBundle(s, "first", "")

	if o := runScript(s, bundle, "dry-activate"); o.Status != 0 {
		t.Errorf("dry-activate: status %d", o.Status)
	}
	expect(s, "after dry-activate", machineOf(s), before)

	if o := runScript(s, bundle, "test"); o.Status != 0 {
		t.Errorf("test: status %d", o.Status)
	}
	tested := before
	tested.running = toplevel
	expect(s, "after test", machineOf(s), tested)

	if o := runScript(s, bundle); o.Status != 0 {
		t.Errorf("switch: status %d", o.Status)
	}
	switched := machine{toplevel, toplevel, toplevel, bundle, machineOf(s).generations}
	expect(s, "after switch", machineOf(s), switched)
	if got, want := len(strings.Fields(switched.generations)), len(strings.Fields(before.generations))+1; got != want {
		t.Errorf("there are %d generations, want %d", got, want)
	}

	if o := runScript(s, bundle, "switch"); o.Status != 0 || !strings.Contains(o.Errors, "nothing is activated") {
		t.Errorf("again: status %d, %s", o.Status, o.Errors)
	}
	expect(s, "after switching again", machineOf(s), switched)
	nothingLeft(s)
	s.OnTarget("nix-store", "--gc")
	if o := runScript(s, bundle, "--help"); o.Status != 0 || !strings.Contains(o.Out, toplevel) {
		t.Errorf("after a garbage collection: status %d, %s", o.Status, o.Out)
	}
}

func TestBundlesScriptBootsLaterWhenAsked(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	running := machineOf(s).running
	bundle, toplevel := installBundle(s, "first", "")
	if o := runScript(s, bundle, "boot"); o.Status != 0 {
		t.Errorf("boot: status %d", o.Status)
	}
	expect(s, "after boot", machineOf(s), machine{running, toplevel, toplevel, bundle, machineOf(s).generations})
	nothingLeft(s)
}

// TestBundlesScriptCommitsOnlyWhatWorks: whatever goes wrong before the last step, a reboot leads back.
func TestBundlesScriptCommitsOnlyWhatWorks(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	fault := func(phase, actions string, status string) string {
		return `  system.switch.fault = { phase = "` + phase + `"; exitCode = ` + status + `; actions = [ ` + actions + ` ]; };`
	}
	before := machineOf(s)
	for _, c := range []struct {
		title, extra string
		status       int
		says         string
		moves        bool // whether the new system runs afterwards
	}{
		{"check fails", fault("check", `"test"`, "1"), 1, "it refused", false},
		{"needs a reboot", fault("check", `"test"`, "100"), 100, "boot, then reboot", false},
		{"unit fails", `  systemd.services.broken = { wantedBy = [ "multi-user.target" ];
			serviceConfig = { Type = "oneshot"; ExecStart = "/bin/false"; }; };`, 4, "a unit failed to start", true},
		{"boot loader fails", fault("boot", `"boot"`, "1"), 5, "the new system runs, but it is not what boots", true},
	} {
		bundle, toplevel := installBundle(s, c.title, c.extra)
		o := runScript(s, bundle)
		if o.Status != c.status || !strings.Contains(o.Errors, c.says) {
			t.Errorf("%s: status %d, want %d and %q", c.title, o.Status, c.status, c.says)
		}
		after := machineOf(s)
		want := before
		if c.moves {
			want.running = toplevel
		} else {
			want.running = after.running
		}
		// The generation that was made for a boot loader that failed stays in the list, unused.
		after.generations = want.generations
		expect(s, c.title, after, want)
	}
	nothingLeft(s)
}

// TestBundlesScriptGivesWayToADeployment: to an agent, and to a job that has outlived its agent.
func TestBundlesScriptGivesWayToADeployment(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := machineOf(s)
	bundle, _ := installBundle(s, "first", "")
	for _, lock := range []string{"/run/ferry/lock", "/run/ferry/work"} {
		s.OnTarget("sh", "-c", "mkdir -p /run/ferry; setsid flock "+lock+" sleep 100 >/dev/null 2>&1 </dev/null &")
		s.OnTarget("sh", "-c", "while flock -n "+lock+" true; do sleep 0.05; done")
		if o := runScript(s, bundle); o.Status != 1 || !strings.Contains(o.Errors, "another deployment to this machine is under way") {
			t.Errorf("%s is held: status %d, %s", lock, o.Status, o.Errors)
		}
		expect(s, "while "+lock+" is held", machineOf(s), before)
		s.OnTarget("sh", "-c", "pkill -x sleep; while ! flock -n "+lock+" true; do sleep 0.05; done")
	}
	if o := runScript(s, bundle, "test"); o.Status != 0 {
		t.Errorf("afterwards: status %d", o.Status)
	}
	// Who is not root has no say, not even over locks that everybody can open.
	const locks = "/run/ferry/lock /run/ferry/work /run/nixos/switch-to-configuration.lock"
	s.OnTarget("sh", "-c", "for lock in "+locks+`; do rm -f $lock; install -m 644 /dev/null $lock
		setsid runuser -u carol -- sh -c 'exec 9<"$0"; flock 9; exec sleep 100' $lock >/dev/null 2>&1 </dev/null &
		while flock -n $lock true; do sleep 0.05; done; done`)
	if o := runScript(s, bundle); o.Status != 0 {
		t.Errorf("while carol holds all locks: status %d", o.Status)
	}
	if modes := s.OnTarget("sh", "-c", "stat -c '%a %U' "+locks); modes != "600 root\n600 root\n600 root" {
		t.Errorf("the locks are %q", modes)
	}
	s.OnTarget("pkill", "-u", "carol", "-x", "sleep")
}

func TestBundlesScriptSurvivesALostConnection(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	bundle, toplevel := installBundle(s, "first", `  system.switch.fault = { phase = "units"; sleep = 3; actions = [ "test" ]; };`)
	before := machineOf(s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	script := s.Target.Command(ctx, bundle+"/nixos-rebuild-switch")
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	s.OnTarget("sh", "-c", "until systemctl is-active --quiet 'ferry-by-hand*'; do sleep 0.05; done")
	if o := runScript(s, bundle, "switch"); o.Status != 1 || !strings.Contains(o.Errors, "another deployment to this machine is under way") {
		t.Errorf("a second one: status %d, %s", o.Status, o.Errors)
	}
	s.OnTarget("sh", "-c", `kill -HUP $(pgrep -f "^[^ ]*sh $0/nixos-rebuild-switch$")`, bundle)
	if err := script.Wait(); err == nil {
		t.Error("the script went on without its connection")
	}
	s.OnTarget("sh", "-c", "for i in $(seq 200); do [ \"$(readlink -f /etc/nixos/current-configuration)\" = $0 ] && exit; sleep 0.1; done; exit 1", bundle)
	expect(s, "afterwards", machineOf(s), machine{toplevel, toplevel, toplevel, bundle, machineOf(s).generations})
	if before.generations == machineOf(s).generations {
		t.Error("there is no new generation")
	}
}

func TestBundlesScriptRefusesWhereItCannotWork(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{NotNixOS: true}, Bare: true})
	bundle, _ := installBundle(s, "first", "")
	for _, c := range []struct {
		argv   []string
		status int
		says   string
	}{
		{[]string{bundle + "/nixos-rebuild-switch"}, 1, "this machine does not run NixOS"},
		{[]string{"setpriv", "--reuid=65534", bundle + "/nixos-rebuild-switch", "boot"}, 1, "only root can do this: sudo " + bundle + "/nixos-rebuild-switch boot"},
		{[]string{bundle + "/nixos-rebuild-switch", "swich"}, 10, "unknown action: swich"},
		{[]string{bundle + "/nixos-rebuild-switch", "boot", "now"}, 10, "Usage: sudo"},
	} {
		if o := runOnTarget(s, c.argv...); o.Status != c.status || !strings.Contains(o.Errors, c.says) {
			t.Errorf("status %d, want %d and %q", o.Status, c.status, c.says)
		}
	}
	if left := s.OnTarget("sh", "-c", "readlink /run/current-system /nix/var/nix/profiles/system /etc/nixos/current-configuration || true"); left != "" {
		t.Errorf("something was changed: %s", left)
	}
}

func TestBundlesScriptWorksWithoutSystemd(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Target: lab.Options{NoSystemd: true}, Bare: true})
	bundle, toplevel := installBundle(s, "first", "")
	if o := runScript(s, bundle, "boot"); o.Status != 0 {
		t.Errorf("boot: status %d", o.Status)
	}
	if got := s.OnTarget("readlink", "-f", "/nix/var/nix/profiles/system"); got != toplevel {
		t.Errorf("the profile is %s, want %s", got, toplevel)
	}
	if got := s.OnTarget("readlink", "-f", "/etc/nixos/current-configuration"); got != bundle {
		t.Errorf("the GC root is %s, want %s", got, bundle)
	}
	nothingLeft(s)
}

func TestDeployAfterTheBundlesScriptHasNothingToDo(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	bundle, _ := installBundle(s, "first", "")
	if o := runScript(s, bundle); o.Status != 0 {
		t.Fatalf("switch: status %d", o.Status)
	}
	before := machineOf(s)
	if o := s.Deploy(); !strings.Contains(o.Errors+o.Out, "nothing to do") {
		t.Errorf("ferry deploy says %s%s", o.Errors, o.Out)
	}
	expect(s, "after ferry deploy", machineOf(s), before)
}
