package safe_test

import (
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestAPowerCutInEachPhase takes the target's power away and gives it back: it comes up with the old system, or with the new
// one if that was committed to the end, on disks that lose what was not synced. What boots is whole.
func TestAPowerCutInEachPhase(t *testing.T) {
	t.Parallel()
	eachLoginOf(t, lab.Options{Disk: true}, func(t *testing.T, x *trial) {
		// What it cuts is known to be cut at once.
		x.Relay = x.Relayed(x.login, lab.RelayOptions{})
		const restarted = "the target was restarted in the middle"
		for _, c := range []struct {
			phase  site.Stage
			status int
			says   string
		}{
			{arm, 4, restarted + "; it runs and boots what it did before"},
			{armed, 4, restarted + "; it runs and boots what it did before"},
			{activate, 4, restarted + "; it runs and boots what it did before"},
			{confirm, 4, restarted + "; it runs and boots what it did before"},
			{commit, 5, restarted + ", or deployed to by someone else; it runs nixos-system-web-"},
			{disarm, 0, "note: " + restarted + ", after the commit"},
		} {
			t.Run(c.phase.Name, func(t *testing.T) {
				x := x.in(t)
				before, greeting := x.State(), x.rewrite("")
				_, ended := x.begin(c.phase)
				// As Nix does by itself now and then: its database must not say more than there is.
				x.OnTarget("sh", "-c", "sync /nix/var/nix/db/*")
				if err := x.Target.Kill(); err != nil {
					t.Fatal(err)
				}
				x.Relay.Cut()
				if err := x.Target.PowerOn(t.Context()); err != nil {
					t.Fatal(err)
				}
				o := ended()
				if o.Status != c.status {
					t.Errorf("status %d, want %d", o.Status, c.status)
				}
				o.Says(t, c.says)
				if c.status == 0 {
					x.isNew(greeting)
				} else {
					if c.status == 5 {
						// Only the profile has moved; what boots is what ran.
						after := x.State()
						before.Profile, before.Generation = after.Profile, after.Generation
					}
					x.is(before)
				}
				x.OnTarget("nix-store", "--verify", "--check-contents")
			})
		}
		greeting := x.rewrite("")
		x.Deploy()
		x.isNew(greeting)
	})
}
