package safe_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// The lab's boot loaders, as options of a configuration.
const (
	systemdBoot = "boot.loader.lab.tryOnce = true;"
	grub        = "boot.loader.lab.grub = true;"
	extlinux    = "" // cannot boot an entry once
)

// rebootable is a site whose target has booted, and boots, a first system with a boot loader.
type rebootable struct {
	*site.Site
	loader string
	first  string // the toplevel
}

func newRebootable(t *testing.T, loader string) *rebootable {
	t.Helper()
	s := &rebootable{Site: site.New(t, site.Options{Target: lab.Options{Disk: true}}), loader: loader}
	s.configure("first", "")
	s.Deploy("--action", "boot")
	// The programs of the boot loader come with the system.
	s.Reboot()
	s.first = s.OnTarget("readlink", "-f", "/run/current-system")
	return s
}

// configure writes the node's configuration, with a greeting and more of it.
func (s *rebootable) configure(greeting, more string) {
	s.T.Helper()
	s.Write("web/configuration.nix", fmt.Sprintf(`{ lib, ... }:
{
  config = lib.mkMerge [
    {
      networking.hostName = "web";
      services.openssh.enable = lib.mkDefault true;
      environment.etc."greeting".text = "%s";
      %s
    }
    {
      %s
    }
  ];
}
`, greeting, s.loader, more))
}

// reboots deploys by a reboot.
func (s *rebootable) reboots(args ...string) site.Outcome {
	s.T.Helper()
	return s.Ferry(append([]string{"deploy", "--reboot", "--sudo-password-file", s.Password}, args...)...)
}

// must fails the test unless a deployment ended as it has to, and said that.
func (s *rebootable) must(o site.Outcome, status int, said string) {
	s.T.Helper()
	if o.Status != status {
		s.T.Errorf("status %d, want %d", o.Status, status)
	}
	o.Says(s.T, said)
}

// awaitBoot waits until the target has booted more often than boots.
func (s *rebootable) awaitBoot(boots int) {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(s.T.Context(), 2*time.Minute)
	defer cancel()
	if err := s.Target.WaitReboot(ctx, boots); err != nil {
		s.T.Fatal(err)
	}
}

// runs makes sure that the target greets so, and that this is the system that it has booted and will boot.
func (s *rebootable) runs(greeting string) {
	s.T.Helper()
	if got := s.OnTarget("cat", "/etc/greeting"); got != greeting {
		s.T.Errorf("the target greets with %q, want %q", got, greeting)
	}
	current := s.OnTarget("readlink", "-f", "/run/current-system")
	for _, link := range []string{"/run/booted-system", "/nix/var/nix/profiles/system"} {
		if got := s.OnTarget("readlink", "-f", link); got != current {
			s.T.Errorf("%s is %s, but %s runs", link, got, current)
		}
	}
	if got, err := s.Target.BootDefault(s.T.Context()); got != current || err != nil {
		s.T.Errorf("%s boots next (%v), but %s runs", got, err, current)
	}
	if greeting == "first" && current != s.first {
		s.T.Errorf("%s runs, and not %s", current, s.first)
	}
}

// trialLeft prints what is there of a trial on the target; in sh, a pattern that matches nothing is itself.
const trialLeft = `for f in /etc/systemd/system.control /var/lib/ferry/reboot /nix/var/nix/gcroots/ferry/reboot-* /etc/lab/efivars/LoaderEntryOneShot; do
	[ ! -e "$f" ] || echo "$f"
done
grep '^next_entry=.' /boot/grub/grubenv 2>/dev/null
systemctl list-units --all --plain --no-legend 'ferry-*'
systemctl list-units --failed --plain --no-legend`

// clean makes sure that nothing is left of a trial, and how many generations there are. What the target does by itself may
// take a moment.
func (s *rebootable) clean(generations int) {
	s.T.Helper()
	var left string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if left = s.OnTarget("sh", "-c", trialLeft); left == "" {
			break
		}
	}
	if left != "" {
		s.T.Errorf("there is left:\n%s", left)
	}
	links := strings.Fields(s.OnTarget("sh", "-c", "ls -d /nix/var/nix/profiles/system-*-link"))
	if len(links) != generations {
		s.T.Errorf("the generations are %q, want %d", links, generations)
	}
}

// prepared tells whether the target will boot another system once, or does already.
func (s *rebootable) prepared() bool {
	_, err := os.Stat(filepath.Join(s.Target.Root(), "var/lib/ferry/reboot/trial.json"))
	return err == nil
}
