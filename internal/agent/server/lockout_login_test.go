package server

import (
	"os"
	"strings"
	"testing"

	"ferry/internal/run"
)

const aliceConnection = "SSH_CONNECTION=192.0.2.1 40000 192.0.2.7 22"

// newAncestors is a machine on which alice has logged in over ssh and become root: 240 is the agent.
func newAncestors(t *testing.T) *fakeMachine {
	t.Helper()
	m := newLoginMachine(t)
	t.Setenv("PATH", m.path("/bin")+":"+os.Getenv("PATH"))
	m.addProcess(1, 0, 0, "systemd", "0::/init.scope")
	m.addProcess(100, 1, 0, "sshd", "0::/system.slice/sshd.service")
	m.addProcess(200, 100, 0, "sshd-session", "0::/user.slice/user-1000.slice/session-3.scope")
	m.addProcess(210, 200, 1000, "sshd-session", "0::/user.slice/user-1000.slice/session-3.scope")
	m.addProcess(220, 210, 1000, "bash", "0::/user.slice", aliceConnection, "USER=alice", "HOME=/home/alice")
	m.addProcess(230, 220, 0, "sudo", "0::/user.slice", aliceConnection, "USER=alice")
	m.addProcess(240, 230, 0, "ferry-agent", "0::/user.slice", "SUDO_USER=alice", "SUDO_UID=1000", "USER=root")
	return m
}

// TestTheLoginIsFoundAboveSudo locks what is found out of the agent's ancestors.
func TestTheLoginIsFoundAboveSudo(t *testing.T) {
	m := newAncestors(t)
	got := findLogin(t.Context(), new(run.Runner), m.root, 240)
	if got.user != "alice" || got.uid != 1000 || got.home != "/home/alice" || got.elevate != "sudo" || !got.ssh || got.unit != "sshd.service" ||
		got.client.String() != "192.0.2.1:40000" || got.server.String() != "192.0.2.7:22" || got.method != "" || len(got.daemons) != 3 {
		t.Errorf("%+v", got)
	}
	m.addProcess(300, 100, 0, "sshd", "1:name=systemd:/system.slice/ssh.service")
	m.addProcess(310, 300, 0, "sh", "0::/", "SSH_CONNECTION=::ffff:192.0.2.1 5 fe80::1%eth0 2222", "USER=root")
	if got := findLogin(t.Context(), new(run.Runner), m.root, 310); got.user != "root" || got.elevate != "" || got.client.String() != "192.0.2.1:5" || got.server.String() != "[fe80::1]:2222" {
		t.Errorf("root: %+v", got)
	}
	m.addProcess(400, 1, 0, "tailscaled", "0::/system.slice/tailscaled.service")
	m.addProcess(410, 400, 1000, "sh", "0::/", aliceConnection, "USER=alice")
	m.addProcess(420, 410, 0, "doas", "0::/", aliceConnection)
	m.addProcess(430, 420, 0, "ferry-agent", "0::/", "DOAS_USER=alice")
	if got := findLogin(t.Context(), new(run.Runner), m.root, 430); got.ssh || got.user != "alice" || got.elevate != "doas" || got.uid != 1000 {
		t.Errorf("another server: %+v", got)
	}
	for _, pid := range []int{1, 999, 0, -1} {
		if got := findLogin(t.Context(), new(run.Runner), m.root, pid); got.ssh || got.user != "" || got.elevate != "" {
			t.Errorf("%d: %+v", pid, got)
		}
	}
	m.addProcess(500, 501, 0, "sh", "0::/")
	m.addProcess(501, 500, 0, "sh", "0::/")
	if got := findLogin(t.Context(), new(run.Runner), m.root, 500); got.ssh {
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
		prepare func(m *fakeMachine)
		want    login
	}{
		"journal": {func(m *fakeMachine) {
			m.write(systemdRuns+"/.keep", "")
			m.program("/bin/journalctl", "#!/bin/sh\ncase \"$*\" in *_PID=210\\ _PID=200\\ _PID=100) cat <<'X'\n"+log+"X\nesac\n")
		}, login{method: "publickey", key: "SHA256:mine"}},
		"journal fails": {func(m *fakeMachine) {
			m.write(systemdRuns+"/.keep", "")
			m.program("/bin/journalctl", "#!/bin/sh\nexit 1\n")
			m.write("/var/log/auth.log", log)
		}, login{method: "publickey", key: "SHA256:mine"}},
		"its own log": {func(m *fakeMachine) {
			m.write("/proc/100/cmdline", "sshd: /usr/sbin/sshd -D -E /var/log/sshd.log [listener] 0 of 10-100 startups\x00")
			m.write("/var/log/sshd.log", log)
		}, login{method: "publickey", key: "SHA256:mine"}},
		"a certificate": {func(m *fakeMachine) {
			m.write("/var/log/auth.log", "Accepted publickey for alice from 192.0.2.1 port 40000 ssh2: ED25519-CERT SHA256:mine ID alice (serial 0) CA ED25519 SHA256:ca\n")
		}, login{method: "publickey", key: "SHA256:mine", certificate: true}},
		"a password": {func(m *fakeMachine) {
			m.write("/var/log/secure", "Accepted keyboard-interactive/pam for alice from 192.0.2.1 port 40000 ssh2\n")
		}, login{method: "keyboard-interactive/pam"}},
		"exposed": {func(m *fakeMachine) {
			m.write("/proc/220/environ", aliceConnection+"\x00SSH_USER_AUTH=/tmp/sshauth.x\x00USER=alice\x00")
			m.write("/tmp/sshauth.x", "publickey "+strings.TrimSuffix(aliceKey, " alice@laptop")+"\n")
		}, login{method: "publickey", key: fingerprint(t, aliceKey)}},
		"exposed elsewhere": {func(m *fakeMachine) {
			m.write("/proc/220/environ", aliceConnection+"\x00SSH_USER_AUTH=/tmp/folder\x00USER=alice\x00")
			m.write("/tmp/folder/.keep", "")
		}, login{}},
		"nowhere": {func(m *fakeMachine) {}, login{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newAncestors(t)
			c.prepare(m)
			got := findLogin(t.Context(), new(run.Runner), m.root, 240)
			if got.method != c.want.method || got.key != c.want.key || got.certificate != c.want.certificate {
				t.Errorf("%+v", got)
			}
		})
	}
}

// FuzzLogin reads what the kernel and sshd's log never say.
func FuzzLogin(f *testing.F) {
	f.Add(strings.TrimPrefix(aliceConnection, "SSH_CONNECTION="), "Accepted publickey for alice from 192.0.2.1 port 40000 ssh2: ED25519 SHA256:mine")
	f.Add("UNKNOWN 65535 UNKNOWN 65535", "Accepted password for alice from UNKNOWN port 65535 ssh2")
	f.Fuzz(func(t *testing.T, connection, log string) {
		l := login{user: "alice"}
		l.client, l.server = parseConnection(connection)
		l.accepted(log)
	})
}
