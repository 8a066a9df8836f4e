package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// startNetwork brings up what the run's own network starts with: loopback, and forwarding, so that one target can be
// the jump host to another.
func (r run) startNetwork() error {
	if err := quietly(exec.Command("ip", "link", "set", "lo", "up")); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// link is the cable between a target and everything else: a veth pair whose one end is in the run's network and whose
// other end is in a network namespace of the target's own. It outlives reboots and power cuts of the target; what the
// target has set up at its end does not.
type link struct {
	name    string // of the network namespace
	near    string // the interface in the run's network
	gateway netip.Addr
	addr    netip.Addr

	mu        sync.Mutex
	bits      int64 // per second in each direction; 0 means no limit
	unplugged bool
}

// far is the interface inside the target, named as systemd-nspawn would.
const far = "host0"

// newLink makes the link of target number n. Close removes it.
func newLink(ctx context.Context, n int) (*link, error) {
	l := &link{
		name:    "target" + strconv.Itoa(n),
		near:    "ve-" + strconv.Itoa(n),
		gateway: netip.AddrFrom4([4]byte{10, 77, byte(n), 1}),
		addr:    netip.AddrFrom4([4]byte{10, 77, byte(n), 2}),
	}
	for _, argv := range [][]string{
		{"netns", "add", l.name},
		{"link", "add", l.near, "type", "veth", "peer", "name", far, "netns", l.name},
		{"addr", "add", l.gateway.String() + "/24", "dev", l.near},
		{"link", "set", l.near, "up"},
		{"-n", l.name, "link", "set", "lo", "up"},
	} {
		if err := quietly(exec.CommandContext(ctx, "ip", argv...)); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

// path is where the target's network namespace can be entered.
func (l *link) path() string { return "/run/netns/" + l.name }

// lease is what the network would tell the target if it asked: its interface, address and gateway.
func (l *link) lease() string { return fmt.Sprintf("%s %s/24 %s\n", far, l.addr, l.gateway) }

// reset leaves the target's end as it is when the machine is switched on: with nothing set up, so that nobody answers.
func (l *link) reset() error {
	cmd := exec.Command("ip", "-n", l.name, "-force", "-batch", "-")
	cmd.Stdin = strings.NewReader("link set " + far + " down\naddress flush dev " + far + "\nroute flush table main\n")
	return quietly(cmd)
}

// plug plugs the target's cable in or out. Without it packets vanish in either direction: both ends stay up, as the
// target could put its own up again, and here a route that is gone would refuse new connections instead of letting them
// wait.
func (l *link) plug(ctx context.Context, in bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unplugged = !in
	return l.shape(ctx)
}

// limit lets at most bits per second pass in either direction; 0 takes the limit away.
func (l *link) limit(ctx context.Context, bits int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bits = bits
	return l.shape(ctx)
}

// shape makes both ends of the cable let pass what they should.
func (l *link) shape(ctx context.Context) error {
	shape := []string{"noqueue"}
	switch {
	case l.unplugged:
		shape = []string{"blackhole"}
	case l.bits > 0:
		// The queue holds what a home router's would: 100 ms at that rate, and never less than a few packets.
		shape = []string{"tbf", "rate", strconv.FormatInt(l.bits, 10), "burst", "16kb",
			"limit", strconv.FormatInt(max(l.bits/8/10, 64<<10), 10)}
	}
	for _, end := range [][]string{{"qdisc", "replace", "dev", l.near, "root"}, {"-n", l.name, "qdisc", "replace", "dev", far, "root"}} {
		if err := quietly(exec.CommandContext(ctx, "tc", append(end, shape...)...)); err != nil {
			return err
		}
	}
	return nil
}

// close removes both ends and the namespace.
func (l *link) close() error {
	// Deleting the near end deletes the pair; it may never have come to be.
	_ = quietly(exec.Command("ip", "link", "del", l.near))
	return quietly(exec.Command("ip", "netns", "del", l.name))
}

// quietly runs a command whose output matters only when it fails: it is then part of the error.
func quietly(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, lastLines(out.String(), 10))
	}
	return nil
}
