package machine_test

import (
	"strings"
	"testing"

	"ferry/internal/agent/machine"
	"ferry/internal/agent/machine/machinetest"
	"ferry/internal/run"
)

// TestTheLoginIsFoundAboveSudo locks what is found out of the agent's ancestors.
func TestTheLoginIsFoundAboveSudo(t *testing.T) {
	m := machinetest.NewAncestors(t)
	got := machine.FindLogin(t.Context(), new(run.Runner), m.Root, 240)
	if got.User != "alice" || got.UID != 1000 || got.Home != "/home/alice" || got.Elevate != "sudo" || !got.SSH || got.Unit != "sshd.service" ||
		got.Client.String() != "192.0.2.1:40000" || got.Server.String() != "192.0.2.7:22" || got.Method != "" || len(got.Daemons) != 3 {
		t.Errorf("%+v", got)
	}
	m.AddProcess(300, 100, 0, "sshd", "1:name=systemd:/system.slice/ssh.service")
	m.AddProcess(310, 300, 0, "sh", "0::/", "SSH_CONNECTION=::ffff:192.0.2.1 5 fe80::1%eth0 2222", "USER=root")
	if got := machine.FindLogin(t.Context(), new(run.Runner), m.Root, 310); got.User != "root" || got.Elevate != "" || got.Client.String() != "192.0.2.1:5" || got.Server.String() != "[fe80::1]:2222" {
		t.Errorf("root: %+v", got)
	}
	m.AddProcess(400, 1, 0, "tailscaled", "0::/system.slice/tailscaled.service")
	m.AddProcess(410, 400, 1000, "sh", "0::/", machinetest.AliceConnection, "USER=alice")
	m.AddProcess(420, 410, 0, "doas", "0::/", machinetest.AliceConnection)
	m.AddProcess(430, 420, 0, "ferry-agent", "0::/", "DOAS_USER=alice")
	if got := machine.FindLogin(t.Context(), new(run.Runner), m.Root, 430); got.SSH || got.User != "alice" || got.Elevate != "doas" || got.UID != 1000 {
		t.Errorf("another server: %+v", got)
	}
	for _, pid := range []int{1, 999, 0, -1} {
		if got := machine.FindLogin(t.Context(), new(run.Runner), m.Root, pid); got.SSH || got.User != "" || got.Elevate != "" {
			t.Errorf("%d: %+v", pid, got)
		}
	}
	m.AddProcess(500, 501, 0, "sh", "0::/")
	m.AddProcess(501, 500, 0, "sh", "0::/")
	if got := machine.FindLogin(t.Context(), new(run.Runner), m.Root, 500); got.SSH {
		t.Errorf("a circle: %+v", got)
	}
}

// TestTheKeyInUseIsFoundInTheLog locks the three places where it may be, and that the line is this connection's.
func TestTheKeyInUseIsFoundInTheLog(t *testing.T) {
	log := "sshd[1]: Accepted publickey for alice from 192.0.2.1 port 40000 ssh2: ED25519 SHA256:older\n" +
		"sshd[9]: Accepted publickey for alice from 192.0.2.1 port 40000 ssh2: ED25519 SHA256:mine\n" +
		"sshd[9]: Accepted publickey for alice from 192.0.2.1 port 40001 ssh2: ED25519 SHA256:port\n" +
		"sshd[9]: Accepted publickey for bob from 192.0.2.1 port 40000 ssh2: ED25519 SHA256:user\n" +
		"sshd[9]: Accepted publickey for alice from 192.0.2.9 port 40000 ssh2: ED25519 SHA256:address\n"
	for name, c := range map[string]struct {
		prepare func(m *machinetest.Machine)
		want    machine.Login
	}{
		"journal": {func(m *machinetest.Machine) {
			m.Write(machine.SystemdRuns+"/.keep", "")
			m.Program("/bin/journalctl", "#!/bin/sh\ncase \"$*\" in *_PID=210\\ _PID=200\\ _PID=100) cat <<'X'\n"+log+"X\nesac\n")
		}, machine.Login{Method: "publickey", Key: "SHA256:mine"}},
		"journal fails": {func(m *machinetest.Machine) {
			m.Write(machine.SystemdRuns+"/.keep", "")
			m.Program("/bin/journalctl", "#!/bin/sh\nexit 1\n")
			m.Write("/var/log/auth.log", log)
		}, machine.Login{Method: "publickey", Key: "SHA256:mine"}},
		"its own log": {func(m *machinetest.Machine) {
			m.Write("/proc/100/cmdline", "sshd: /usr/sbin/sshd -D -E /var/log/sshd.log [listener] 0 of 10-100 startups\x00")
			m.Write("/var/log/sshd.log", log)
		}, machine.Login{Method: "publickey", Key: "SHA256:mine"}},
		"a certificate": {func(m *machinetest.Machine) {
			m.Write("/var/log/auth.log", "Accepted publickey for alice from 192.0.2.1 port 40000 ssh2: ED25519-CERT SHA256:mine ID alice (serial 0) CA ED25519 SHA256:ca\n")
		}, machine.Login{Method: "publickey", Key: "SHA256:mine", Certificate: true}},
		"a password": {func(m *machinetest.Machine) {
			m.Write("/var/log/secure", "Accepted keyboard-interactive/pam for alice from 192.0.2.1 port 40000 ssh2\n")
		}, machine.Login{Method: "keyboard-interactive/pam"}},
		"exposed": {func(m *machinetest.Machine) {
			m.Write("/proc/220/environ", machinetest.AliceConnection+"\x00SSH_USER_AUTH=/tmp/sshauth.x\x00USER=alice\x00")
			m.Write("/tmp/sshauth.x", "publickey "+strings.TrimSuffix(machinetest.AliceKey, " alice@laptop")+"\n")
		}, machine.Login{Method: "publickey", Key: fingerprint(t)}},
		"exposed elsewhere": {func(m *machinetest.Machine) {
			m.Write("/proc/220/environ", machinetest.AliceConnection+"\x00SSH_USER_AUTH=/tmp/folder\x00USER=alice\x00")
			m.Write("/tmp/folder/.keep", "")
		}, machine.Login{}},
		"nowhere": {func(m *machinetest.Machine) {}, machine.Login{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := machinetest.NewAncestors(t)
			c.prepare(m)
			got := machine.FindLogin(t.Context(), new(run.Runner), m.Root, 240)
			if got.Method != c.want.Method || got.Key != c.want.Key || got.Certificate != c.want.Certificate {
				t.Errorf("%+v", got)
			}
		})
	}
}

// fingerprint is that of alice's key.
func fingerprint(t *testing.T) string {
	t.Helper()
	k, ok := machine.ParseKey(machinetest.AliceKey)
	if !ok {
		t.Fatalf("%q is no key", machinetest.AliceKey)
	}
	return k.Fingerprint
}

// FuzzLogin reads what the kernel and sshd's log never say.
func FuzzLogin(f *testing.F) {
	f.Add(strings.TrimPrefix(machinetest.AliceConnection, "SSH_CONNECTION="), "Accepted publickey for alice from 192.0.2.1 port 40000 ssh2: ED25519 SHA256:mine")
	f.Add("UNKNOWN 65535 UNKNOWN 65535", "Accepted password for alice from UNKNOWN port 65535 ssh2")
	f.Fuzz(func(t *testing.T, connection, log string) {
		l := machine.Login{User: "alice"}
		l.Client, l.Server = machine.ParseConnection(connection)
		l.Accepted(log)
	})
}
