package nix

import (
	"strings"
	"testing"
)

// TestRemediesAreThoseOfThisMachine locks that macOS's ways are named there and only there.
func TestRemediesAreThoseOfThisMachine(t *testing.T) {
	for _, goos := range []string{"linux", "darwin"} {
		list := append(platformRemedies(goos, "aarch64-linux"), installNix(goos), setUpDaemon(goos), startDaemon(goos), joinUsers(goos))
		text := strings.Join(list, "\n")
		for _, word := range []string{"macOS", "nix-darwin", "launchctl"} {
			if strings.Contains(text, word) != (goos == "darwin") {
				t.Errorf("%s: %q in %s", goos, word, text)
			}
		}
		for _, word := range []string{"Debian", "NixOS:", "apt ", "systemctl"} {
			if strings.Contains(text, word) != (goos == "linux") {
				t.Errorf("%s: %q in %s", goos, word, text)
			}
		}
		if !strings.Contains(text, "--builders 'ssh://user@host aarch64-linux'") {
			t.Errorf("%s: no remote builder in %s", goos, text)
		}
	}
}
