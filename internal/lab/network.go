package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
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
// other end is in a network namespace of the target's own. It outlives reboots and power cuts of the target.
type link struct {
	name    string // of the network namespace
	near    string // the interface in the run's network
	gateway netip.Addr
	addr    netip.Addr
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
		{"-n", l.name, "addr", "add", l.addr.String() + "/24", "dev", far},
	} {
		if err := quietly(exec.CommandContext(ctx, "ip", argv...)); err != nil {
			l.close()
			return nil, err
		}
	}
	if err := l.up(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// path is where the target's network namespace can be entered.
func (l *link) path() string { return "/run/netns/" + l.name }

// up plugs the target in. The default route goes with every down and must be made anew.
func (l *link) up(ctx context.Context) error {
	if err := quietly(exec.CommandContext(ctx, "ip", "-n", l.name, "link", "set", far, "up")); err != nil {
		return err
	}
	return quietly(exec.CommandContext(ctx, "ip", "-n", l.name, "route", "replace", "default", "via", l.gateway.String()))
}

// down unplugs the target. It is done at the target's end: here, new connections would be refused by this machine's own
// routes at once, while a machine that loses its cable just falls silent.
func (l *link) down(ctx context.Context) error {
	return quietly(exec.CommandContext(ctx, "ip", "-n", l.name, "link", "set", far, "down"))
}

// limit lets at most bits per second pass in either direction; 0 takes the limit away.
func (l *link) limit(ctx context.Context, bits int64) error {
	for _, end := range [][]string{{"qdisc", "replace", "dev", l.near}, {"-n", l.name, "qdisc", "replace", "dev", far}} {
		argv := append(end, "root", "noqueue")
		if bits > 0 {
			// The queue holds what a home router's would: 100 ms at that rate, and never less than a few packets.
			argv = append(end, "root", "tbf", "rate", strconv.FormatInt(bits, 10), "burst", "16kb",
				"limit", strconv.FormatInt(max(bits/8/10, 64<<10), 10))
		}
		if err := quietly(exec.CommandContext(ctx, "tc", argv...)); err != nil {
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
