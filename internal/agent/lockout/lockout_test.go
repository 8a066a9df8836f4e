package lockout

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"ferry/internal/agent/machine"
	"ferry/internal/agent/machine/machinetest"
)

// TestAChangeThatLocksNobodyOutIsNoRisk locks that there are no false alarms between systems of three ages.
func TestAChangeThatLocksNobodyOutIsNoRisk(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		change   func(n *nixos)
		who      func(l *machine.Login)
		before   func(n *nixos)
	}{
		"the same":            {"20.09", "20.09", nil, nil, nil},
		"17.09 to 20.09":      {"17.09", "20.09", nil, nil, nil},
		"20.09 to 24.11":      {"20.09", "24.11", nil, nil, nil},
		"24.11 to 17.09":      {"24.11", "17.09", nil, nil, nil},
		"one more port":       {"20.09", "20.09", func(n *nixos) { n.config = "Port 2222\n" + n.config }, nil, nil},
		"one more key":        {"17.09", "17.09", func(n *nixos) { n.keys = []string{otherKey, machinetest.AliceKey} }, nil, nil},
		"another key gone":    {"20.09", "20.09", nil, nil, func(n *nixos) { n.keys = []string{machinetest.AliceKey, otherKey} }},
		"a socket":            {"20.09", "24.11", func(n *nixos) { n.sshd, n.listen = "socket", []string{"22"} }, nil, nil},
		"a socket by address": {"20.09", "24.11", func(n *nixos) { n.sshd, n.listen = "socket", []string{"192.0.2.7:22"} }, nil, nil},
		"its address":         {"20.09", "20.09", func(n *nixos) { n.config += "ListenAddress 192.0.2.7\nListenAddress [::1]:2222\n" }, nil, nil},
		"an address by name":  {"20.09", "20.09", func(n *nixos) { n.config += "ListenAddress pi.lan\n" }, nil, nil},
		"alice allowed":       {"20.09", "20.09", func(n *nixos) { n.config += "AllowUsers bob al*@192.0.2.0/24\nAllowGroups wheel\n" }, nil, nil},
		"allowed by host":     {"20.09", "20.09", func(n *nixos) { n.config += "AllowUsers alice@*.example.org\nDenyUsers alice@bad.example.org\n" }, nil, nil},
		"a match":             {"20.09", "20.09", func(n *nixos) { n.config += "Match User bob\nAllowUsers bob\nPubkeyAuthentication no\n" }, nil, nil},
		"keys by a command":   {"20.09", "20.09", func(n *nixos) { n.config += "AuthorizedKeysCommand /run/keys %u\n"; n.keys = nil }, nil, nil},
		"no passwords":        {"20.09", "20.09", func(n *nixos) { n.config = "PasswordAuthentication no\nKbdInteractiveAuthentication no\n" + n.config }, nil, nil},
		"root shut out":       {"20.09", "20.09", func(n *nixos) { n.config = "PermitRootLogin no\n" + n.config }, nil, nil},
		"a rule by name": {"20.09", "20.09", func(n *nixos) {
			n.sudoers, n.wheel = "User_Alias ADMINS = bob, alice\nADMINS ALL=(ALL) NOPASSWD: ALL\n", nil
		}, nil, nil},
		"a rule that may be": {"20.09", "20.09", func(n *nixos) { n.sudoers = "+admins ALL=(ALL) ALL\n" }, nil, nil},
		"rules elsewhere":    {"20.09", "20.09", func(n *nixos) { n.sudoers = "@includedir /var/sudoers\n" }, nil, nil},
		"by hand in wheel": {"20.09", "20.09", func(n *nixos) { n.wheel = nil; n.users = nil }, func(l *machine.Login) {
			l.User, l.UID, l.Method, l.Key = "bob", 1001, "password", ""
		}, nil},
		"an address more": {"20.09", "20.09", func(n *nixos) { n.static = map[string][]string{"eth0": {"10.0.0.1/8", "192.0.2.7/24"}} }, nil, nil},
		"a bridge":        {"20.09", "20.09", func(n *nixos) { n.static = map[string][]string{"br0": {"192.0.2.7/24"}} }, nil, nil},
		"networkd": {"20.09", "24.11", func(n *nixos) {
			n.static = nil
			n.networks = map[string]string{"10-lan.network": "[Match]\nName=e*\n[Network]\nAddress=192.0.2.7/24\n"}
		}, nil, nil},
		"NetworkManager": {"20.09", "24.11", func(n *nixos) { n.static = nil; n.units = map[string]string{"NetworkManager.service": "[Service]\n"} }, nil, nil},
		"sysusers":       {"20.09", "24.11", func(n *nixos) { n.users, n.accounts = nil, "sysusers" }, nil, nil},
		"userborn comes": {"20.09", "24.11", func(n *nixos) { n.users, n.accounts = nil, "userborn" }, nil, nil},
		"another server": {"20.09", "20.09", func(n *nixos) { n.sshd = "" }, func(l *machine.Login) { l.Unit = "dropbear.service" }, nil},
		"no connection":  {"20.09", "20.09", func(n *nixos) { n.sshd, n.keys, n.static = "", nil, nil }, func(l *machine.Login) { l.SSH = false }, nil},
		"something else": {"20.09", "20.09", func(n *nixos) { n.sudoers = "alice ALL=(ALL) ALL\n" }, nil, nil},
		"a password for sudo": {"24.11", "24.11", func(n *nixos) {
			n.sudoers, n.mutable, n.users = "%wheel ALL=(ALL) ALL\n", false, map[string]any{"hashedPasswordFile": "/run/secrets/alice"}
		}, nil, nil},
		"a hash for sudo": {"24.11", "24.11", func(n *nixos) {
			n.mutable, n.pam, n.users = false, "auth sufficient pam_unix.so\n", map[string]any{"hashedPassword": "$6$x$y"}
		}, nil, nil},
		"a user that is declared newly": {"20.09", "20.09", func(n *nixos) {}, nil, func(n *nixos) { n.users, n.wheel = nil, nil }},
		"root by other ways":            {"20.09", "20.09", func(n *nixos) { n.sudoers = "root ALL=(ALL) ALL\n" }, nil, func(n *nixos) { n.sudoers = "root ALL=(ALL) ALL\n" }},
		"certificates":                  {"20.09", "20.09", func(n *nixos) { n.keys = []string{"cert-authority " + otherKey} }, nil, nil},
		"static beside DHCP": {"20.09", "20.09", func(n *nixos) {
			n.static, n.dhcpcd = map[string][]string{"eth0": {"192.0.2.9/24"}}, "denyinterfaces lo peth*\n"
		}, nil, func(n *nixos) { n.static, n.dhcpcd = nil, "denyinterfaces lo\n" }},
		"sudo by a token": {"20.09", "20.09", func(n *nixos) {
			n.mutable, n.pam = false, "auth sufficient /nix/store/x/lib/pam_rssh.so\nauth required pam_deny.so\n"
		}, nil, func(n *nixos) { n.sudoers = "%wheel ALL=(ALL:ALL) NOPASSWD: ALL\n" }},
	} {
		t.Run(name, func(t *testing.T) {
			m := newLoginMachine(t)
			m.Write("/etc/group", "root:x:0:\nwheel:x:1:alice,bob\nusers:x:100:\n")
			m.Write("/etc/passwd", m.Read("/etc/passwd")+"bob:x:1001:100::/home/bob:/bin/sh\n")
			l, before, after := aliceAt(t), plain(c.from), plain(c.to)
			if c.before != nil {
				c.before(&before)
			}
			if c.change != nil {
				c.change(&after)
			}
			if c.who != nil {
				c.who(&l)
			}
			if got := show(m.compare(l, before, after)); got != "" {
				t.Errorf("risks:\n%s", got)
			}
		})
	}
}

