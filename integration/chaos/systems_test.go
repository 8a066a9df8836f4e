package chaos_test

import (
	"cmp"
	"fmt"
	"strings"

	"ferry/integration/site"
)

// system is what a deployment brings: a node of the project, and a system of that name.
type system struct {
	name  string
	more  string // of its configuration
	users string // that it declares, if they are not those that all have
	node  string // attributes of the node
	// fate is what may become of a deployment that is not hurt, or not much.
	fate fate
	// patience is roughly how much longer than others its deployment takes, in seconds: what it does wrong is waited for.
	patience float64
	// passes are the phases that its deployment goes through when nothing happens to it; nil: all.
	passes []phase
}

// fate is how far a system may come.
type fate int

const (
	mayStay   fate = iota // it can be confirmed, and then boots
	mustGo                // it never stays, and never boots
	bootsOnly             // it cannot run without a reboot: nobody confirms it, and the user is told so
)

// pauses are where a deployment takes its time on the target, as a real one does: so that what happens at a random moment
// happens there as well. The boot loader can boot an entry once, so that every one of them can be tried by a reboot.
const pauses = `
  boot.loader.lab.tryOnce = true;
  system.activationScripts.pause = "sleep 0.4";
  boot.loader.lab.before.pause = "sleep 0.4";
`

// users are those that all systems declare but the ones that declare others: a person has given dora a password since.
const (
	users     = `  users.users.dora = { isNormalUser = true; };` + "\n"
	passwords = `echo 'dora:$6$dora$hers' | chpasswd -e; echo 'carol:$6$carol$hers' | chpasswd -e`
	// otherUsers takes carol over, who is a person of the machine's own, and leaves dora out.
	otherUsers = `  users.users.carol = { isNormalUser = true; extraGroups = [ "wheel" ]; }; users.users.fred = { isNormalUser = true; };`
)

// ends is a part of a configuration: its switch-to-configuration ends like that.
func ends(action, phase string, code int) string {
	return fmt.Sprintf("system.switch.fault = { phase = %q; exitCode = %d; actions = [ %q ]; };", phase, code, action)
}

// checked are a node's checks.
func checked(checks string) string { return "    checks = { " + checks + " };\n" }

// systems are what is deployed. There are enough that may stay to always have another one than the one that runs.
func systems() []system {
	var (
		refused   = []phase{arming, activating}
		cannotRun = []phase{arming, activating, rollingBack}
		cutOff    = []phase{arming, activating, waiting, rollingBack}
		unchecked = []phase{arming, activating, waiting, confirmed, rollingBack}
		cannotDo  = []phase{arming, activating, waiting, committing, rollingBack}
	)
	good := []system{
		{name: "one"}, {name: "two"}, {name: "three"},
		{name: "checked", node: checked(`commands = [ { run = [ "sleep" "0.3" ]; } ];`)},
	}
	bad := []system{
		{name: "refuses", passes: refused, more: ends("test", "check", 1)},
		{name: "activation-fails", passes: cannotRun, more: `system.activationScripts.broken = "false";`},
		{name: "reload-fails", passes: cannotRun, more: ends("test", "end", 3)},
		{name: "unit-fails", passes: cannotRun, more: `systemd.services.broken = { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = "/no/such/program"; };`},
		{name: "panics", passes: cannotRun, more: ends("test", "end", 101)},
		{name: "boot-loader-fails", passes: cannotDo, more: ends("boot", "boot", 1)},
		{name: "no-boot", passes: cannotDo, more: `boot.loader.lab.before.full = "false";`},
		{name: "hangs", passes: cannotRun, more: `system.activationScripts.hang = "/usr/bin/setsid -f sleep 7771; sleep 7772";`, patience: 5},
		{name: "without-dhcp", passes: cutOff, more: `networking.useDHCP = false;`, patience: 4},
		{name: "wrong-address", passes: cutOff, more: `networking.interfaces.host0.ipv4.addresses = [ { address = "192.0.2.7"; prefixLength = 24; } ];`, patience: 4},
		{name: "black-hole", passes: cutOff, patience: 4, more: `systemd.services.hole = { wantedBy = [ "multi-user.target" ];
			path = [ pkgs.iproute2 ]; serviceConfig.Type = "oneshot";
			script = "while read -r i a gateway; do ip route replace blackhole $gateway/32; done </etc/lab/lease"; };`},
		{name: "link-down", passes: cutOff, more: `system.activationScripts.cut = "ip link set host0 down";`, patience: 4},
		{name: "stops-sshd", passes: cutOff, patience: 4, more: `systemd.services.cut = { wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox sh -c 'systemctl stop sshd; exec sleep 100000'"; };`},
		{name: "without-sshd", passes: cutOff, patience: 4},
		{name: "check-fails", passes: unchecked, node: checked(`commands = [ { run = [ "false" ]; } ];`)},
		{name: "other-users", passes: unchecked, users: otherUsers, node: checked(`commands = [ { run = [ "false" ]; } ];`)},
		{name: "other-users-fail", passes: cannotRun, users: otherUsers, more: `system.activationScripts.broken = "false";`},
		{name: "page-is-missing", passes: unchecked, node: checked(`http = [ { url = "http://localhost:81/"; from = "target"; timeout = 1; } ];`), patience: 1},
	}
	for i := range bad {
		bad[i].fate = mustGo
	}
	return append(append(good, bad...), system{name: "needs-a-reboot", more: ends("test", "check", 100), fate: bootsOnly, passes: []phase{arming, activating, committing}})
}

// configuration is the system's, a Nix expression.
func (s system) configuration() string {
	text := site.With(site.Configuration(s.name), pauses+cmp.Or(s.users, users)+s.more)
	if s.name == "without-sshd" {
		text = strings.Replace(text, "services.openssh.enable = true;", "services.openssh.enable = false;", 1)
	}
	return text
}
