package ship_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// front is how many bytes in frontPaths paths are shipped before the path "late", which is made from what the target has.
const (
	front      = 6 << 20
	frontPaths = 12
)

// offerLate makes the project's system one that has another "late", which refers to the paths that come before it.
func (d *dock) offerLate(turn int) {
	d.T.Helper()
	late := tree{"lib/a": put(noise(50, 500_000), hashes(turn, 1000, 500_000))}
	place := filepath.Join(d.Builder.Home(), "late", late.sum())
	if err := late.write(d.Builder.Path(place)); err != nil {
		d.T.Fatal(err)
	}
	var outputs, paths []string
	for i := range frontPaths {
		outputs = append(outputs, fmt.Sprintf("%q", fmt.Sprint("o", i)))
		paths = append(paths, fmt.Sprint("front.o", i))
	}
	before := made(fmt.Sprintf("front-%s-%d", filepath.Base(d.Project), turn),
		fmt.Sprintf("for o in $outputs; do eval \"o=\\$$o\"; head -c %d /dev/urandom >$o; done", front/frontPaths),
		"outputs = [ "+strings.Join(outputs, " ")+" ];")
	d.configure(fmt.Sprintf("  environment.etc.\"ship/late\".source = %s;\n", made("late", "cp -R -P "+place+" $out; echo $fronts >$out/front",
		"fronts = let front = "+before+"; in [ "+strings.Join(paths, " ")+" ];")))
}

// heldUp begins to ship another "late", and waits until the relay has let half of what comes before it pass.
func (d *dock) heldUp(relay *lab.Relay, turn int) (ended func() site.Outcome) {
	d.T.Helper()
	d.offerLate(turn)
	d.Bundle()
	from := relay.Traffic().Up
	relay.FreezeIn(front / 2)
	_, ended = d.Background("deploy", "--action", "boot", "-v", "--sudo-password-file", d.Password)
	site.Until(d.T, "the ship is held up", func() bool { return relay.Traffic().Up == from+front/2 })
	return ended
}

// TestAShipThatIsHurtOnItsWay does something to the target, the agent or the link in the middle of a ship.
func TestAShipThatIsHurtOnItsWay(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{Target: lab.Options{StoreLimit: 256 << 20}})
	relay := d.Relayed("alice", lab.RelayOptions{})
	d.offerLate(1)
	d.ship()
	for i, c := range []struct {
		name string
		hurt func(d *dock) (heal func())
		says string
		// fails says that the deployment does, and another one is made.
		fails bool
	}{
		{"the partner is collected", func(d *dock) func() {
			there := d.place("late")
			d.rename(there, there+"-away")
			return func() { d.rename(there+"-away", there) }
		}, "; it is sent as a whole. ", false},
		{"the agent is killed", func(d *dock) func() {
			d.OnTarget("pkill", "-KILL", "-f", "^/var/lib/ferry/agent-[^ ]* serve ")
			return func() {}
		}, "connection lost", false},
		{"nix-store is killed", func(d *dock) func() {
			d.OnTarget("pkill", "-KILL", "-f", "^nix-store --serve")
			return func() {}
		}, "nix-store --serve", true},
		{"the link is cut", func(*dock) func() {
			relay.Cut()
			return func() {}
		}, "connected again", false},
		{"the disk is full", func(d *dock) func() {
			free, err := d.Target.FillDisk(d.T.Context(), "/nix/store")
			if err != nil {
				d.T.Fatal(err)
			}
			return func() {
				if err := free(d.T.Context()); err != nil {
					d.T.Fatal(err)
				}
			}
		}, "No space left on device", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := d.in(t)
			ended := d.heldUp(relay, i+2)
			heal := c.hurt(d)
			relay.Thaw()
			o := ended()
			heal()
			if !strings.Contains(o.Errors, c.says) || (o.Status != 0) != c.fails {
				t.Errorf("status %d, want failure: %v, and %q", o.Status, c.fails, c.says)
			}
			if c.fails {
				d.shipUnseen()
			}
			d.allArrived()
		})
	}
}

func (d *dock) rename(from, to string) {
	d.T.Helper()
	if err := os.Rename(from, to); err != nil {
		d.T.Fatal(err)
	}
}

// TestALinkThatIsCutAtAnyByte cuts it in a ship at bytes that a seed names: what has arrived is not sent again, and the rest is.
func TestALinkThatIsCutAtAnyByte(t *testing.T) {
	t.Parallel()
	const seed, rounds = 4, 5
	random := rand.New(rand.NewPCG(seed, 0))
	d := newDock(t, site.Options{})
	relay := d.Relayed("alice", lab.RelayOptions{})
	d.offerLate(1)
	d.ship()
	// The login and the agent's hello are about so long; a cut in these is another matter.
	const login = 12_000
	for round := range rounds {
		d.offerLate(round + 2)
		d.Bundle()
		at := login + random.Int64N(front)
		if round%4 == 0 {
			at = login + random.Int64N(front/100)
		}
		before := relay.Traffic()
		relay.CutIn(at)
		s := d.ship()
		after := relay.Traffic()
		if after.Connections != before.Connections+2 {
			t.Errorf("cut after %d bytes: %d connections, want 2", at, after.Connections-before.Connections)
		}
		// What ssh has in its window when it is cut is lost, and so is the path that this is in.
		lost := min(at, 2<<20+2*front/frontPaths)
		if sent := after.Up - before.Up; sent > front*21/20+2*login+lost {
			t.Errorf("cut after %d bytes: %d were sent for %v", at, sent, s.bytes)
		}
	}
}
