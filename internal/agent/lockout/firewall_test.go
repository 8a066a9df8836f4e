package lockout

import "testing"

// firewallStart is the script of NixOS's firewall with rules of its own.
func firewallStart(rules string) string {
	return `#! /nix/store/x/bin/sh -e
# Helper command to manipulate both the IPv4 and IPv6 tables.
ip46tables() {
  iptables -w "$@"
  ip6tables -w "$@"
}
ip46tables -D INPUT -j nixos-fw 2> /dev/null || true
ip46tables -N nixos-fw-accept
ip46tables -A nixos-fw-accept -j ACCEPT
ip46tables -N nixos-fw-refuse
ip46tables -A nixos-fw-refuse -j DROP
ip46tables -N nixos-fw-log-refuse
ip46tables -A nixos-fw-log-refuse -p tcp --syn -j LOG --log-level info --log-prefix "refused connection: "
ip46tables -A nixos-fw-log-refuse -m pkttype ! --pkt-type unicast -j nixos-fw-refuse
ip46tables -A nixos-fw-log-refuse -j nixos-fw-refuse
ip46tables -N nixos-fw
ip46tables -t mangle -A nixos-fw-rpfilter -m rpfilter --validmark -j RETURN
iptables -t mangle -A nixos-fw-rpfilter -p udp --sport 67 --dport 68 -j RETURN
ip46tables -t mangle -A PREROUTING -j nixos-fw-rpfilter
ip46tables -A nixos-fw -i lo -j nixos-fw-accept
ip46tables -A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j nixos-fw-accept
` + rules + `
iptables -w -A nixos-fw -p icmp --icmp-type echo-request -j nixos-fw-accept
ip6tables -A nixos-fw -p icmpv6 --icmpv6-type redirect -j DROP
ip6tables -A nixos-fw -p icmpv6 -j nixos-fw-accept
ip6tables -A nixos-fw -d fe80::/64 -p udp --dport 546 -j nixos-fw-accept
ip46tables -A nixos-fw -j nixos-fw-log-refuse
ip46tables -A INPUT -j nixos-fw
`
}

// nftRules is the ruleset of NixOS's firewall with nft, with rules of its own.
func nftRules(rules string) string {
	return `#! /nix/store/x/bin/nft -f
table inet nixos-fw {
  set temp-ports {
    comment "Temporarily opened ports"
    type inet_proto . inet_service
  }
  chain rpfilter {
    type filter hook prerouting priority mangle + 10; policy drop;
    fib saddr . mark . iif oif exists accept
    jump rpfilter-allow
  }
  chain rpfilter-allow {
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname { "lo", "wg*" } accept comment "trusted interfaces"
    # Some ICMPv6 types like NDP is untracked
    ct state vmap {
      invalid : drop,
      established : accept,
      related : accept,
      new : jump input-allow,
      untracked: jump input-allow,
    }
    tcp flags syn / fin,syn,rst,ack log level info prefix "refused connection: "
  }
  chain input-allow {
` + rules + `
    meta l4proto . th dport @temp-ports accept
    icmp type echo-request  accept comment "allow ping"
    icmpv6 type != { nd-redirect, 139 } accept comment "Accept all ICMPv6 messages except redirects"
    ip6 daddr fe80::/64 udp dport 546 accept comment "DHCPv6 client"
  }
}
`
}

// TestAFirewallIsReadOnlyAsFarAsItIsUnderstood locks what its rules are taken for.
func TestAFirewallIsReadOnlyAsFarAsItIsUnderstood(t *testing.T) {
	for rules, want := range map[string]verdict{
		"": no,
		"ip46tables -A nixos-fw -p tcp --dport 22 -j nixos-fw-accept":                 yes,
		"ip46tables -A nixos-fw -p tcp --dport 20:30 -j nixos-fw-accept":              yes,
		"ip46tables -A nixos-fw -p tcp --dport 2222 -j nixos-fw-accept":               no,
		"ip46tables -A nixos-fw -p tcp --dport 22 -j nixos-fw-accept -i eth0":         yes,
		"ip46tables -A nixos-fw -p tcp --dport 22 -j nixos-fw-accept -i wlan0":        no,
		"ip46tables -A nixos-fw -p udp --dport 22 -j nixos-fw-accept":                 no,
		"ip46tables -A nixos-fw -i eth+ -j nixos-fw-accept":                           yes,
		"iptables -A nixos-fw -s 192.0.2.0/24 -j nixos-fw-accept":                     perhaps,
		"iptables -A INPUT -p tcp -m multiport --dports 80,22 -j ACCEPT":              yes,
		"iptables -A nixos-fw ! -i wlan0 -j nixos-fw-accept":                          perhaps,
		"iptables -A nixos-fw -j mine":                                                perhaps,
		"iptables -A mine -p tcp --dport 22 -j ACCEPT":                                perhaps,
		"iptables -A nixos-fw -p tcp --dport ssh -j nixos-fw-accept":                  yes,
		"iptables -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080": no,
	} {
		if got := iptablesAccepts(firewallStart(rules), 22, "eth0"); got != want {
			t.Errorf("%q: %v", rules, got)
		}
	}
	for rules, want := range map[string]verdict{
		"":                                          no,
		"tcp dport { 22, 80 } accept":               yes,
		"tcp dport { 80, 8000-9000 } accept":        no,
		"tcp dport { 20-30 } accept":                yes,
		"tcp dport 22 accept":                       yes,
		"iifname eth0 tcp dport { 22 } accept":      yes,
		"iifname \"wlan0\" tcp dport { 22 } accept": no,
		"ip saddr 192.0.2.0/24 tcp dport 22 accept": perhaps,
		"udp dport { 22 } accept":                   no,
		"jump mine":                                 perhaps,
	} {
		if got := nftAccepts(nftRules(rules), 22, "eth0"); got != want {
			t.Errorf("%q: %v", rules, got)
		}
	}
	if got := nftAccepts(nftRules(""), 22, "wg0"); got != yes {
		t.Errorf("a trusted interface: %v", got)
	}
	for _, script := range []string{"", "iptables -P INPUT DROP\n", "table inet mine {\n}\n"} {
		if iptablesAccepts(script, 22, "eth0") != perhaps || nftAccepts(script, 22, "eth0") != perhaps {
			t.Errorf("%q is thought to be understood", script)
		}
	}
}
