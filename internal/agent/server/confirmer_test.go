package server

import (
	"os"
	"testing"
)

// TestWhoMayConfirmIsWhoHasLoggedIn locks whose the folder is in which the token is written, for each way of becoming root: the
// kernel's word counts for more than a variable.
func TestWhoMayConfirmIsWhoHasLoggedIn(t *testing.T) {
	const slice = "0::/user.slice"
	for name, c := range map[string]struct {
		processes func(m *fakeMachine) (pid int)
		variables map[string]string
		want      int
	}{
		"sudo":                            {func(m *fakeMachine) int { return 240 }, map[string]string{"SUDO_UID": "1000"}, 1000},
		"sudo that says something else":   {func(m *fakeMachine) int { return 240 }, map[string]string{"SUDO_UID": "1001"}, 1000},
		"no word of who became root":      {func(m *fakeMachine) int { return 240 }, nil, 1000},
		"by way of another user":          {through(1001, "sudo", "bash"), map[string]string{"SUDO_UID": "1001"}, 1000},
		"doas, which becomes the program": {func(m *fakeMachine) int { m.addProcess(300, 210, 0, "ferry-agent", slice); return 300 }, nil, 1000},
		"root": {func(m *fakeMachine) int {
			m.addProcess(310, 100, 0, "sshd-session", slice)
			m.addProcess(311, 310, 0, "ferry-agent", slice)
			return 311
		}, map[string]string{"SUDO_UID": "1000"}, 0},
		"a server that keeps root": {func(m *fakeMachine) int {
			m.addProcess(310, 100, 0, "sshd", slice)
			m.addProcess(311, 310, 1000, "bash", slice)
			m.addProcess(312, 311, 0, "ferry-agent", slice)
			return 312
		}, nil, 1000},
		"another server": {func(m *fakeMachine) int {
			m.addProcess(400, 1, 0, "tailscaled", slice)
			m.addProcess(410, 400, 1000, "sh", slice)
			m.addProcess(420, 410, 0, "ferry-agent", slice)
			return 420
		}, nil, 1000},
		"run0":                         {service, map[string]string{"SUDO_UID": "1000", "SUDO_USER": "alice"}, 1000},
		"pkexec":                       {service, map[string]string{"PKEXEC_UID": "1000"}, 1000},
		"doas from elsewhere":          {service, map[string]string{"DOAS_USER": "alice"}, 1000},
		"a user who is not there":      {service, map[string]string{"DOAS_USER": "nobody-such"}, os.Geteuid()},
		"a variable that is no number": {service, map[string]string{"SUDO_UID": "alice", "SUDO_USER": "alice"}, 1000},
		"nothing known":                {service, nil, os.Geteuid()},
	} {
		t.Run(name, func(t *testing.T) {
			m := newAncestors(t)
			if got := m.confirmer(c.processes(m), func(name string) string { return c.variables[name] }); got != c.want {
				t.Errorf("got %d", got)
			}
		})
	}
}

// service is an agent that was started by systemd.
func service(m *fakeMachine) int {
	m.addProcess(500, 1, 0, "ferry-agent", "0::/system.slice/run-u1.service")
	return 500
}

// through has programs of another user between alice's shell and the agent.
func through(uid int, names ...string) func(m *fakeMachine) int {
	return func(m *fakeMachine) int {
		parent := 220
		for i, name := range names {
			m.addProcess(600+i, parent, uid, name, "0::/user.slice")
			parent = 600 + i
		}
		m.addProcess(650, parent, 0, "ferry-agent", "0::/user.slice")
		return 650
	}
}
