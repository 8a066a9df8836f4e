package deploy_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
)

// TestSwitchRunsAndBootsTheNewSystem is the default action: what runs, what boots, what keeps it, and its number.
func TestSwitchRunsAndBootsTheNewSystem(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := s.State()
	s.Deploy().Says(t, "web: done: generation 2, nixos-system-web-")
	bundle := s.Bundle()
	toplevel := s.Toplevel(bundle)
	after := s.State()
	s.Want(after, site.State{Runs: toplevel, Profile: toplevel, Generation: "system-2-link", Boots: toplevel, Bundle: bundle, Greeting: "first", Greeter: after.Greeter})
	if after.Greeter == before.Greeter {
		t.Error("the changed unit was not restarted")
	}
	s.Reboot()
	again := s.State()
	after.Greeter = again.Greeter
	s.Want(again, after)
}

// TestTheSameAgainTouchesNothing deploys what is there.
func TestTheSameAgainTouchesNothing(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.Deploy()
	before := s.State()
	s.OnTarget("touch", "/var/tmp/marker")
	for _, action := range []string{"switch", "boot", "test"} {
		o := s.Deploy("--action", action)
		o.Says(t, "web: nothing to do: ")
		if strings.Contains(o.Errors, "ship") {
			t.Errorf("%s: something was shipped", action)
		}
	}
	s.Want(s.State(), before)
	// What a login and a sudo leave, and what the agent needs to keep others out.
	expected := []string{"/var/log/", "/run/ferry/lock", "/run/sudo/", "/run/systemd/", "/run/user/", "/run/log/", "/run/utmp", "/run/motd.dynamic", "/var/lib/sudo/", "/run/udev/"}
	for name := range strings.Lines(s.OnTarget("find", "/", "/run", "/tmp", "-xdev", "-newer", "/var/tmp/marker", "!", "-type", "d")) {
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
	s := site.New(t, site.Options{})
	s.Deploy()
	before := s.State()
	s.Write("web/configuration.nix", site.Configuration("first")+"# for the record\n")
	o := s.Deploy()
	o.Says(t, "web: ship", "web: same system, new configuration kept; nothing was activated")
	if strings.Contains(o.Errors, "web: activate") {
		t.Error("it was activated")
	}
	want := before
	want.Bundle = s.Bundle()
	if want.Bundle == before.Bundle {
		t.Fatal("the bundle is the same")
	}
	s.Want(s.State(), want)
	if text := s.OnTarget("cat", "/etc/nixos/current-configuration/configuration.nix"); !strings.Contains(text, "# for the record") {
		t.Errorf("the target's configuration is\n%s", text)
	}
	if roots := s.OnTarget("nix-store", "--query", "--roots", want.Bundle); !strings.Contains(roots, "/nix/var/nix/gcroots/ferry/current-configuration") {
		t.Errorf("the roots of the bundle are %q", roots)
	}
	if roots := s.OnTarget("nix-store", "--query", "--roots", before.Bundle); roots != "" {
		t.Errorf("the bundle before is still kept by %s", roots)
	}
}

// TestBootChangesWhatBootsOnly deploys with the action boot, then restarts the target.
func TestBootChangesWhatBootsOnly(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := s.State()
	o := s.Deploy("--action", "boot")
	o.Says(t, "web: done: generation 2, ", "from the next boot on")
	bundle := s.Bundle()
	toplevel := s.Toplevel(bundle)
	s.Want(s.State(), site.State{Runs: before.Runs, Profile: toplevel, Generation: "system-2-link", Boots: toplevel, Bundle: bundle, Greeting: "installed", Greeter: before.Greeter})
	s.Deploy("--action", "boot").Says(t, "web: nothing to do")
	s.Reboot()
	after := s.State()
	s.Want(after, site.State{Runs: toplevel, Profile: toplevel, Generation: "system-2-link", Boots: toplevel, Bundle: bundle, Greeting: "first", Greeter: after.Greeter})
	s.Deploy().Says(t, "web: nothing to do")
}

// TestTestLastsUntilTheNextBoot deploys with the action test, then restarts the target.
func TestTestLastsUntilTheNextBoot(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := s.State()
	s.Deploy("--action", "test").Says(t, "web: runs nixos-system-web-", "until the next boot")
	toplevel := s.Toplevel(s.Bundle())
	after := s.State()
	s.Want(after, site.State{Runs: toplevel, Profile: before.Profile, Generation: before.Generation, Boots: before.Boots, Bundle: "", Greeting: "first", Greeter: after.Greeter})
	// Only a commit proves that an activation went to its end: it runs again, and nothing is restarted.
	s.Deploy("--action", "test").Says(t, "web: ship      everything is there already")
	s.Want(s.State(), after)
	s.Reboot()
	again := s.State()
	before.Greeter = again.Greeter
	s.Want(again, before)
}

// TestDryActivateSaysAndChangesNothing deploys with the action dry-activate.
func TestDryActivateSaysAndChangesNothing(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := s.State()
	s.Deploy("--action", "dry-activate").Says(t, "web | would stop the following units: greeter.service", "web: nothing was changed")
	s.Want(s.State(), before)
}
