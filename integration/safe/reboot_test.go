package safe_test

import (
	"errors"
	"strings"
	"testing"

	"ferry/integration/site"
)

// TestARebootComesBackAndIsCommitted locks the way of a reboot that goes well, and that doing it again changes nothing.
func TestARebootComesBackAndIsCommitted(t *testing.T) {
	t.Parallel()
	for name, loader := range map[string]string{"systemd-boot": systemdBoot, "grub": grub} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newRebootable(t, loader)
			s.configure("second", "")
			boots := s.Target.Boots()
			s.must(s.reboots("--reboot-timeout", "3m"), 0, "generation 3 is what boots")
			s.runs("second")
			if got := s.Target.Boots(); got != boots+1 {
				t.Errorf("it was rebooted %d times", got-boots)
			}
			s.clean(3)
			s.must(s.reboots(), 0, "nothing to do")
		})
	}
}

// TestARebootThatHangsNeedsAPowerCycle locks that the old system is what boots then, and tidies up.
func TestARebootThatHangsNeedsAPowerCycle(t *testing.T) {
	t.Parallel()
	s := newRebootable(t, systemdBoot)
	s.configure("hangs", `system.activationScripts.hang.text = "[ $NIXOS_ACTION != boot ] || sleep 100000";`)
	s.must(s.reboots("--reboot-timeout", "30s"), 5, "power cycle it: its boot default is the old system")
	if err := s.Target.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Target.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.clean(2)
	s.runs("first")
}

// TestARebootThatCannotBeReachedComesBackByItself locks the way back of a system that is up and does not answer.
func TestARebootThatCannotBeReachedComesBackByItself(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ loader, more string }{
		"without sshd":         {systemdBoot, `services.openssh.enable = false;`},
		"refusing the login":   {grub, `services.openssh.extraConfig = "DenyUsers alice";`},
		"with another address": {systemdBoot, `networking.interfaces.host0.ipv4.addresses = [ { address = "192.0.2.7"; prefixLength = 24; } ];`},
		"in emergency mode": {systemdBoot, `systemd.services.emergency-now = {
			wantedBy = [ "sysinit.target" ];
			unitConfig.DefaultDependencies = false;
			serviceConfig = { Type = "oneshot"; ExecStart = "/bin/systemctl --no-block isolate emergency.target"; };
		};`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newRebootable(t, c.loader)
			s.configure("unreachable", c.more)
			s.must(s.reboots("--allow-lockout", "--reboot-timeout", "1m"), 4, "came back with the old system")
			s.clean(2)
			s.runs("first")
		})
	}
}

// TestARebootIntoASystemWithAFailedUnitIsGoneBackFrom locks that the units are judged before the commit.
func TestARebootIntoASystemWithAFailedUnitIsGoneBackFrom(t *testing.T) {
	t.Parallel()
	s := newRebootable(t, grub)
	s.configure("broken", `systemd.services.broken = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "/bin/false"; };`)
	s.must(s.reboots("--reboot-timeout", "3m"), 4, "units failed: broken.service")
	s.clean(2)
	s.runs("first")
}

// TestARebootWhoseFerryIsKilledComesBackByItself locks that nobody has to be there.
func TestARebootWhoseFerryIsKilledComesBackByItself(t *testing.T) {
	t.Parallel()
	s := newRebootable(t, systemdBoot)
	s.configure("lost", "")
	boots := s.Target.Boots()
	cmd, ended := s.Background("deploy", "--reboot", "--reboot-timeout", "30s", "--sudo-password-file", s.Password)
	site.Until(t, "the target prepares the reboot", s.prepared)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended()
	s.awaitBoot(boots + 1)
	s.clean(2)
	s.runs("first")
}

// TestARebootThatHasNoWayBackIsAskedFor locks that it is refused where nobody can be asked, and done when a person agrees, or
// with --yes.
func TestARebootThatHasNoWayBackIsAskedFor(t *testing.T) {
	t.Parallel()
	s := newRebootable(t, extlinux)
	s.configure("second", "")
	s.must(s.reboots(), 1, "this reboot cannot be rolled back: its boot loader cannot try a system once")
	s.runs("first")
	asked := func(answer string, status int) {
		t.Helper()
		p := s.Person("deploy", "--reboot", "--sudo-password-file", s.Password)
		p.Sees("deploy this? [y/N] ")
		p.Types("y\n")
		p.Sees("web: this reboot cannot be rolled back: its boot loader cannot try a system once.")
		p.Sees("Reboot anyway? ")
		p.Types(answer + "\n")
		p.Wants(status)
	}
	asked("n", 1)
	s.runs("first")
	asked("y", 0)
	s.runs("second")
	s.clean(3)
	s.configure("third", "")
	s.must(s.reboots("--yes"), 0, "generation 4 is what boots")
	s.runs("third")
	s.clean(4)
}

// TestAPowerCutWhileARebootIsPrepared locks that a trial that was cut off, wherever, ends with the old system and no trace.
func TestAPowerCutWhileARebootIsPrepared(t *testing.T) {
	t.Parallel()
	s := newRebootable(t, systemdBoot)
	s.configure("cut", "")
	cmd, ended := s.Background("deploy", "--reboot", "--reboot-timeout", "20s", "--sudo-password-file", s.Password)
	site.Until(t, "the target prepares the reboot", s.prepared)
	if err := errors.Join(s.Target.Kill(), cmd.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	ended()
	if err := s.Target.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It may have booted the new system, and be about to go back from it.
	site.Until(t, "the old system runs, and the trial is over", func() bool {
		out, err := s.Target.Output(t.Context(), "readlink", "-f", "/run/booted-system")
		return err == nil && strings.TrimSpace(string(out)) == s.first && !s.prepared()
	})
	s.clean(2)
	s.runs("first")
}
