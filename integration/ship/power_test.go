package ship_test

import (
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

const (
	// arrivedFront lists the paths of a ship that is held up which the target's Nix has registered.
	arrivedFront = `for p in /nix/store/*-front-*-2-*; do nix-store --check-validity "$p" 2>/dev/null && echo "$p"; done; true`
	// databaseToDisk is what Nix does by itself now and then: its database reaches the disk, and what that says is in the store does not.
	databaseToDisk = "sync /nix/var/nix/db/*"
	// hollow lists those that Nix takes for valid and that are not what it has registered.
	hollow = `for p in /nix/store/*-front-*-2-*; do nix-store --check-validity "$p" 2>/dev/null && ! nix-store --verify-path "$p" 2>/dev/null && echo "$p"; done; true`
)

// TestAPowerCutInAShipLeavesNothingHollow cuts the target's power in the middle of a ship, on disks that lose what was not synced,
// when Nix's database is on the disk and what was received is not. The deployment goes on, reads what has arrived, and has sent
// again what is empty.
func TestAPowerCutInAShipLeavesNothingHollow(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{Target: lab.Options{Disk: true}})
	relay := d.Relayed("alice", lab.RelayOptions{})
	d.offerLate(1)
	d.ship()
	ended := d.heldUp(relay, 2)
	var arrived string
	site.Until(t, "some paths have arrived", func() bool {
		arrived = d.OnTarget("sh", "-c", arrivedFront)
		return strings.Count(arrived, "\n") > 1
	})
	d.OnTarget("sh", "-c", databaseToDisk)
	if err := d.Target.Kill(); err != nil {
		t.Fatal(err)
	}
	relay.Cut()
	if err := d.Target.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if empty := d.OnTarget("sh", "-c", hollow); empty == "" {
		t.Errorf("the power cut has done no harm to any of\n%s", arrived)
	}
	relay.Thaw()
	o := ended()
	if o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
	o.Says(t, "a ship was cut off there by the end of its power: what has arrived of it was read, ", " put back on the target's disk")
	d.allArrived()
	if left := d.OnTarget("sh", "-c", "ls -A /nix/store /nix/var/nix | grep ferry-[ar] || true"); left != "" {
		t.Errorf("it leaves %s", left)
	}
}
