package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ferry/internal/lab"
)

// machine is what a switch changes on a target.
type machine struct {
	running, installed, boots string // toplevels: current system, system profile, boot loader's default
	root                      string // the bundle that the GC root of the current configuration leads to
	generations               string
}

func (s *site) machine() machine {
	s.t.Helper()
	return machine{
		running:     s.onTarget("readlink", "-f", "/run/current-system"),
		installed:   s.onTarget("readlink", "-f", "/nix/var/nix/profiles/system"),
		boots:       strings.TrimSpace(s.onTarget("cat", "/boot/default")),
		root:        s.onTarget("sh", "-c", "readlink -f /etc/nixos/current-configuration || true"),
		generations: s.onTarget("sh", "-c", "ls -d /nix/var/nix/profiles/system-*-link | tr '\\n' ' '"),
	}
}

// installBundle builds the node from a configuration with the greeting and the extra lines, and puts its closure into the target.
func (s *site) installBundle(greeting, extra string) (bundle, toplevel string) {
	s.t.Helper()
	s.write("web/configuration.nix", strings.Replace(configuration(greeting), "{\n", "{\n"+extra+"\n", 1))
	bundle = strings.TrimSpace(s.ferry("build").out)
	if err := s.target.InstallClosure(s.t.Context(), s.builder, bundle); err != nil {
		s.t.Fatal(err)
	}
	return bundle, s.onTarget("readlink", "-f", bundle+"/profile")
}

// script runs the bundle's script on the target as root, with nothing in its environment that it could lean on.
func (s *site) script(bundle string, args ...string) outcome {
	s.t.Helper()
	argv := append([]string{"env", "-i", "NIXOS_INSTALL_BOOTLOADER=1", bundle + "/nixos-rebuild-switch"}, args...)
	return s.runOnTarget(argv...)
}

func (s *site) runOnTarget(argv ...string) outcome {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := s.target.Command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	s.t.Logf("%s: status %d\n%s%s", strings.Join(argv, " "), cmd.ProcessState.ExitCode(), errs.String(), out.String())
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// expect compares what the target is with what it should be.
func (s *site) expect(what string, got, want machine) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
	}
}

// nothingLeft makes sure that a finished script leaves no folder, unit or root of the garbage collector behind.
func (s *site) nothingLeft() {
	s.t.Helper()
	for _, command := range []string{
		"ls -d /run/ferry-by-hand.* /tmp/tmp.* 2>/dev/null || true",
		"systemctl list-units --all --no-legend 'ferry-by-hand*' 2>/dev/null || true",
		"systemctl list-units --failed --no-legend 2>/dev/null | grep ferry || true",
	} {
		if left := s.onTarget("sh", "-c", command); left != "" {
			s.t.Errorf("left behind: %s", left)
		}
	}
}

func TestBundlesScriptIsTheWholeDeployment(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.machine()
	bundle, toplevel := s.installBundle("first", "")

	if o := s.script(bundle, "dry-activate"); o.status != 0 {
		t.Errorf("dry-activate: status %d", o.status)
	}
	s.expect("after dry-activate", s.machine(), before)

	if o := s.script(bundle, "test"); o.status != 0 {
		t.Errorf("test: status %d", o.status)
	}
	tested := before
	tested.running = toplevel
	s.expect("after test", s.machine(), tested)

	if o := s.script(bundle); o.status != 0 {
		t.Errorf("switch: status %d", o.status)
	}
	switched := machine{toplevel, toplevel, toplevel, bundle, s.machine().generations}
	s.expect("after switch", s.machine(), switched)
	if got, want := len(strings.Fields(switched.generations)), len(strings.Fields(before.generations))+1; got != want {
		t.Errorf("there are %d generations, want %d", got, want)
	}

	if o := s.script(bundle, "switch"); o.status != 0 || !strings.Contains(o.errors, "nothing is activated") {
		t.Errorf("again: status %d, %s", o.status, o.errors)
	}
	s.expect("after switching again", s.machine(), switched)
	s.nothingLeft()
	s.onTarget("nix-store", "--gc")
	if o := s.script(bundle, "--help"); o.status != 0 || !strings.Contains(o.out, toplevel) {
		t.Errorf("after a garbage collection: status %d, %s", o.status, o.out)
	}
}

func TestBundlesScriptBootsLaterWhenAsked(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	running := s.machine().running
	bundle, toplevel := s.installBundle("first", "")
	if o := s.script(bundle, "boot"); o.status != 0 {
		t.Errorf("boot: status %d", o.status)
	}
	s.expect("after boot", s.machine(), machine{running, toplevel, toplevel, bundle, s.machine().generations})
	s.nothingLeft()
}

