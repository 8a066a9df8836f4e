package nix

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestGitsMonitorsAreOffBesideTheUsersOwnSettings asks git itself what counts, with settings in the environment and without.
func TestGitsMonitorsAreOffBesideTheUsersOwnSettings(t *testing.T) {
	for name, env := range map[string][]string{
		"none":    nil,
		"another": {"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=user.name", "GIT_CONFIG_VALUE_0=alice"},
		"it":      {"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=core.fsmonitor", "GIT_CONFIG_VALUE_0=/bin/false"},
	} {
		t.Run(name, func(t *testing.T) {
			count := ""
			if env != nil {
				count = "1"
			}
			cmd := exec.CommandContext(t.Context(), "git", "config", "--get", "core.fsmonitor")
			cmd.Env = slices.Concat(os.Environ(), env, withoutMonitor(count))
			if out, err := cmd.Output(); strings.TrimSpace(string(out)) != "false" {
				t.Errorf("core.fsmonitor is %q, %v", out, err)
			}
			if env == nil {
				return
			}
			cmd = exec.CommandContext(t.Context(), "git", "config", "--get", strings.TrimPrefix(env[1], "GIT_CONFIG_KEY_0="))
			cmd.Env = slices.Concat(os.Environ(), env, withoutMonitor(count))
			if out, _ := cmd.Output(); name == "another" && strings.TrimSpace(string(out)) != "alice" {
				t.Errorf("the user's own setting is %q", out)
			}
		})
	}
	if env := withoutMonitor("many"); env != nil {
		t.Errorf("a count that is none: %q", env)
	}
}
