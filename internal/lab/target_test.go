package lab

import (
	"os/exec"
	"strings"
	"testing"
)

func TestATargetBootsAndAnswersSSH(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			target := StartTarget(t, Options{Suite: suite})
			r, err := current()
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "ssh", "-F", "none", "-i", r.keyFile(), "-o", "StrictHostKeyChecking=no",
				"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "alice@"+target.Addr().String(),
				"id", "-un;", "systemctl", "is-system-running").CombinedOutput()
			if err != nil {
				t.Fatalf("ssh: %v: %s", err, out)
			}
			if got := strings.Fields(string(out)); len(got) != 2 || got[0] != "alice" || got[1] != "running" {
				t.Errorf("got %q", got)
			}
		})
	}
}
