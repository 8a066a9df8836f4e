package server

import (
	"bufio"
	"cmp"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// network is how the connection that a switch was asked for over reached this machine.
type network struct {
	// Server is the address and port that sshd was reached at, Client the other end; empty without ssh.
	Server string `json:"server,omitempty"`
	Client string `json:"client,omitempty"`
	// Interface carries Server's address, which is Prefix there.
	Interface string `json:"interface,omitempty"`
	Prefix    string `json:"prefix,omitempty"`
	// Routes are the interface's routes, as `ip route` shows them.
	Routes []string `json:"routes,omitempty"`
	// Walls are the routes of the machine that let nothing pass.
	Walls []string `json:"walls,omitempty"`
}

// sshConnection is what sshd told the login shell about the connection (SSH_CONNECTION, see ssh(1)).
type sshConnection struct {
	Server string `json:"server,omitempty"`
	Client string `json:"client,omitempty"`
}

// clientHost is the address that the connection came from; "" without ssh.
func (c sshConnection) clientHost() string {
	client, err := netip.ParseAddrPort(c.Client)
	if err != nil {
		return ""
	}
	return client.Addr().String()
}

// lookAtNetwork remembers how the machine is reached, to be compared with later.
func lookAtNetwork(ctx context.Context, runner *run.Runner, c sshConnection) network {
	n := network{Server: c.Server, Client: c.Client}
	server, err := netip.ParseAddrPort(c.Server)
	if err != nil {
		return n
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return n
	}
	for _, i := range interfaces {
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && prefix.Addr().Unmap() == server.Addr().Unmap().WithZone("") && i.Flags&net.FlagLoopback == 0 {
				n.Interface, n.Prefix = i.Name, prefix.String()
			}
		}
	}
	if n.Interface != "" {
		n.Routes = n.routes(ctx, runner, "dev", n.Interface)
	}
	n.Walls = n.walls(ctx, runner)
	return n
}

// ip is a command of ip(8) for the family of addresses that the machine was reached by.
func (n network) ip(args ...string) run.Command {
	family := "-4"
	if server, err := netip.ParseAddrPort(n.Server); err == nil && server.Addr().Unmap().Is6() {
		family = "-6"
	}
	return run.Command{Argv: append([]string{"ip", family}, args...)}
}

// walls lists the routes that let nothing pass.
func (n network) walls(ctx context.Context, runner *run.Runner) []string {
	var walls []string
	for _, kind := range []string{"blackhole", "unreachable", "prohibit"} {
		walls = append(walls, n.routes(ctx, runner, "type", kind)...)
	}
	return walls
}

// routes lists the routes that are of the kind, those that the kernel makes of its addresses left out.
func (n network) routes(ctx context.Context, runner *run.Runner, kind ...string) []string {
	out, err := runner.Output(ctx, n.ip(append([]string{"route", "show"}, kind...)...))
	if err != nil {
		return nil
	}
	var routes []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "proto kernel") {
			routes = append(routes, line)
		}
	}
	return routes
}

// isDown is what is wrong with an interface that does not come up by itself.
const isDown = " is down"

// probeLimit is how long sshd may take to greet.
const probeLimit = 2 * time.Second

// answers tells what keeps the machine from being reached as it was, as far as can be told from here; "" if nothing does.
func (n network) answers(ctx context.Context) string {
	server, err := netip.ParseAddrPort(n.Server)
	if err != nil {
		return ""
	}
	server = n.scoped(server)
	if n.Interface != "" {
		i, err := net.InterfaceByName(n.Interface)
		if err != nil {
			return "the interface " + n.Interface + " is gone"
		}
		if i.Flags&net.FlagUp == 0 {
			return "the interface " + n.Interface + isDown
		}
		addresses, err := i.Addrs()
		if err == nil && !slices.ContainsFunc(addresses, func(a net.Addr) bool { return a.String() == n.Prefix }) {
			return "the interface " + n.Interface + " has lost the address " + n.Prefix
		}
	}
	if client, err := netip.ParseAddrPort(n.Client); err == nil {
		// Nothing is sent: the kernel only looks for a route.
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(n.scoped(client)))
		if err != nil {
			return "there is no route to " + client.Addr().String()
		}
		_ = c.Close()
	}
	if !greets(ctx, server) {
		return "sshd does not answer on " + server.String()
	}
	return ""
}

// scoped says over which interface an address is reached that every interface may have.
func (n network) scoped(a netip.AddrPort) netip.AddrPort {
	if !a.Addr().IsLinkLocalUnicast() {
		return a
	}
	return netip.AddrPortFrom(a.Addr().WithZone(n.Interface), a.Port())
}

