package lockout

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/machine/machinetest"
	"ferry/internal/nix"
	"ferry/internal/run"
)

const (
	otherKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb alice@desk"
)

func fingerprint(t *testing.T, line string) string {
	t.Helper()
	k, ok := machine.ParseKey(line)
	if !ok {
		t.Fatalf("%q is no key", line)
	}
	return k.Fingerprint
}

// nixos describes a system whose toplevel has the shape of a NixOS.
type nixos struct {
	release  string
	sshd     string   // "service", "socket", or "" for none
	program  string   // of the unit; "" for one that is not there
	listen   []string // of the socket
	config   string   // sshd_config
	keys     []string // of alice, in authorized_keys.d
	mutable  bool
	users    map[string]any // what is different from a plain alice; nil: no alice
	wheel    []string
	accounts string // "perl", "userborn" or "sysusers"
	sudoers  string // "": no file
	doas     string
	pam      string
	static   map[string][]string // addresses by interface, with scripts
	networks map[string]string   // files of systemd-networkd
	dhcpcd   string              // its configuration; "": it is not there
	units    map[string]string   // further ones
	scripts  map[string]string   // what further units start, by unit
	etc      map[string]string   // further files
	nothing  bool                // a toplevel of something else
}

// plain is a system that alice can log in to and be root of.
func plain(release string) nixos {
	n := nixos{
		release: release, sshd: "service", mutable: true, users: map[string]any{}, wheel: []string{"alice"}, accounts: "perl",
		keys: []string{machinetest.AliceKey}, static: map[string][]string{"eth0": {"192.0.2.7/24"}},
	}
	switch release {
	case "17.09":
		n.config = "Protocol 2\n\nUsePAM yes\n\nAddressFamily any\nPort 22\n\nX11Forwarding no\n\nSubsystem sftp /nix/store/x/libexec/sftp-server\n\n" +
			"PermitRootLogin prohibit-password\nGatewayPorts no\nPasswordAuthentication yes\nChallengeResponseAuthentication yes\n\n" +
			"PrintMotd no # handled by pam_motd\n\nAuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2 /etc/ssh/authorized_keys.d/%u\n"
		n.sudoers = "# Don't edit this file. Set the NixOS option ‘security.sudo.configFile’\n\n# Environment variables to keep for root and %wheel.\n" +
			"Defaults:root,%wheel env_keep+=TERMINFO_DIRS\n\n# \"root\" is allowed to do anything.\nroot        ALL=(ALL:ALL) SETENV: ALL\n\n" +
			"# Users in the \"wheel\" group can do anything.\n%wheel      ALL=(ALL:ALL) SETENV: ALL\n"
	default:
		n.config = "AuthorizedKeysFile %h/.ssh/authorized_keys /etc/ssh/authorized_keys.d/%u\nUsePAM yes\nPasswordAuthentication yes\n" +
			"KbdInteractiveAuthentication yes\nPermitRootLogin prohibit-password\nAddressFamily any\nPort 22\n"
		n.sudoers = machinetest.Sudoers
	}
	return n
}

