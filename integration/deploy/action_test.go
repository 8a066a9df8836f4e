package deploy_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestSwitchRunsAndBootsTheNewSystem is the default action: what runs, what boots, what keeps it, and its number.
func TestSwitchRunsAndBootsTheNewSystem(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.state()
	s.deploy().says(t, "web: done: generation 2, nixos-system-web-")
	bundle := s.bundle()
	toplevel := s.toplevel(bundle)
	after := s.state()
	s.want(after, state{toplevel, toplevel, "system-2-link", toplevel, bundle, "first", after.greeter})
	if after.greeter == before.greeter {
		t.Error("the changed unit was not restarted")
	}
	s.reboot()
	again := s.state()
	after.greeter = again.greeter
	s.want(again, after)
}

// TestTheSameAgainTouchesNothing deploys what is there.
func TestTheSameAgainTouchesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.deploy()
	before := s.state()
	s.onTarget("touch", "/var/tmp/marker")
	for _, action := range []string{"switch", "boot", "test"} {
		o := s.deploy("--action", action)
		o.says(t, "web: nothing to do: ")
		if strings.Contains(o.errors, "ship") {
			t.Errorf("%s: something was shipped", action)
		}
	}
	s.want(s.state(), before)
	// What a login and a sudo leave, and what the agent needs to keep others out.
	expected := []string{"/var/log/", "/run/ferry/lock", "/run/sudo/", "/run/systemd/", "/run/user/", "/run/log/", "/run/utmp", "/run/motd.dynamic", "/var/lib/sudo/", "/run/udev/"}
	for name := range strings.Lines(s.onTarget("find", "/", "/run", "/tmp", "-xdev", "-newer", "/var/tmp/marker", "!", "-type", "d")) {
		name = strings.TrimSpace(name)
		known := false
		for _, prefix := range expected {
			known = known || strings.HasPrefix(name, prefix)
		}
		if !known {
			t.Errorf("%s was changed", name)
		}
	}
}

// TestAnEditedCommentMovesTheConfigurationOnly deploys another bundle of the system that runs.
func TestAnEditedCommentMovesTheConfigurationOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.deploy()
	before := s.state()
	s.write("web/configuration.nix", configuration("first")+"# for the record\n")
	o := s.deploy()
	o.says(t, "web: ship", "web: same system, new configuration kept; nothing was activated")
	if strings.Contains(o.errors, "web: activate") {
		t.Error("it was activated")
	}
	want := before
	want.bundle = s.bundle()
	if want.bundle == before.bundle {
		t.Fatal("the bundle is the same")
	}
	s.want(s.state(), want)
	if text := s.onTarget("cat", "/etc/nixos/current-configuration/configuration.nix"); !strings.Contains(text, "# for the record") {
		t.Errorf("the target's configuration is\n%s", text)
	}
	if roots := s.onTarget("nix-store", "--query", "--roots", want.bundle); !strings.Contains(roots, "/etc/nixos/current-configuration") {
		t.Errorf("the roots of the bundle are %q", roots)
	}
	if roots := s.onTarget("nix-store", "--query", "--roots", before.bundle); roots != "" {
		t.Errorf("the bundle before is still kept by %s", roots)
	}
}

// TestBootChangesWhatBootsOnly deploys with the action boot, then restarts the target.
func TestBootChangesWhatBootsOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.state()
	o := s.deploy("--action", "boot")
	o.says(t, "web: done: generation 2, ", "from the next boot on")
	bundle := s.bundle()
	toplevel := s.toplevel(bundle)
	s.want(s.state(), state{before.runs, toplevel, "system-2-link", toplevel, bundle, "installed", before.greeter})
	s.deploy("--action", "boot").says(t, "web: nothing to do")
	s.reboot()
	after := s.state()
	s.want(after, state{toplevel, toplevel, "system-2-link", toplevel, bundle, "first", after.greeter})
	s.deploy().says(t, "web: nothing to do")
}

// TestTestLastsUntilTheNextBoot deploys with the action test, then restarts the target.
func TestTestLastsUntilTheNextBoot(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.state()
	s.deploy("--action", "test").says(t, "web: runs nixos-system-web-", "until the next boot")
	toplevel := s.toplevel(s.bundle())
	after := s.state()
	s.want(after, state{toplevel, before.profile, before.generation, before.boots, "", "first", after.greeter})
	// Only a commit proves that an activation went to its end: it runs again, and nothing is restarted.
	s.deploy("--action", "test").says(t, "web: ship      everything is there already")
	s.want(s.state(), after)
	s.reboot()
	again := s.state()
	before.greeter = again.greeter
	s.want(again, before)
}

// TestDryActivateSaysAndChangesNothing deploys with the action dry-activate.
func TestDryActivateSaysAndChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.state()
	s.deploy("--action", "dry-activate").says(t, "web | would stop the following units: greeter.service", "web: nothing was changed")
	s.want(s.state(), before)
}

// TestExitCodesOfTheSwitchAreToldApart goes through what NixOS's switch-to-configuration may answer.
func TestExitCodesOfTheSwitchAreToldApart(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	before := s.state()
	fault := func(phase string, code int) string {
		return fmt.Sprintf(`system.switch.fault = { phase = %q; exitCode = %d; actions = [ "test" ]; };`, phase, code)
	}
	for _, step := range []struct {
		name, option string
		status       int
		runs         bool // the new system
		says         []string
	}{
		{"1 refused", fault("check", 1), 1, false, []string{"activate: switch-to-configuration refused (exit status 1); nothing has changed"}},
		{"100 needs a reboot", `system.initInterfaceVersion = "another";`, 1, false,
			[]string{"activate: this change needs a reboot (exit status 100); nothing has changed", "hint: deploy it with --action boot"}},
		{"2 activation failed", `system.activationScripts.broken = "false";`, 5, true,
			[]string{"activate: the activation script failed (exit status 2)", "the old system is still what boots", "hint: back to what ran before, on the target: sudo " + before.runs}},
		{"3 reload failed", fault("end", 3), 5, true,
			[]string{"activate: systemd could not be reloaded (exit status 3); the new system runs, the old system is still what boots"}},
		{"4 a unit failed", `systemd.services.broken = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "/no/such/program"; };`, 5, true,
			[]string{"activate: units failed: broken.service; the new system runs, the old system is still what boots"}},
		{"101 a panic", fault("end", 101), 5, true,
			[]string{"activate: switch-to-configuration test ended with status 101; the new system runs, the old system is still what boots"}},
	} {
		s.t.Run(step.name, func(t *testing.T) {
			s := s.in(t)
			now := s.state()
			s.write("web/configuration.nix", with(configuration(step.name), step.option))
			o := s.ferry("deploy", "--sudo-password-file", s.password)
			if o.status != step.status {
				t.Errorf("status %d, want %d", o.status, step.status)
			}
			o.says(t, "ferry: error: web: ")
			o.says(t, step.says...)
			after := s.state()
			want := now
			if step.runs {
				want.runs, want.greeting, want.greeter = s.toplevel(s.bundle()), step.name, after.greeter
			}
			s.want(after, want)
			if after.boots != before.boots || after.generation != before.generation || after.bundle != before.bundle {
				t.Error("something was committed")
			}
		})
	}
	s.write("web/configuration.nix", configuration("well again"))
	s.deploy()
	if got := s.state(); got.greeting != "well again" || got.boots != got.runs || got.profile != got.runs {
		t.Errorf("after all that: %+v", got)
	}
}