// greets tells whether an sshd says its name there.
func greets(ctx context.Context, server netip.AddrPort) bool {
	ctx, stop := context.WithTimeout(ctx, probeLimit)
	defer stop()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", server.String())
	if err != nil {
		return false
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok && c.SetDeadline(deadline) != nil {
		return false
	}
	line, _ := bufio.NewReaderSize(c, 256).ReadSlice('\n')
	return strings.HasPrefix(string(line), "SSH-")
}

// networkUnits are what carries a connection on a NixOS, in the order in which they are restarted, as patterns. The target,
// which newer ones have, takes with it what is part of it: the units that make interfaces and give them addresses.
var networkUnits = [...]string{
	"systemd-networkd.service", "networking-scripted.target", "network-setup.service", "network-addresses-*.service", "dhcpcd.service", "NetworkManager.service",
	"wpa_supplicant*.service", "network-local-commands.service", "firewall.service", "nftables.service",
	"sshd.socket", "sshd.service", "ssh.service",
}

// settle is how long the network may take to answer by itself once the old system is back: a restarted sshd, an address that
// is asked for again.
const settle = 3 * time.Second

// mendNetwork makes the machine answer as it did before, after the old system has been activated: it restarts what carries the
// connection there, then puts back what the kernel has lost. It says what is still wrong.
func (g *guard) mendNetwork(ctx context.Context) string {
	n := g.state.Before.Network
	wrong := n.answers(ctx)
	for start := time.Now(); wrong != "" && !strings.HasSuffix(wrong, isDown) && time.Since(start) < settle; wrong = n.answers(ctx) {
		time.Sleep(100 * time.Millisecond)
	}
	if wrong == "" {
		return ""
	}
	ctx, stop := context.WithTimeout(ctx, mendLimit)
	defer stop()
	units := unitsLike(g.root.Path(g.state.Before.Current+"/etc/systemd/system"), networkUnits[:])
	g.say("%s: restarting %s", wrong, cmp.Or(strings.Join(units, ", "), "nothing"))
	for _, unit := range units {
		if err := g.runner.Run(ctx, run.Command{Argv: []string{"systemctl", "restart", "--", unit}}); err != nil {
			g.say("%s: %v", unit, err)
		}
	}
	if wrong = n.answers(ctx); wrong == "" || n.Interface == "" {
		return wrong
	}
	g.say("%s: putting back what %s had", wrong, n.Interface)
	for _, command := range n.restore(ctx, g.runner) {
		if err := g.runner.Run(ctx, command); err != nil {
			g.say("%v", err)
		}
	}
	return n.answers(ctx)
}

// restore is what makes the kernel's network again what it was.
func (n network) restore(ctx context.Context, runner *run.Runner) []run.Command {
	var commands []run.Command
	for _, wall := range n.walls(ctx, runner) {
		if !slices.Contains(n.Walls, wall) {
			commands = append(commands, n.ip(append([]string{"route", "del"}, strings.Fields(wall)...)...))
		}
	}
	commands = append(commands, n.ip("link", "set", "dev", n.Interface, "up"), n.ip("addr", "replace", n.Prefix, "dev", n.Interface))
	for _, route := range n.Routes {
		commands = append(commands, n.ip(append(append([]string{"route", "replace"}, strings.Fields(route)...), "dev", n.Interface)...))
	}
	return commands
}

// unitsLike names the units in a folder that match the patterns, in the patterns' order: those with a file, and those of
// which the system only has a drop-in. A masked one is left out.
func unitsLike(folder string, patterns []string) []string {
	var units []string
	for _, pattern := range patterns {
		for _, suffix := range []string{"", ".d"} {
			files, err := filepath.Glob(filepath.Join(folder, pattern+suffix))
			if err != nil {
				continue
			}
			for _, file := range files {
				unit := strings.TrimSuffix(filepath.Base(file), ".d")
				if to, err := os.Readlink(file); err == nil && to == os.DevNull {
					continue
				}
				if !slices.Contains(units, unit) {
					units = append(units, unit)
				}
			}
		}
	}
	return units
}

// findConnection looks for the ssh connection that this agent was started over. sudo takes SSH_CONNECTION away, so it is read
// from the processes above.
func findConnection(r machine.Root) sshConnection {
	for pid, steps := os.Getpid(), 0; pid > 1 && steps < machine.MaxAncestors; steps++ {
		if value := r.Environ(pid)["SSH_CONNECTION"]; value != "" {
			client, server := machine.ParseConnection(value)
			if !client.IsValid() || !server.IsValid() {
				return sshConnection{}
			}
			return sshConnection{Client: client.String(), Server: server.String()}
		}
		p, ok := r.Process(pid)
		if !ok {
			break
		}
		pid = p.Parent
	}
	return sshConnection{}
}
