package server

import (
	"os"
	"testing"

	"ferry/internal/agent/machine/machinetest"
)

// TestWhoMayConfirmIsWhoHasLoggedIn locks whose the folder is in which the token is written, for each way of becoming root: the
// kernel's word counts for more than a variable.
func TestWhoMayConfirmIsWhoHasLoggedIn(t *testing.T) {
	const slice = "0::/user.slice"
	for name, c := range map[string]struct {
		processes func(m *machinetest.Machine) (pid int)
		variables map[string]string
		want      int
	}{
		"sudo":                            {func(m *machinetest.Machine) int { return 240 }, map[string]string{"SUDO_UID": "1000"}, 1000},
		"sudo that says something else":   {func(m *machinetest.Machine) int { return 240 }, map[string]string{"SUDO_UID": "1001"}, 1000},
		"no word of who became root":      {func(m *machinetest.Machine) int { return 240 }, nil, 1000},
		"by way of another user":          {through(1001, "sudo", "bash"), map[string]string{"SUDO_UID": "1001"}, 1000},
		"doas, which becomes the program": {func(m *machinetest.Machine) int { m.AddProcess(300, 210, 0, "ferry-agent", slice); return 300 }, nil, 1000},
		"root": {func(m *machinetest.Machine) int {
			m.AddProcess(310, 100, 0, "sshd-session", slice)
			m.AddProcess(311, 310, 0, "ferry-agent", slice)
			return 311
		}, map[string]string{"SUDO_UID": "1000"}, 0},
		"a server that keeps root": {func(m *machinetest.Machine) int {
			m.AddProcess(310, 100, 0, "sshd", slice)
			m.AddProcess(311, 310, 1000, "bash", slice)
			m.AddProcess(312, 311, 0, "ferry-agent", slice)
			return 312
		}, nil, 1000},
		"another server": {func(m *machinetest.Machine) int {
			m.AddProcess(400, 1, 0, "tailscaled", slice)
			m.AddProcess(410, 400, 1000, "sh", slice)
			m.AddProcess(420, 410, 0, "ferry-agent", slice)
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
			m := machinetest.NewAncestors(t)
			if got := confirmer(m.Root, c.processes(m), func(name string) string { return c.variables[name] }); got != c.want {
				t.Errorf("got %d", got)
			}
		})
	}
}

// service is an agent that was started by systemd.
func service(m *machinetest.Machine) int {
	m.AddProcess(500, 1, 0, "ferry-agent", "0::/system.slice/run-u1.service")
	return 500
}

// through has programs of another user between alice's shell and the agent.
func through(uid int, names ...string) func(m *machinetest.Machine) int {
	return func(m *machinetest.Machine) int {
		parent := 220
		for i, name := range names {
			m.AddProcess(600+i, parent, uid, name, "0::/user.slice")
			parent = 600 + i
		}
		m.AddProcess(650, parent, 0, "ferry-agent", "0::/user.slice")
		return 650
	}
}
