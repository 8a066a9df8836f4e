package safe_test

import (
	"testing"

	"ferry/internal/lab"
)

// TestASystemThatTakesBootAwayIsNotKept has a system that unmounts /boot when it is activated, as one does from whose file systems
// /boot was left out. Its boot loader is content with the folder that is left, and the machine would boot the old one.
func TestASystemThatTakesBootAwayIsNotKept(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "root", lab.Options{Disk: true})
	before := x.State()
	device := x.OnTarget("findmnt", "--noheadings", "--output", "SOURCE", "/boot")
	x.rewrite(`system.activationScripts.forget = "umount /boot";`)
	o := x.deploys()
	if o.Status != 4 {
		t.Errorf("status %d, want 4", o.Status)
	}
	o.Says(t, "the commit failed: "+device+" (ext4), which the boot loader's files were on, is not mounted any more on /boot")
	if boots, err := x.Target.BootDefault(t.Context()); err != nil || boots != before.Boots {
		t.Errorf("it boots %q, want %q (%v)", boots, before.Boots, err)
	}
	// The lab's systems do not declare it; a real one's activation mounts it again. What is looked at there is known now.
	x.OnTarget("sh", "-c", "echo "+before.Boots+" >/boot/default")
	x.is(before)
}
