package ship_test

import (
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// large is a path of which every second MB is another one each turn, and the rest is not, or all of it if it is alone.
type large struct {
	name  string
	size  int
	turn  int
	alone bool
}

// fresh is how many of its bytes are not in another turn's.
func (l large) fresh() int64 {
	if l.alone {
		return int64(l.size)
	}
	return int64(l.size / 2)
}

// offerLarge makes the project's system one that has the path.
func (d *dock) offerLarge(l large) {
	d.T.Helper()
	const mb = 1 << 20
	var text strings.Builder
	for i := range l.size / mb {
		seed := 1000 + i
		if l.alone || i%2 == 0 {
			seed += 1000 * l.turn
		}
		text.WriteString(noise(seed, mb))
	}
	file := filepath.Join(d.Builder.Home(), l.name)
	if err := d.Builder.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		d.T.Fatal(err)
	}
	d.configure("  environment.etc.large.source = " + made(l.name, "cp "+file+" $out") + ";\n")
}

// keeper is the command line of what waits on the target for the rest of a path.
const keeper = "^/var/lib/ferry/agent-[^ ]* keep "

// TestALargePathGoesOnWhereItWasBrokenOff loses the connection in the middle of a large path, and tells from the bytes on the wire
// what was sent again.
func TestALargePathGoesOnWhereItWasBrokenOff(t *testing.T) {
	t.Parallel()
	d := newDock(t, site.Options{})
	relay := d.Relayed("alice", lab.RelayOptions{})
	d.offerLarge(large{name: "large-1", size: 40 << 20, turn: 1})
	d.ship()
	wait := func(*dock) {
		// Not its process, which is there before that.
		site.Until(d.T, "nix-store is kept", func() bool {
			return d.OnTarget("sh", "-c", "find /run/ferry/kept -type s 2>/dev/null || true") != ""
		})
	}
	for _, c := range []struct {
		name string
		what large
		lose func(d *dock)
		// again says that the whole path has to be sent.
		again bool
	}{
		{"as a difference", large{name: "large-2", size: 40 << 20, turn: 2}, func(d *dock) {
			relay.Cut()
			wait(d)
			d.isRootsAlone()
		}, false},
		{"whole", large{name: "whole", size: 24 << 20, turn: 3, alone: true}, func(d *dock) {
			relay.Cut()
			wait(d)
		}, false},
		{"without the target's notice", large{name: "unnoticed", size: 24 << 20, turn: 4, alone: true}, func(d *dock) {
			d.OnTarget("pkill", "-STOP", "-f", "^sshd: alice@notty")
			relay.Cut()
		}, false},
		{"and with what was kept", large{name: "killed", size: 8 << 20, turn: 5, alone: true}, func(d *dock) {
			relay.Cut()
			wait(d)
			d.OnTarget("pkill", "-KILL", "-f", keeper)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := d.in(t)
			d.offerLarge(c.what)
			d.Bundle()
			before := relay.Traffic().Up
			relay.FreezeIn(c.what.fresh() / 2)
			defer relay.Thaw()
			_, ended := d.Background("deploy", "--action", "boot", "-v", "--sudo-password-file", d.Password)
			site.Until(t, "the ship is held up", func() bool { return relay.Traffic().Up == before+c.what.fresh()/2 })
			c.lose(d)
			relay.Thaw()
			o := ended()
			sent := relay.Traffic().Up - before
			t.Logf("%d bytes were sent of %d", sent, c.what.fresh())
			if o.Status != 0 || !strings.Contains(o.Errors, "connected again") || strings.Contains(o.Errors, " goes on at ") == c.again {
				t.Errorf("status %d", o.Status)
			}
			if !c.again && sent > c.what.fresh()*13/10 {
				t.Errorf("%d bytes were sent of %d: some of them twice", sent, c.what.fresh())
			}
			d.OnTarget("sh", "-c", "pkill -CONT -f '^sshd: alice@notty' || true")
			d.allArrived()
			d.NothingRunsThere()
			if left := d.OnTarget("find", "/run/ferry/kept", "-mindepth", "1"); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// isRootsAlone checks that another user of the target gets nowhere near what is kept.
func (d *dock) isRootsAlone() {
	d.T.Helper()
	if mode := d.OnTarget("stat", "-c", "%a %U", "/run/ferry/kept"); mode != "700 root" {
		d.T.Errorf("/run/ferry/kept is %s", mode)
	}
}
