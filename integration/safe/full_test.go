package safe_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestADiskThatIsFullInAPhase leaves no room where the next phase writes.
func TestADiskThatIsFullInAPhase(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{StoreLimit: 256 << 20})
	for _, c := range []struct {
		name   string
		phase  site.Stage
		folder string
		status int
		says   string
	}{
		{"/run, before it is armed", arm, "/run", 1, "web: activate: arm the rollback: "},
		{"/run, while it activates", activate, "/run", 4, "; the target rolled back to "},
		{"the store, before the commit", confirm, "/nix/store", 4, "web: commit: the commit failed: "},
		{"/boot, before the commit", confirm, "/boot", 4, "web: commit: the boot loader could not be written (exit status "},
		{"/var, before the commit", confirm, "/var", 0, "web: done: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := x.in(t)
			before, greeting := x.State(), x.rewrite("")
			if c.folder == "/boot" {
				// It is one of its own before the switch begins: else what makes it full would be what ferry refuses.
				x.OnTarget("sh", "-c", "cp -a /boot /run/boot-before && mount -t tmpfs boot /boot && cp -a /run/boot-before/. /boot")
			}
			_, ended := x.begin(c.phase, "--confirm-timeout=30s")
			free, err := x.Target.FillDisk(t.Context(), c.folder)
			if err != nil {
				t.Fatal(err)
			}
			x.goOn(c.phase)
			o := ended()
			if err := free(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c.folder == "/boot" {
				x.OnTarget("sh", "-c", "cp -a /boot/. /run/boot-before && umount /boot && cp -a /run/boot-before/. /boot && rm -rf /run/boot-before")
			}
			if o.Status != c.status || !strings.Contains(o.Errors, c.says) {
				t.Errorf("status %d, want %d, and %q", o.Status, c.status, c.says)
			}
			if c.status == 0 {
				x.isNew(greeting)
			} else {
				x.is(before)
			}
			if got := x.OnTarget("systemctl", "show", "-p", "NeedDaemonReload", "--value", "greeter"); got != "no" {
				t.Error("systemd runs the unit of another system")
			}
		})
	}
	greeting := x.rewrite("")
	x.Deploy()
	x.isNew(greeting)
}
