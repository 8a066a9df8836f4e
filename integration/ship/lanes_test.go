package ship_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// laneProcess is the command line of what carries a lane on the target.
const laneProcess = "^/var/lib/ferry/agent-[^ ]* lane "

// farAway is a link on which OpenSSH's window of one channel is the limit.
var farAway = lab.RelayOptions{Delay: 200 * time.Millisecond}

// lanes is how many processes carry a lane on the target.
func (d *dock) lanes() int {
	d.T.Helper()
	return len(strings.Fields(d.OnTarget("sh", "-c", "pgrep -f '"+laneProcess+"' || true")))
}

// TestAShipOverALongWayHasMoreThanOneChannel ships over a link of more than OpenSSH's window per round trip, and hurts the channels in the
// middle. It has the machine for itself, as far as this package goes: the window must be what limits the ship, and not its processors.
func TestAShipOverALongWayHasMoreThanOneChannel(t *testing.T) {
	d := newDock(t, site.Options{})
	relay := d.Relayed("alice", farAway)
	const size, middle = 72 << 20, 56 << 20
	for i, c := range []struct {
		name string
		hurt func(d *dock)
		says string // what ferry has to say of it
		// alone says that the target's sshd allows one session, so that there is nothing to hurt.
		alone bool
	}{
		{"to its end", func(*dock) {}, "", false},
		{"the process of one is killed", func(d *dock) { d.OnTarget("pkill", "-KILL", "-o", "-f", laneProcess) }, "; the ship goes on over one channel", false},
		{"the link is cut", func(*dock) { relay.Cut() }, "connected again", false},
		{"sshd allows one", func(*dock) {}, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := d.in(t)
			if c.alone {
				d.OnTarget("sh", "-c", "sed -i '1i MaxSessions 1' /etc/ssh/sshd_config && systemctl restart sshd")
			}
			d.offerLarge(large{name: fmt.Sprint("far-", i), size: size, turn: i + 1, alone: true})
			d.Bundle()
			before := relay.Traffic()
			relay.FreezeIn(middle)
			defer relay.Thaw()
			_, ended := d.Background("deploy", "--action", "boot", "-v", "--sudo-password-file", d.Password)
			site.Until(t, "the ship is held up", func() bool { return relay.Traffic().Up == before.Up+middle })
			if lanes := d.lanes(); (lanes == 0) != c.alone {
				t.Errorf("%d lanes", lanes)
			}
			c.hurt(d)
			relay.Thaw()
			o := ended()
			if o.Status != 0 || !strings.Contains(o.Errors, c.says) || !strings.Contains(o.Errors, " lane /run/ferry/lanes") {
				t.Errorf("status %d", o.Status)
			}
			if c.says == "" && strings.Contains(o.Errors, "web: note: ") {
				t.Error("it says something of it")
			}
			if sent := relay.Traffic().Up - before.Up; sent > size*13/10 {
				t.Errorf("%d bytes were sent of %d: some of them twice", sent, size)
			}
			d.allArrived()
			d.NothingRunsThere()
			if left := d.OnTarget("find", "/run/ferry", "-name", "lanes"); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}
