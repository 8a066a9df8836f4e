package deploy_test

import (
	"strings"
	"testing"
)

// TestDeploySwitchesATargetToANewSystem is issue 2's whole path: one command, and the target runs and boots what was built.
func TestDeploySwitchesATargetToANewSystem(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.deploy()
	if got := s.onTarget("cat", "/etc/greeting"); got != "first" {
		t.Errorf("the target greets with %q", got)
	}
	current := s.onTarget("readlink", "-f", "/run/current-system")
	if profile := s.onTarget("readlink", "-f", "/nix/var/nix/profiles/system"); profile != current {
		t.Errorf("the profile is %s, %s runs", profile, current)
	}
	if boot := strings.TrimSpace(s.onTarget("cat", "/boot/default")); boot != current {
		t.Errorf("%s boots, %s runs", boot, current)
	}
	bundle := strings.TrimSpace(s.ferry("build").out)
	if root := s.onTarget("readlink", "-f", "/etc/nixos/current-configuration"); root != bundle {
		t.Errorf("the GC root is %s, want %s", root, bundle)
	}
}
