package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/run"
)

const (
	aliceKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa alice@laptop"
	otherKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb alice@desk"
)

func fingerprint(t *testing.T, line string) string {
	t.Helper()
	k, ok := parseKey(line)
	if !ok {
		t.Fatalf("%q is no key", line)
	}
	return k.fingerprint
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
		keys: []string{aliceKey}, static: map[string][]string{"eth0": {"192.0.2.7/24"}},
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
		n.sudoers = "# Don't edit this file.\n\n# extraRules\nroot     ALL=(ALL:ALL)    SETENV: ALL\n%wheel  ALL=(ALL:ALL)    SETENV: ALL\n\n"
	}
	return n
}

// store puts a file where a derivation would and gives its path.
func (m *fakeMachine) store(name, text string) string {
	m.t.Helper()
	sum := fmt.Sprintf("%x", len(name)*7919+len(text))
	file := fmt.Sprintf("/nix/store/%032s-%s", strings.NewReplacer("e", "h", "t", "v", "o", "w", "u", "y").Replace(sum), name)
	for n := 0; m.exists(file); n++ {
		file = fmt.Sprintf("/nix/store/%032d-%s", n, name)
	}
	m.write(file, text)
	return file
}

// build makes the toplevel of the system.
func (n nixos) build(m *fakeMachine, toplevel string) {
	m.t.Helper()
	m.write(toplevel+"/nixos-version", n.release)
	if n.nothing {
		return
	}
	etc := m.store("etc/etc/.keep", "")
	etc = strings.TrimSuffix(etc, "/.keep")
	m.link(etc, toplevel+"/etc")
	units := strings.TrimSuffix(m.store("system-units/.keep", ""), "/.keep")
	m.link(units, etc+"/systemd/system")
	n.buildAccounts(m, toplevel, units)
	file := func(name, text string) {
		m.link(m.store("etc-"+strings.ReplaceAll(name, "/", "-"), text), etc+"/"+name)
	}
	unit := func(name, text string) { m.link(m.store("unit-"+name+"/"+name, text), units+"/"+name) }
	program := n.program
	if program == "" {
		program = "/nix/store/00000000000000000000000000000000-openssh/bin/sshd"
	}
	switch n.sshd {
	case "service":
		unit("sshd.service", "[Service]\nExecStart="+program+" -f /etc/ssh/sshd_config\n")
		m.link("../sshd.service", units+"/multi-user.target.wants/sshd.service")
	case "socket":
		unit("sshd@.service", "[Service]\nExecStart=-"+program+" -i -f /etc/ssh/sshd_config\n")
		unit("sshd.socket", "[Socket]\nAccept=true\nListenStream="+strings.Join(n.listen, "\nListenStream=")+"\n")
		m.link("../sshd.socket", units+"/sockets.target.wants/sshd.socket")
	case "masked":
		m.link("/dev/null", units+"/sshd.service")
		m.link("../sshd.service", units+"/multi-user.target.wants/sshd.service")
	case "unwanted":
		unit("sshd.service", "[Service]\nExecStart="+program+"\n")
	}
	if n.sshd != "" {
		file("ssh/sshd_config", n.config)
	}
	if len(n.keys) > 0 {
		file("ssh/authorized_keys.d/alice", strings.Join(n.keys, "\n")+"\n")
		m.write(etc+"/ssh/authorized_keys.d/alice.mode", "0444\n")
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
		m.link("/nix/store/00000000000000000000000000000000-systemd/example/systemd/system/systemd-networkd.service",
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
		unit(name, "[Service]\nExecStart="+m.store("unit-script-"+name+"/bin/start", script)+" \n")
	}
	if n.dhcpcd != "" {
		unit("dhcpcd.service", "[Service]\nExecStart=@/nix/store/x/sbin/dhcpcd dhcpcd --quiet --config "+m.store("dhcpcd.conf", n.dhcpcd)+"\n")
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
		m.t.Fatal(err)
	}
	activate := "#! /nix/store/x/bin/bash\n\nsystemConfig=" + toplevel + "\n"
	switch n.accounts {
	case "perl":
		activate += "#### Activation script snippet users:\ninstall -m 0700 -d /root\n\n/nix/store/x-perl-5.24.3/bin/perl \\\n" +
			"-w /nix/store/x-update-users-groups.pl " + m.store("users-groups.json", string(text)) + "\n"
	case "userborn":
		file := m.store("userborn.json", string(text))
		m.link(m.store("unit-userborn.service/userborn.service", "[Service]\nExecStart=/nix/store/x/bin/userborn "+file+" /etc\n"), units+"/userborn.service")
	}
	m.write(toplevel+"/activate", activate)
}

// aliceAt is a login of alice by her key over ssh, with sudo.
func aliceAt(t *testing.T) login {
	return login{
		user: "alice", uid: 1000, home: "/home/alice", elevate: "sudo", ssh: true,
		client: netip.MustParseAddrPort("192.0.2.1:40000"), server: netip.MustParseAddrPort("192.0.2.7:22"),
		unit: "sshd.service", method: "publickey", key: fingerprint(t, aliceKey),
	}
}

// newLoginMachine has alice among its users, as a NixOS made her.
func newLoginMachine(t *testing.T) *fakeMachine {
	t.Helper()
	m := &fakeMachine{t: t, root: root{dir: t.TempDir()}}
	m.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/run/current-system/sw/bin/bash\n")
	m.write("/etc/group", "root:x:0:\nwheel:x:1:alice\nusers:x:100:\n")
	m.write("/etc/shadow", "root:!:1::::::\nalice:$6$x$y:1::::::\n")
	// What needs a mode of its own is a copy in /etc, which goes with the system that it is of.
	m.write("/etc/sudoers", plain("20.09").sudoers)
	m.write("/etc/ssh/authorized_keys.d/alice", aliceKey+"\n")
	m.write("/var/lib/nixos/declarative-users", "alice root")
	m.write("/var/lib/nixos/declarative-groups", "root users wheel")
	return m
}

// compare inspects the way from one system to the other, and gives the risks. The same has to be found before the other system is
// there, unless its own sshd has a say.
func (m *fakeMachine) compare(l login, before, after nixos) []agent.Risk {
	m.t.Helper()
	before.build(m, string(oldSystem))
	there := m.storePaths()
	after.build(m, string(newSystem))
	risks := m.inspect(l, nil)
	if after.program == "" {
		if got, want := show(m.foresee(l, there)), show(risks); got != want {
			m.t.Errorf("before it is there:\n%s\nafter that:\n%s", got, want)
		}
	}
	return risks
}

// storePaths are the names in the machine's store.
func (m *fakeMachine) storePaths() map[string]bool {
	m.t.Helper()
	entries, err := os.ReadDir(m.root.path(storeFolder))
	if err != nil {
		m.t.Fatal(err)
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
func (m *fakeMachine) foresee(l login, there map[string]bool) []agent.Risk {
	m.t.Helper()
	here := m.t.TempDir()
	if err := os.MkdirAll(here+storeFolder, 0o755); err != nil {
		m.t.Fatal(err)
	}
	for name := range m.storePaths() {
		if !there[name] {
			if err := os.Rename(m.root.path(storeFolder+"/"+name), here+storeFolder+"/"+name); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	files := agent.NewStoreFiles(func(p nix.StorePath) bool { return !there[p.Base()] }).Below(here)
	a := &ahead{root: m.root, files: map[string]agent.StoreFile{}}
	for range maxRounds {
		a.wanted = nil
		risks := m.inspect(l, a)
		if len(a.wanted) == 0 {
			return risks
		}
		for _, p := range a.wanted {
			for _, f := range files.Tell(p) {
				a.files[f.Path] = f
			}
		}
	}
	m.t.Fatalf("%q are still wanted", a.wanted)
	return nil
}

// inspect inspects the way from the old system to the new one.
func (m *fakeMachine) inspect(l login, a *ahead) []agent.Risk {
	i := newInspection(m.root, new(run.Runner), l, string(oldSystem), string(newSystem))
	i.files.ahead = a
	i.now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	i.interfaces = map[netip.Addr]string{netip.MustParseAddr("192.0.2.7"): "eth0"}
	i.run(m.t.Context())
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

// addProcess adds a process to the machine's /proc.
func (m *fakeMachine) addProcess(pid, parent, uid int, name, cgroup string, environ ...string) {
	m.t.Helper()
	folder := "/proc/" + strconv.Itoa(pid)
	m.write(folder+"/status", fmt.Sprintf("Name:\t%s\nUmask:\t0022\nPPid:\t%d\nUid:\t%d\t%d\t%d\t%d\n", name, parent, uid, uid, uid, uid))
	m.write(folder+"/environ", strings.Join(environ, "\x00")+"\x00")
	m.write(folder+"/cgroup", cgroup+"\n")
	m.write(folder+"/cmdline", name+"\x00")
}
