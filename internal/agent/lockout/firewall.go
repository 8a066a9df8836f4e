package lockout

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

// inspectFirewall looks whether the new system's firewall lets a connection like this one in. It knows the rules that NixOS
// writes, with iptables and with nft; beside others that accept something it says nothing.
func (i *inspection) inspectFirewall() {
	at := i.login.Server
	name := i.interfaces[at.Addr()]
	if !at.IsValid() || name == "" || name == "lo" {
		return
	}
	if i.new.firewallAccepts(at.Port(), name) == no && i.old.firewallAccepts(at.Port(), name) != no {
		i.risk(agent.RiskFirewall, fmt.Sprintf("the firewall of the new system does not accept connections to port %d on %s", at.Port(), name))
	}
}

// firewallAccepts tells whether a system's firewall accepts connections to a port on an interface.
func (v etcView) firewallAccepts(port uint16, name string) verdict {
	scripts, found := v.programs("firewall.service")
	if found == machine.Present && len(scripts) > 0 {
		return iptablesAccepts(strings.Join(scripts, "\n"), port, name)
	}
	if found == machine.Unreadable {
		return perhaps
	}
	scripts, found = v.programs("nftables.service")
	if found == machine.Present && len(scripts) > 0 {
		return nftAccepts(strings.Join(scripts, "\n"), port, name)
	}
	if found == machine.Unreadable {
		return perhaps
	}
	return yes
}

// Targets of iptables that take nothing in.
var refusing = []string{
	"nixos-fw", "nixos-fw-refuse", "nixos-fw-log-refuse", "nixos-fw-rpfilter", "nixos-drop", "DROP", "REJECT", "LOG", "RETURN",
}

// iptablesAccepts reads a script of NixOS's firewall: any of its rules that might let the port in makes the answer perhaps.
func iptablesAccepts(script string, port uint16, name string) verdict {
	if !strings.Contains(script, "-j nixos-fw-log-refuse") {
		return perhaps
	}
	answer := no
	for line := range strings.Lines(strings.ReplaceAll(script, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		words := strings.Fields(line)
		jump := slices.Index(words, "-j")
		if jump < 0 || jump+1 == len(words) || line[0] == '#' || slices.Contains(words, "-D") {
			continue
		}
		target, rule := words[jump+1], append(slices.Clone(words[:jump]), words[jump+2:]...)
		if slices.Contains(refusing, target) || strings.Contains(line, "-A nixos-fw-accept ") || slices.Contains(words, "-t") {
			continue
		}
		verdict := iptablesRule(rule, port, name)
		if target != "nixos-fw-accept" && target != "ACCEPT" {
			// What a chain of someone else's does is not looked into.
			verdict = min(verdict, perhaps)
		}
		answer = max(answer, verdict)
	}
	return answer
}

// iptablesRule tells whether a rule that accepts something accepts a connection to the port.
func iptablesRule(rule []string, port uint16, name string) verdict {
	answer := yes
	for n := 1; n < len(rule); n++ {
		value := ""
		if n+1 < len(rule) {
			value = rule[n+1]
		}
		switch rule[n] {
		case "-A", "-I":
			if value != "nixos-fw" && value != "INPUT" {
				answer = perhaps
			}
			n++
		case "-w", "2>", "||", "/dev/null", "true":
		case "!":
			return perhaps
		case "-p", "--protocol":
			if value != "tcp" && value != "all" {
				return no
			}
			n++
		case "-i", "--in-interface":
			if value != name && !(strings.HasSuffix(value, "+") && strings.HasPrefix(name, strings.TrimSuffix(value, "+"))) {
				return no
			}
			n++
		case "--dport", "--destination-port", "--dports":
			if !portInList(value, ",", ":", port) {
				return no
			}
			n++
		case "-m", "--match":
			n++
		case "--ctstate", "--state":
			if !strings.Contains(value, "NEW") {
				return no
			}
			n++
		default:
			// From somewhere, sometimes, or what is not known here.
			answer = perhaps
		}
	}
	return answer
}

// portInList finds a port in a list of ports and ranges.
func portInList(list, separator, dash string, port uint16) bool {
	for entry := range strings.SplitSeq(list, separator) {
		low, high, isRange := strings.Cut(strings.TrimSpace(entry), dash)
		if !isRange {
			high = low
		}
		from, err := strconv.ParseUint(strings.TrimSpace(low), 10, 16)
		to, err2 := strconv.ParseUint(strings.TrimSpace(high), 10, 16)
		if err != nil || err2 != nil {
			// A name, or a variable.
			return true
		}
		if uint64(port) >= from && uint64(port) <= to {
			return true
		}
	}
	return false
}

var (
	nftPorts      = regexp.MustCompile(`^tcp dport (?:\{([^}]*)\}|(\S+)) accept`)
	nftInterfaces = regexp.MustCompile(`^iifname (?:\{([^}]*)\}|(\S+)) `)
	// nftOthers are NixOS's own rules that do not let a new connection to a port in.
	nftOthers = regexp.MustCompile(`^(?:icmp|icmpv6|ip6 daddr fe80::/64 udp|udp|meta l4proto \. th dport @temp-ports|(?:established|related) :|type filter hook|ct state vmap)`)
)

// nftAccepts reads the rules of NixOS's firewall for nft.
func nftAccepts(rules string, port uint16, name string) verdict {
	_, table, found := strings.Cut(rules, "table inet nixos-fw {")
	if !found || strings.Count(rules, "hook input") != 1 || strings.Contains(rules, "include ") {
		return perhaps
	}
	answer := no
	chain := ""
	for line := range strings.Lines(table) {
		line = blanks.ReplaceAllString(strings.TrimSpace(line), " ")
		if rest, isChain := strings.CutPrefix(line, "chain "); isChain {
			chain, _, _ = strings.Cut(rest, " ")
			continue
		}
		if chain != "input" && chain != "input-allow" || line == "" || line[0] == '#' {
			continue
		}
		if rest, isSaddr := cutInterface(line, name); isSaddr {
			line = rest
		} else if rest == "" {
			continue
		}
		answer = max(answer, nftRule(line, port))
	}
	return answer
}

// cutInterface cuts the condition on the interface off a rule: matched is false, and rest empty, if it is for others.
func cutInterface(line, name string) (rest string, matched bool) {
	m := nftInterfaces.FindStringSubmatch(line)
	if m == nil {
		return line, false
	}
	for entry := range strings.SplitSeq(m[1]+m[2], ",") {
		entry = strings.Trim(strings.TrimSpace(entry), `"`)
		if entry == name || strings.HasSuffix(entry, "*") && strings.HasPrefix(name, strings.TrimSuffix(entry, "*")) {
			return line[len(m[0]):], true
		}
	}
	return "", false
}

func nftRule(line string, port uint16) verdict {
	if m := nftPorts.FindStringSubmatch(line); m != nil {
		if portInList(m[1]+m[2], ",", "-", port) {
			return yes
		}
		return no
	}
	switch {
	case nftOthers.MatchString(line):
		return no
	case strings.HasPrefix(line, "accept"):
		return yes
	case strings.Contains(line, "accept"), strings.HasPrefix(line, "jump "), strings.HasPrefix(line, "goto "):
		return perhaps
	}
	return no
}
