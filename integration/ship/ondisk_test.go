package ship_test

import (
	"os"
	"strings"
	"testing"

	"ferry/integration/site"
)

// TestAPathThatIsGoneFromTheDiskIsPutBack removes paths of a target's store behind its Nix's back. The store is mounted
// read-only, as it is on NixOS.
func TestAPathThatIsGoneFromTheDiskIsPutBack(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{})
	trees := map[string]tree{"stays": {"lib/a": noise(60, 50_000), "bin/x": "+x#!/bin/sh\n", "l": "-> lib/a"}, "turns": {"lib/a": noise(61, 200_000)}}
	d.offer(trees)
	d.ship()
	stays, turns := d.place("stays"), d.place("turns")
	if err := os.RemoveAll(stays); err != nil {
		t.Fatal(err)
	}
	// One stays a part of the system, the other is a base of what is shipped next.
	d.rename(turns, turns+"-away")
	d.OnTarget("sh", "-c", "mount --bind /nix/store /nix/store && mount -o remount,ro,bind /nix/store")
	trees["turns"] = tree{"lib/a": put(noise(61, 200_000), hashes(1, 100_000, 200_000))}
	d.offer(trees)
	o := d.Deploy("--action", "boot", "-v")
	o.Says(t, "1 path that the target's Nix takes for valid is not on its disk: "+strings.TrimPrefix(stays, d.Target.Root()),
		"; it is sent as a whole. ", "1 path put back on the target's disk")
	d.rename(turns+"-away", turns)
	d.allArrived()
	if said := d.OnTarget("sh", "-c", "ls -A /nix/store | grep -c '^.ferry-restore' || true; touch /nix/store/x 2>&1 || true"); !strings.HasPrefix(said, "0\n") || !strings.Contains(said, "Read-only file system") {
		t.Errorf("it leaves %q", said)
	}

	// Where there is nothing else to do, it is looked at, too.
	stays = d.place("stays")
	if err := os.RemoveAll(stays); err != nil {
		t.Fatal(err)
	}
	d.Deploy("--action", "boot").Says(t, "1 path that the target's Nix takes for valid is not on its disk: ", "1 path put back on the target's disk", "web: nothing to do: ")
	d.isWhole()

	if o := d.Ferry("verify", "--contents"); o.Status != 0 || !strings.HasPrefix(o.Out, "web: whole: ") {
		t.Errorf("status %d", o.Status)
	}
	stays = d.place("stays")
	if err := os.WriteFile(stays+"/lib/a", []byte("other"), 0o444); err != nil {
		t.Fatal(err)
	}
	o = d.Ferry("verify", "--contents")
	o.Says(t, "web: verify: 1 of the ", "sudo nix-store --repair-path "+strings.TrimPrefix(stays, d.Target.Root()))
	if o.Status != 1 || !strings.HasPrefix(o.Out, "web: DAMAGED: ") {
		t.Errorf("status %d", o.Status)
	}
	if o := d.Ferry("verify", "--contents", "--json"); o.Status != 1 || !strings.Contains(o.Out, "content is not what was registered") {
		t.Errorf("status %d", o.Status)
	}
}

// TestARollbackPutsBackWhatIsGone removes a path of the system that is returned to, which the one that runs does not need.
func TestARollbackPutsBackWhatIsGone(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{})
	d.offer(map[string]tree{"stays": {"a": noise(62, 50_000)}})
	d.Deploy()
	old := d.place("stays")
	d.offer(map[string]tree{"stays": {"a": noise(63, 50_000)}})
	d.Deploy()
	if err := os.RemoveAll(old); err != nil {
		t.Fatal(err)
	}
	o := d.Ferry("rollback", "--sudo-password-file", d.Password)
	if o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
	o.Says(t, "1 path that the target's Nix takes for valid is not on its disk: "+strings.TrimPrefix(old, d.Target.Root()),
		"1 path put back on the target's disk", "web: done: generation ")
	d.isWhole()
}