// lockoutCase is a change of a plain system, and what is said of it.
type lockoutCase struct {
	release string
	before  func(n *nixos) // applied to both systems
	change  func(n *nixos)
	who     func(l *machine.Login)
	want    string
}

func (c lockoutCase) run(t *testing.T) {
	m := newLoginMachine(t)
	l, before, after := aliceAt(t), plain(c.release), plain(c.release)
	if c.before != nil {
		c.before(&before)
		c.before(&after)
	}
	if c.change != nil {
		c.change(&after)
	}
	if c.who != nil {
		c.who(&l)
	}
	want := strings.ReplaceAll(c.want, "SHA256:KEY", l.Key)
	if got := show(m.compare(l, before, after)); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestWhatSSHDWouldRefuseIsSaid locks each risk of the server, its settings and keys, and its words.
func TestWhatSSHDWouldRefuseIsSaid(t *testing.T) {
	asRoot := func(l *machine.Login) { l.User, l.UID, l.Home, l.Elevate = "root", 0, "/root", "" }
	byPassword := func(l *machine.Login) { l.Method, l.Key = "password", "" }
	for name, c := range map[string]lockoutCase{
		"sshd gone":     {"17.09", nil, func(n *nixos) { n.sshd = "" }, nil, "sshd: sshd is off in the new system"},
		"sshd masked":   {"20.09", nil, func(n *nixos) { n.sshd = "masked" }, nil, "sshd: sshd is off in the new system"},
		"sshd unwanted": {"24.11", nil, func(n *nixos) { n.sshd = "unwanted" }, nil, "sshd: sshd is off in the new system"},
		"another port": {"17.09", nil, func(n *nixos) { n.config = strings.Replace(n.config, "Port 22", "Port 2222", 1) }, nil,
			"port: sshd listens on port 2222 in the new system, and this connection uses 22"},
		"other ports": {"20.09", nil, func(n *nixos) { n.config = strings.Replace(n.config, "Port 22", "Port 2222\nPort 443", 1) }, nil,
			"port: sshd listens on ports 443, 2222 in the new system, and this connection uses 22"},
		"another port of a socket": {"24.11", nil, func(n *nixos) { n.sshd, n.listen = "socket", []string{"2222", "/run/ssh"} }, nil,
			"port: sshd listens on port 2222 in the new system, and this connection uses 22"},
		"another address": {"20.09", nil, func(n *nixos) { n.config += "ListenAddress 127.0.0.1\nListenAddress ::1\n" }, nil,
			"port: sshd listens only on 127.0.0.1, ::1 in the new system, and this connection uses 192.0.2.7"},
		"no IPv4": {"20.09", nil, func(n *nixos) { n.config = strings.Replace(n.config, "AddressFamily any", "AddressFamily inet6", 1) }, nil,
			"port: sshd listens only on :: in the new system, and this connection uses 192.0.2.7"},
		"others allowed": {"24.11", nil, func(n *nixos) { n.config += "AllowUsers bob carol\n" }, nil,
			"login: AllowUsers of sshd keeps alice out in the new system"},
		"allowed elsewhere": {"24.11", nil, func(n *nixos) { n.config += "AllowUsers alice@10.0.0.0/8\n" }, nil,
			"login: AllowUsers of sshd keeps alice out in the new system"},
		"denied":        {"24.11", nil, func(n *nixos) { n.config += "DenyUsers a?ice\n" }, nil, "login: DenyUsers of sshd keeps alice out in the new system"},
		"other groups":  {"24.11", nil, func(n *nixos) { n.config += "AllowGroups ssh\n" }, nil, "login: AllowGroups of sshd keeps alice out in the new system"},
		"denied groups": {"24.11", nil, func(n *nixos) { n.config += "DenyGroups users\n" }, nil, "login: DenyGroups of sshd keeps alice out in the new system"},
		"no root": {"17.09", nil, func(n *nixos) { n.config = "PermitRootLogin no\n" + n.config }, asRoot,
			"login: root may not log in over ssh in the new system"},
		"no root by password": {"17.09", nil, nil, func(l *machine.Login) { asRoot(l); byPassword(l) },
			"login: root may not log in by password in the new system, as this login did"},
		"no passwords": {"17.09", nil, func(n *nixos) {
			n.config = "PasswordAuthentication no\nChallengeResponseAuthentication no\n" + n.config
		}, byPassword,
			"login: sshd takes no passwords in the new system, and this login used one"},
		"no keys": {"20.09", nil, func(n *nixos) { n.config += "PubkeyAuthentication no\n" }, nil,
			"login: sshd takes no keys in the new system, and this login used one"},
		"the key gone": {"20.09", nil, func(n *nixos) { n.keys = []string{otherKey} }, nil,
			"key: the key that this login used (SHA256:KEY, alice@laptop) is not alice's in the new system"},
		"its file not read": {"20.09", nil, func(n *nixos) { n.config = "AuthorizedKeysFile %h/.ssh/authorized_keys\n" + n.config }, nil,
			"key: the key that this login used (SHA256:KEY, alice@laptop) is not alice's in the new system"},
		"no key left": {"17.09", nil, func(n *nixos) { n.keys = nil }, func(l *machine.Login) { l.Method, l.Key = "", "" },
			"key: alice has no ssh key in the new system"},
		"fewer keys": {"17.09", func(n *nixos) { n.keys = []string{machinetest.AliceKey, otherKey} }, func(n *nixos) { n.keys = []string{otherKey} },
			func(l *machine.Login) { l.Key = "" },
			"key: 1 of the 2 ssh keys of alice are gone in the new system, and it is not known which one this login used"},
	} {
		t.Run(name, c.run)
	}
}

// TestWhatTakesTheUserRootOrTheAddressIsSaid locks the other risks and their words.
func TestWhatTakesTheUserRootOrTheAddressIsSaid(t *testing.T) {
	for name, c := range map[string]lockoutCase{
		"the user gone": {"17.09", nil, func(n *nixos) { n.users, n.wheel = nil, nil }, nil, "user: the new system does not have the user alice any more"},
		"the user not mutable": {"20.09", nil, func(n *nixos) { n.users, n.wheel, n.mutable = nil, nil, false }, nil,
			"user: the new system does not have the user alice any more"},
		"the user locked by userborn": {"24.11", func(n *nixos) { n.accounts = "userborn" },
			func(n *nixos) { n.users, n.wheel, n.accounts = nil, nil, "userborn" }, nil, "user: the new system does not have the user alice any more"},
		"no shell": {"24.11", nil, func(n *nixos) { n.users = map[string]any{"shell": "/run/current-system/sw/bin/nologin"} }, nil,
			"user: alice has no login shell in the new system (/run/current-system/sw/bin/nologin)"},
		"expired": {"24.11", nil, func(n *nixos) { n.users = map[string]any{"expires": "2026-01-01"} }, nil,
			"user: the user alice has expired in the new system, on 2026-01-01"},
		"out of wheel": {"17.09", nil, func(n *nixos) { n.wheel = nil }, nil,
			"sudo: sudo does not let alice become root in the new system: the user is no longer in the group wheel"},
		"no rule": {"20.09", nil, func(n *nixos) { n.sudoers = "root ALL=(ALL:ALL) SETENV: ALL\n" }, nil,
			"sudo: sudo does not let alice become root in the new system: none of its rules is for this user"},
		"rules for another": {"20.09", nil, func(n *nixos) { n.sudoers = "%wheel ALL=(postgres) ALL\nbob ALL=(ALL) ALL\n" }, nil,
			"sudo: sudo does not let alice become root in the new system: none of its rules is for this user"},
		"no sudo": {"24.11", nil, func(n *nixos) { n.sudoers = "" }, nil,
			"sudo: sudo has no rules in the new system: alice cannot become root with it"},
		"sudo wants a password": {"24.11", func(n *nixos) { n.sudoers = "%wheel ALL=(ALL:ALL) NOPASSWD: ALL, SETENV: ALL\n" }, func(n *nixos) {
			n.sudoers = "%wheel ALL=(ALL:ALL) SETENV: ALL\n"
			n.mutable, n.pam = false, "account required pam_unix.so\nauth sufficient /nix/store/x/lib/security/pam_unix.so likeauth # unix\nauth required pam_deny.so\n"
		}, nil, "sudo: sudo asks alice for a password in the new system, and the user has none"},
		"sudo wants a password that goes": {"20.09", nil, func(n *nixos) {
			n.mutable, n.pam = false, "auth sufficient pam_unix.so\nauth required pam_deny.so\n"
		}, nil, "sudo: sudo asks alice for a password in the new system, and the user has none"},
		"a password only for a new user": {"24.11", nil, func(n *nixos) {
			n.mutable, n.pam, n.users = false, "auth sufficient pam_unix.so\n", map[string]any{"initialHashedPassword": "$6$x$y"}
		}, nil, "sudo: sudo asks alice for a password in the new system, and the user has none"},
		"a password that is locked": {"24.11", nil, func(n *nixos) {
			n.mutable, n.pam, n.users = false, "auth sufficient pam_unix.so\n", map[string]any{"hashedPassword": "!"}
		}, nil, "sudo: sudo asks alice for a password in the new system, and the user has none"},
		"no doas": {"24.11", func(n *nixos) {
			n.doas = "permit persist setenv { SSH_AUTH_SOCK TERMINFO } :wheel\npermit nopass keepenv root\n"
		},
			func(n *nixos) { n.doas = "permit nopass keepenv root\n" }, func(l *machine.Login) { l.Elevate = "doas" },
			"sudo: doas does not let alice become root in the new system: none of its rules is for this user"},
		"another IP": {"17.09", nil, func(n *nixos) { n.static = map[string][]string{"eth0": {"192.0.2.9/24"}} }, nil,
			"address: eth0 has 192.0.2.9 in the new system, and this connection uses 192.0.2.7"},
		"no IP": {"17.09", nil, func(n *nixos) { n.static = nil }, nil,
			"address: eth0 has no address in the new system, and this connection uses 192.0.2.7"},
		"an IP by DHCP": {"20.09", nil, func(n *nixos) { n.static, n.dhcpcd = nil, "denyinterfaces lo\n" }, nil,
			"address: eth0 has a dynamic address in the new system, and this connection uses 192.0.2.7"},
		"no DHCP": {"20.09", func(n *nixos) { n.static, n.dhcpcd = nil, "denyinterfaces lo\n" }, func(n *nixos) { n.dhcpcd = "" }, nil,
			"address: eth0 has no address in the new system, and this connection uses 192.0.2.7"},
		"static instead of DHCP": {"20.09", func(n *nixos) { n.static, n.dhcpcd = nil, "denyinterfaces lo\n" }, func(n *nixos) {
			n.static, n.dhcpcd = map[string][]string{"eth0": {"192.0.2.9/24"}}, "denyinterfaces lo eth0\n"
		}, nil, "address: eth0 has 192.0.2.9 in the new system, and this connection uses 192.0.2.7"},
		"networkd": {"24.11", nil, func(n *nixos) {
			n.static = nil
			n.networks = map[string]string{"10-lan.network": "[Match]\nName=eth0\n[Network]\nDHCP=no\n[Address]\nAddress=192.0.2.9/24\n"}
		}, nil, "address: eth0 has 192.0.2.9 in the new system, and this connection uses 192.0.2.7"},
		"a firewall": {"20.09", nil, func(n *nixos) {
			n.scripts = map[string]string{"firewall.service": firewallStart("ip46tables -A nixos-fw -p tcp --dport 80 -j nixos-fw-accept")}
		}, nil,
			"firewall: the firewall of the new system does not accept connections to port 22 on eth0"},
		"two at once": {"20.09", nil, func(n *nixos) { n.config, n.wheel = "Port 2222\n"+strings.Replace(n.config, "Port 22\n", "", 1), nil }, nil,
			"port: sshd listens on port 2222 in the new system, and this connection uses 22\n" +
				"sudo: sudo does not let alice become root in the new system: the user is no longer in the group wheel"},
	} {
		t.Run(name, c.run)
	}
}

// TestTheNewSystemsOwnSSHDIsAsked locks that what sshd -T says counts, a Match included, and that the files are read where it
// cannot say it.
func TestTheNewSystemsOwnSSHDIsAsked(t *testing.T) {
	for name, c := range map[string]struct{ script, config, want string }{
		"it says": {"case $5 in user=alice,host=192.0.2.1,addr=192.0.2.1,laddr=192.0.2.7,lport=22) echo port 22; echo denyusers alice; echo authorizedkeysfile /etc/ssh/authorized_keys.d/%u;; esac", "",
			"login: DenyUsers of sshd keeps alice out in the new system"},
		"it fails":             {"exit 1", "", ""},
		"it says nothing":      {"exit 0", "DenyUsers alice\n", "login: DenyUsers of sshd keeps alice out in the new system"},
		"it reads other files": {"echo port 2222", "Include /etc/ssh/sshd_config.d/*.conf\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newLoginMachine(t)
			after := plain("24.11")
			after.program = m.AddToStore("openssh/bin/sshd", "")
			m.Program(after.program, "#!/bin/sh\n"+c.script+"\n")
			after.config += c.config
			if got := show(m.compare(aliceAt(t), plain("24.11"), after)); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

// TestTheMachinesOwnFilesCountBesideTheSystems locks what /etc is on a machine that is not wholly NixOS's.
func TestTheMachinesOwnFilesCountBesideTheSystems(t *testing.T) {
	m := newLoginMachine(t)
	m.Write("/etc/sudoers", "root ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n")
	m.Write("/etc/sudoers.d/own", "alice ALL=(ALL) ALL\n")
	before, after := plain("20.09"), plain("20.09")
	before.sudoers, after.sudoers = "", ""
	after.wheel = nil
	if got := show(m.compare(aliceAt(t), before, after)); got != "" {
		t.Errorf("risks: %s", got)
	}
	m.Write("/etc/sudoers.d/own", "bob ALL=(ALL) ALL\n")
	i := newInspection(m.Root, nil, aliceAt(t), string(oldSystem), string(newSystem))
	i.machine = i.readMachine()
	if g, found := i.rules(i.new, "sudo", i.groupsAfter); g.allowed != no || found != machine.Present {
		t.Errorf("%+v, %v", g, found)
	}
}

// TestNothingOutsideOfTheSystemsIsRead locks where links may lead.
func TestNothingOutsideOfTheSystemsIsRead(t *testing.T) {
	m := newLoginMachine(t)
	m.Write("/root/secret", "secret")
	m.Write("/etc/own", "own")
	m.Write("/home/alice/file", "file")
	m.Write(string(newSystem)+"/etc/plain", "plain")
	m.Link("/root/secret", string(newSystem)+"/etc/absolute")
	m.Link("../../../../root/secret", string(newSystem)+"/etc/relative")
	m.Link("/etc/own", string(newSystem)+"/etc/machine")
	m.Link("/root", string(newSystem)+"/etc/folder")
	m.Link("loop", string(newSystem)+"/etc/loop")
	m.Link("plain", string(newSystem)+"/etc/link")
	m.Link("nowhere", string(newSystem)+"/etc/dangling")
	m.Link("/dev/null", string(newSystem)+"/etc/masked")
	m.Write(string(newSystem)+"/etc/large", strings.Repeat("x", machine.MaxFile+1))
	v := etcView{files: machine.NewFiles(m.Root), toplevel: string(newSystem), before: string(oldSystem)}
	for name, want := range map[string]struct {
		text  string
		found machine.Presence
	}{
		"plain": {"plain", machine.Present}, "link": {"plain", machine.Present}, "own": {"own", machine.Present}, "masked": {"", machine.Present},
		"absolute": {"", machine.Unreadable}, "relative": {"", machine.Unreadable}, "machine": {"", machine.Unreadable}, "folder/secret": {"", machine.Unreadable},
		"loop": {"", machine.Unreadable}, "large": {"", machine.Unreadable}, "dangling": {"", machine.Absent}, "missing": {"", machine.Absent}, "../root/secret": {"", machine.Unreadable},
	} {
		if text, found := v.read(name); text != want.text || found != want.found {
			t.Errorf("%s: %q, %v", name, text, found)
		}
	}
	for _, p := range []string{"/root/secret", "/etc/../root/secret", "/home/alice/file"} {
		if text, _ := v.absolute(p); text != "" {
			t.Errorf("%s: %q", p, text)
		}
	}
	if _, found := v.names("folder"); found != machine.Unreadable {
		t.Errorf("a folder outside is %v", found)
	}
}

// TestInterfacesAreFoundByTheirAddresses asks this machine's kernel.
func TestInterfacesAreFoundByTheirAddresses(t *testing.T) {
	if got := interfaces()[netip.MustParseAddr("127.0.0.1")]; got != "lo" {
		t.Errorf("127.0.0.1 is on %q", got)
	}
}

// TestWhatIsForeseenDoesNotDependOnHowManyFilesThereAre has folders of wanted units, files of networks, scripts of addresses, and
// drop-ins of sudo and sshd, each kind by the dozen: all of a kind are asked for at once.
func TestWhatIsForeseenDoesNotDependOnHowManyFilesThereAre(t *testing.T) {
	before, after := plain("20.09"), plain("20.09")
	before.networks, after.networks = map[string]string{}, map[string]string{}
	after.static, after.units = maps.Clone(after.static), map[string]string{}
	after.etc = map[string]string{}
	before.networks["eth0.network"] = "[Match]\nName=eth0\n[Network]\nAddress=192.0.2.7/24\n"
	after.config = "Include /etc/ssh/more/*.conf\n" + after.config
	for n := range 40 {
		after.networks[fmt.Sprintf("x%d.network", n)] = fmt.Sprintf("[Match]\nName=x%d\n[Network]\nAddress=198.51.100.%d/32\n", n, n)
		after.static[fmt.Sprintf("x%d", n)] = []string{fmt.Sprintf("203.0.113.%d/32", n)}
		after.units[fmt.Sprintf("t%d.target.wants/u%d.service", n, n)] = "[Service]\n"
		after.etc[fmt.Sprintf("ssh/more/%02d.conf", n)] = "X11Forwarding no\n"
	}
	after.static["eth0"] = []string{"192.0.2.8/24"}
	after.networks["eth0.network"] = "[Match]\nName=eth0\n[Network]\nAddress=192.0.2.8/24\n"
	after.etc["ssh/more/99.conf"] = "Port 2222\n"
	after.config = strings.ReplaceAll(after.config, "Port 22\n", "")
	m := newLoginMachine(t)
	// compare fails where that is not said before the system is there.
	got := show(m.compare(aliceAt(t), before, after))
	if !strings.Contains(got, "192.0.2.8") || !strings.Contains(got, "2222") {
		t.Errorf("%q", got)
	}
}
