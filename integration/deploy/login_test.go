package deploy_test

import "testing"

// TestADeploymentLogsInOnceAndElevatesOnce counts in the target's own logs, and on the wire.
func TestADeploymentLogsInOnceAndElevatesOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	since := s.watched("alice")
	for _, step := range []struct{ what, configuration, says string }{
		{"the first one, which installs the agent", configuration("first"), "done: generation 2"},
		{"one that changes the system", configuration("second"), "done: generation 3"},
		{"one with nothing to do", configuration("second"), "nothing to do"},
		{"one that moves only the configuration", configuration("second") + "# edited\n", "new configuration kept"},
	} {
		s.write("web/configuration.nix", step.configuration)
		s.deploy().says(t, step.says)
		if got, want := since(), (counts{1, 1, 1}); got != want {
			t.Errorf("%s: %+v, want %+v", step.what, got, want)
		}
	}
}