// build makes the toplevel of the system.
func (n nixos) build(m *fakeMachine, toplevel string) {
	m.T.Helper()
	m.Write(toplevel+"/nixos-version", n.release)
	if n.nothing {
		return
	}
	etc := m.AddToStore("etc/etc/.keep", "")
	etc = strings.TrimSuffix(etc, "/.keep")
	m.Link(etc, toplevel+"/etc")
	units := strings.TrimSuffix(m.AddToStore("system-units/.keep", ""), "/.keep")
	m.Link(units, etc+"/systemd/system")
	n.buildAccounts(m, toplevel, units)
	file := func(name, text string) {
		m.Link(m.AddToStore("etc-"+strings.ReplaceAll(name, "/", "-"), text), etc+"/"+name)
	}
	unit := func(name, text string) { m.Link(m.AddToStore("unit-"+name+"/"+name, text), units+"/"+name) }
	program := n.program
	if program == "" {
		program = "/nix/store/00000000000000000000000000000000-openssh/bin/sshd"
	}
	switch n.sshd {
	case "service":
		unit("sshd.service", "[Service]\nExecStart="+program+" -f /etc/ssh/sshd_config\n")
		m.Link("../sshd.service", units+"/multi-user.target.wants/sshd.service")
	case "socket":
		unit("sshd@.service", "[Service]\nExecStart=-"+program+" -i -f /etc/ssh/sshd_config\n")
		unit("sshd.socket", "[Socket]\nAccept=true\nListenStream="+strings.Join(n.listen, "\nListenStream=")+"\n")
		m.Link("../sshd.socket", units+"/sockets.target.wants/sshd.socket")
	case "masked":
		m.Link("/dev/null", units+"/sshd.service")
		m.Link("../sshd.service", units+"/multi-user.target.wants/sshd.service")
	case "unwanted":
		unit("sshd.service", "[Service]\nExecStart="+program+"\n")
	}
	if n.sshd != "" {
		file("ssh/sshd_config", n.config)
	}
	if len(n.keys) > 0 {
		file("ssh/authorized_keys.d/alice", strings.Join(n.keys, "\n")+"\n")
		m.Write(etc+"/ssh/authorized_keys.d/alice.mode", "0444\n")
	}
	for name, text := range map[string]string{"sudoers": n.sudoers, "doas.conf": n.doas, "pam.d/sudo": n.pam} {
		if text != "" {
			file(name, text)
		}
	}
	for name, text := range n.etc {
		file(name, text)
	}
	for name, text := range n.networks {
		file("systemd/network/"+name, text)
	}
	if len(n.networks) > 0 {
		m.Link("/nix/store/00000000000000000000000000000000-systemd/example/systemd/system/systemd-networkd.service",
			units+"/multi-user.target.wants/systemd-networkd.service")
	}
	scripts := maps.Clone(n.scripts)
	if scripts == nil {
		scripts = map[string]string{}
	}
	for name, addresses := range n.static {
		script := "#! /nix/store/x/bin/sh -e\n"
		for _, a := range addresses {
			script += fmt.Sprintf("echo -n \"adding address %s... \"\nif out=$(ip addr add \"%s\" dev \"%s\" 2>&1); then\n  echo \"done\"\nfi\n", a, a, name)
		}
		scripts["network-addresses-"+name+".service"] = script
	}
	for name, script := range scripts {
		unit(name, "[Service]\nExecStart="+m.AddToStore("unit-script-"+name+"/bin/start", script)+" \n")
	}
	if n.dhcpcd != "" {
		unit("dhcpcd.service", "[Service]\nExecStart=@/nix/store/x/sbin/dhcpcd dhcpcd --quiet --config "+m.AddToStore("dhcpcd.conf", n.dhcpcd)+"\n")
	}
	for name, text := range n.units {
		unit(name, text)
	}
}

func (n nixos) buildAccounts(m *fakeMachine, toplevel, units string) {
	spec := map[string]any{"mutableUsers": n.mutable}
	users := []map[string]any{{"name": "root", "uid": 0, "group": "root", "shell": "/run/current-system/sw/bin/bash"}}
	if n.users != nil {
		alice := map[string]any{
			"name": "alice", "uid": 1000, "group": "users", "home": "/home/alice", "shell": "/run/current-system/sw/bin/bash",
			"createHome": true, "isSystemUser": false, "hashedPassword": nil, "password": nil, "expires": nil,
		}
		maps.Copy(alice, n.users)
		users = append(users, alice)
	}
	spec["users"] = users
	spec["groups"] = []map[string]any{
		{"name": "root", "gid": 0, "members": []string{}}, {"name": "users", "gid": 100, "members": []string{}},
		{"name": "wheel", "gid": 1, "members": n.wheel},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		m.T.Fatal(err)
	}
	activate := "#! /nix/store/x/bin/bash\n\nsystemConfig=" + toplevel + "\n"
	switch n.accounts {
	case "perl":
		activate += "#### Activation script snippet users:\ninstall -m 0700 -d /root\n\n/nix/store/x-perl-5.24.3/bin/perl \\\n" +
			"-w /nix/store/x-update-users-groups.pl " + m.AddToStore("users-groups.json", string(text)) + "\n"
	case "userborn":
		file := m.AddToStore("userborn.json", string(text))
		m.Link(m.AddToStore("unit-userborn.service/userborn.service", "[Service]\nExecStart=/nix/store/x/bin/userborn "+file+" /etc\n"), units+"/userborn.service")
	}
	m.Write(toplevel+"/activate", activate)
}