// TestBundlesScriptCommitsOnlyWhatWorks: whatever goes wrong before the last step, a reboot leads back.
func TestBundlesScriptCommitsOnlyWhatWorks(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	fault := func(phase, actions string, status string) string {
		return `  system.switch.fault = { phase = "` + phase + `"; exitCode = ` + status + `; actions = [ ` + actions + ` ]; };`
	}
	before := s.machine()
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
		bundle, toplevel := s.installBundle(c.title, c.extra)
		o := s.script(bundle)
		if o.status != c.status || !strings.Contains(o.errors, c.says) {
			t.Errorf("%s: status %d, want %d and %q", c.title, o.status, c.status, c.says)
		}
		after := s.machine()
		want := before
		if c.moves {
			want.running = toplevel
		} else {
			want.running = after.running
		}
		// The generation that was made for a boot loader that failed stays in the list, unused.
		after.generations = want.generations
		s.expect(c.title, after, want)
	}
	s.nothingLeft()
}

// TestBundlesScriptGivesWayToADeployment: to an agent, and to a job that has outlived its agent.
func TestBundlesScriptGivesWayToADeployment(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.machine()
	bundle, _ := s.installBundle("first", "")
	for _, lock := range []string{"/run/ferry/lock", "/run/ferry/work"} {
		s.onTarget("sh", "-c", "mkdir -p /run/ferry; setsid flock "+lock+" sleep 100 >/dev/null 2>&1 </dev/null &")
		s.onTarget("sh", "-c", "while flock -n "+lock+" true; do sleep 0.05; done")
		if o := s.script(bundle); o.status != 1 || !strings.Contains(o.errors, "another deployment to this machine is under way") {
			t.Errorf("%s is held: status %d, %s", lock, o.status, o.errors)
		}
		s.expect("while "+lock+" is held", s.machine(), before)
		s.onTarget("sh", "-c", "pkill -x sleep; while ! flock -n "+lock+" true; do sleep 0.05; done")
	}
	if o := s.script(bundle, "test"); o.status != 0 {
		t.Errorf("afterwards: status %d", o.status)
	}
}

func TestBundlesScriptSurvivesALostConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	bundle, toplevel := s.installBundle("first", `  system.switch.fault = { phase = "units"; sleep = 3; actions = [ "test" ]; };`)
	before := s.machine()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	script := s.target.Command(ctx, bundle+"/nixos-rebuild-switch")
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	s.onTarget("sh", "-c", "until systemctl is-active --quiet 'ferry-by-hand*'; do sleep 0.05; done")
	if o := s.script(bundle, "switch"); o.status != 1 || !strings.Contains(o.errors, "another deployment to this machine is under way") {
		t.Errorf("a second one: status %d, %s", o.status, o.errors)
	}
	s.onTarget("sh", "-c", `kill -HUP $(pgrep -f "^[^ ]*sh $0/nixos-rebuild-switch$")`, bundle)
	if err := script.Wait(); err == nil {
		t.Error("the script went on without its connection")
	}
	s.onTarget("sh", "-c", "for i in $(seq 200); do [ \"$(readlink -f /etc/nixos/current-configuration)\" = $0 ] && exit; sleep 0.1; done; exit 1", bundle)
	s.expect("afterwards", s.machine(), machine{toplevel, toplevel, toplevel, bundle, s.machine().generations})
	if before.generations == s.machine().generations {
		t.Error("there is no new generation")
	}
}

func TestBundlesScriptRefusesWhereItCannotWork(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{target: lab.Options{NotNixOS: true}, bare: true})
	bundle, _ := s.installBundle("first", "")
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
		if o := s.runOnTarget(c.argv...); o.status != c.status || !strings.Contains(o.errors, c.says) {
			t.Errorf("status %d, want %d and %q", o.status, c.status, c.says)
		}
	}
	if left := s.onTarget("sh", "-c", "readlink /run/current-system /nix/var/nix/profiles/system /etc/nixos/current-configuration || true"); left != "" {
		t.Errorf("something was changed: %s", left)
	}
}

func TestBundlesScriptWorksWithoutSystemd(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{target: lab.Options{NoSystemd: true}, bare: true})
	bundle, toplevel := s.installBundle("first", "")
	if o := s.script(bundle, "boot"); o.status != 0 {
		t.Errorf("boot: status %d", o.status)
	}
	if got := s.onTarget("readlink", "-f", "/nix/var/nix/profiles/system"); got != toplevel {
		t.Errorf("the profile is %s, want %s", got, toplevel)
	}
	if got := s.onTarget("readlink", "-f", "/etc/nixos/current-configuration"); got != bundle {
		t.Errorf("the GC root is %s, want %s", got, bundle)
	}
	s.nothingLeft()
}

func TestDeployAfterTheBundlesScriptHasNothingToDo(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	bundle, _ := s.installBundle("first", "")
	if o := s.script(bundle); o.status != 0 {
		t.Fatalf("switch: status %d", o.status)
	}
	before := s.machine()
	if o := s.deploy(); !strings.Contains(o.errors+o.out, "nothing to do") {
		t.Errorf("ferry deploy says %s%s", o.errors, o.out)
	}
	s.expect("after ferry deploy", s.machine(), before)
}
