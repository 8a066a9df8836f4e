package lockout

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// inspectAddress looks whether the address that this connection came in by is still configured. It knows NixOS's scripts
// and systemd-networkd's files; what other programs are told is not looked into.
func (i *inspection) inspectAddress() {
	address := i.login.Server.Addr()
	name := i.interfaces[address]
	if !address.IsValid() || name == "" || address.IsLoopback() || address.IsLinkLocalUnicast() {
		return
	}
	was, known := i.old.addresses()
	if !known || was.elsewhere {
		return
	}
	will, known := i.new.addresses()
	if !known || will.elsewhere || will.has(address) {
		return
	}
	others := will.of(name)
	now := ""
	switch {
	case len(others) > 0 && (was.has(address) || address.Is4() && !i.new.mayAsk(name, will)):
		now = strings.Join(others, ", ")
	case len(others) == 0 && was.has(address) && will.dynamic:
		now = "a dynamic address"
	case len(others) == 0 && (was.has(address) || was.dynamic) && !will.dynamic:
		now = "no address"
	default:
		return
	}
	i.risk(agent.RiskAddress, fmt.Sprintf("%s has %s in the new system, and this connection uses %s", name, now, address))
}

// configuredAddresses are the addresses that a system gives its interfaces.
type configuredAddresses struct {
	static []configuredAddress
	// dynamic says that a program is there which may ask for others.
	dynamic bool
	// elsewhere says that a program is there whose own files are not read here.
	elsewhere bool
}

type configuredAddress struct {
	interfaceName string // may be a pattern
	prefix        netip.Prefix
	// dynamic says that the interface has dynamic ones beside it.
	dynamic bool
}

func (c configuredAddresses) has(a netip.Addr) bool {
	return slices.ContainsFunc(c.static, func(s configuredAddress) bool { return s.prefix.Addr() == a })
}

// of gives the IPv4 addresses of an interface.
func (c configuredAddresses) of(name string) []string {
	var all []string
	for _, s := range c.static {
		if s.on(name) && s.prefix.Addr().Is4() {
			all = append(all, s.prefix.Addr().String())
		}
	}
	return all
}

func (s configuredAddress) on(name string) bool {
	matched, err := filepath.Match(s.interfaceName, name)
	return matched && err == nil
}

// otherPrograms give addresses by files of their own.
var otherPrograms = []string{
	"NetworkManager.service", "connman.service", "cloud-init.service", "cloud-init-local.service", "keepalived.service",
}

// addresses reads what the system configures; not known is what cannot be read whole.
func (v etcView) addresses() (configured configuredAddresses, known bool) {
	names, found := v.names("systemd/system")
	if found == machine.Unreadable {
		return configured, false
	}
	for _, unit := range names {
		if unit == "dhcpcd.service" || slices.Contains(otherPrograms, unit) {
			text, found := v.unit(unit)
			is := found == machine.Unreadable || text != ""
			configured.dynamic = configured.dynamic || is && unit == "dhcpcd.service"
			configured.elsewhere = configured.elsewhere || is && unit != "dhcpcd.service"
		}
		name, isAddresses := strings.CutPrefix(unit, "network-addresses-")
		name, isService := strings.CutSuffix(name, ".service")
		if !isAddresses || !isService {
			continue
		}
		scripts, found := v.programs(unit)
		if found == machine.Unreadable {
			return configured, false
		}
		for _, script := range scripts {
			for _, prefix := range addedPrefixes(script) {
				configured.static = append(configured.static, configuredAddress{interfaceName: name, prefix: prefix})
			}
		}
	}
	return configured, v.networkdAddresses(&configured)
}

// mayAsk tells whether an interface that has static addresses may ask for others beside them.
func (v etcView) mayAsk(name string, configured configuredAddresses) bool {
	for _, s := range configured.static {
		if s.on(name) && s.dynamic {
			return true
		}
	}
	unit, found := v.unit("dhcpcd.service")
	if found == machine.Absent || found == machine.Present && unit == "" {
		return false
	}
	_, after, _ := strings.Cut(unit, "--config ")
	words := strings.Fields(after)
	if len(words) == 0 {
		return true
	}
	config, found := v.absolute(words[0])
	if found != machine.Present {
		return true
	}
	for line := range strings.Lines(config) {
		f := strings.Fields(line)
		if len(f) > 1 && f[0] == "denyinterfaces" && slices.ContainsFunc(f[1:], func(p string) bool { return configuredAddress{interfaceName: p}.on(name) }) {
			return false
		}
	}
	return true
}

// addedPrefixes finds what a script of NixOS gives an interface: ip addr add "192.0.2.1/24" dev "eth0".
func addedPrefixes(script string) []netip.Prefix {
	var all []netip.Prefix
	for line := range strings.Lines(script) {
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n\"'`$(){}=;", r) })
		words = slices.DeleteFunc(words, func(w string) bool { return strings.HasPrefix(w, "-") })
		for n, word := range words {
			isIP := word == "ip" || strings.HasSuffix(word, "/ip")
			if !isIP || n+3 >= len(words) || !strings.HasPrefix(words[n+1], "addr") || words[n+2] != "add" && words[n+2] != "replace" {
				continue
			}
			if prefix, ok := parsePrefix(words[n+3]); ok {
				all = append(all, prefix)
			}
		}
	}
	return all
}

// parsePrefix reads ADDRESS/LENGTH or ADDRESS.
func parsePrefix(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// networkdAddresses adds what systemd-networkd is told, where the system has it.
func (v etcView) networkdAddresses(configured *configuredAddresses) (known bool) {
	wanted, known := v.wanted()
	if _, runs := slices.BinarySearch(wanted, "systemd-networkd.service"); !known || !runs {
		return known
	}
	files, found := v.names("systemd/network")
	if found == machine.Unreadable {
		return false
	}
	for _, name := range files {
		if !strings.HasSuffix(name, ".network") {
			continue
		}
		text, found := v.read("systemd/network/" + name)
		if found == machine.Unreadable {
			return false
		}
		static, dynamic := parseNetworkFile(text)
		configured.static = append(configured.static, static...)
		configured.dynamic = configured.dynamic || dynamic
	}
	return true
}

// parseNetworkFile reads a .network file of systemd-networkd.
func parseNetworkFile(text string) (static []configuredAddress, dynamic bool) {
	section, names := "", []string{"*"}
	var prefixes []netip.Prefix
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !ok || strings.HasPrefix(key, "#") || strings.HasPrefix(key, ";"):
		case section == "[Match]" && key == "Name":
			names = strings.Fields(value)
		case (section == "[Network]" || section == "[Address]") && key == "Address":
			if prefix, ok := parsePrefix(value); ok {
				prefixes = append(prefixes, prefix)
			} else {
				dynamic = dynamic || value != ""
			}
		case section == "[Network]" && key == "DHCP":
			switch strings.ToLower(value) {
			case "", "no", "none", "false", "off", "0", "n", "f":
			default:
				dynamic = true
			}
		}
	}
	for _, name := range names {
		for _, prefix := range prefixes {
			static = append(static, configuredAddress{name, prefix, dynamic})
		}
	}
	return static, dynamic
}

// interfaces gives the names of this machine's network interfaces by their addresses.
func interfaces() map[netip.Addr]string {
	found := map[netip.Addr]string{}
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				found[prefix.Addr().Unmap()] = i.Name
			}
		}
	}
	return found
}