// aliceAt is a login of alice by her key over ssh, with sudo.
func aliceAt(t *testing.T) machine.Login {
	return machine.Login{
		User: "alice", UID: 1000, Home: "/home/alice", Elevate: "sudo", SSH: true,
		Client: netip.MustParseAddrPort("192.0.2.1:40000"), Server: netip.MustParseAddrPort("192.0.2.7:22"),
		Unit: "sshd.service", Method: "publickey", Key: fingerprint(t, machinetest.AliceKey),
	}
}

// compare inspects the way from one system to the other, and gives the risks. The same has to be found before the other system is
// there, unless its own sshd has a say.
func (m *fakeMachine) compare(l machine.Login, before, after nixos) []agent.Risk {
	m.T.Helper()
	before.build(m, string(oldSystem))
	there := m.storePaths()
	after.build(m, string(newSystem))
	risks := m.inspect(l, nil)
	if after.program == "" {
		if got, want := show(m.foresee(l, there)), show(risks); got != want {
			m.T.Errorf("before it is there:\n%s\nafter that:\n%s", got, want)
		}
	}
	return risks
}

// storePaths are the names in the machine's store.
func (m *fakeMachine) storePaths() map[string]bool {
	m.T.Helper()
	entries, err := os.ReadDir(m.Root.Path(machine.StoreFolder))
	if err != nil {
		m.T.Fatal(err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names
}

// maxRounds is how often ferry may have to be asked for files before all that counts is known: as often as one leads to others, and
// no more often for how many those are.
const maxRounds = 6

// foresee inspects while all of the store but there is on another machine.
func (m *fakeMachine) foresee(l machine.Login, there map[string]bool) []agent.Risk {
	m.T.Helper()
	here := m.T.TempDir()
	if err := os.MkdirAll(here+machine.StoreFolder, 0o755); err != nil {
		m.T.Fatal(err)
	}
	for name := range m.storePaths() {
		if !there[name] {
			if err := os.Rename(m.Root.Path(machine.StoreFolder+"/"+name), here+machine.StoreFolder+"/"+name); err != nil {
				m.T.Fatal(err)
			}
		}
	}
	files := agent.NewStoreFiles(func(p nix.StorePath) bool { return !there[p.Base()] }).Below(here)
	a := &Foreseen{root: m.Root, files: map[string]agent.StoreFile{}}
	for range maxRounds {
		a.Wanted = nil
		risks := m.inspect(l, a)
		if len(a.Wanted) == 0 {
			return risks
		}
		for _, p := range a.Wanted {
			for _, f := range files.Tell(p) {
				a.files[f.Path] = f
			}
		}
	}
	m.T.Fatalf("%q are still wanted", a.Wanted)
	return nil
}

// inspect inspects the way from the old system to the new one.
func (m *fakeMachine) inspect(l machine.Login, a *Foreseen) []agent.Risk {
	i := newInspection(m.Root, new(run.Runner), l, string(oldSystem), string(newSystem))
	if a != nil {
		i.files.Foreseen = a.at
	}
	i.now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	i.interfaces = map[netip.Addr]string{netip.MustParseAddr("192.0.2.7"): "eth0"}
	i.run(m.T.Context())
	return i.risks
}

func show(risks []agent.Risk) string {
	var lines []string
	for _, r := range risks {
		lines = append(lines, string(r.Kind)+": "+r.Text)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// newLoginMachine has alice among its users, as a NixOS made her.
func newLoginMachine(t *testing.T) *fakeMachine {
	t.Helper()
	return &fakeMachine{machinetest.NewLogin(t)}
}

const (
	oldSystem nix.StorePath = "/nix/store/00000000000000000000000000000000-old"
	newSystem nix.StorePath = "/nix/store/11111111111111111111111111111111-new"
)

// fakeMachine is one whose systems are compared.
type fakeMachine struct {
	*machinetest.Machine
}
