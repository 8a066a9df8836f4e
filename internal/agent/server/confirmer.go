package server

import (
	"os"
	"strconv"
	"strings"

	"ferry/internal/agent/machine"
)

// confirmer is the number of the user who can come back over a new connection and confirm a switch: the login user of the agent
// that is the process pid, with the variables that getenv gives. It is taken from the kernel where that is possible, by what is
// above the agent; where a service manager has started the agent for the login user (run0), only the variables say for whom.
func confirmer(r machine.Root, pid int, getenv func(string) string) int {
	below, nearest := -1, -1
	for range machine.MaxAncestors {
		p, ok := r.Process(pid)
		if !ok || p.PID == 1 {
			break
		}
		if strings.HasPrefix(p.Name, "sshd") {
			// The server's process of a session is the user's. One that keeps root for itself is as old as 2017.
			if p.UID > 0 {
				return p.UID
			}
			return max(below, 0)
		}
		if nearest < 0 && p.UID > 0 {
			nearest = p.UID
		}
		below, pid = p.UID, p.Parent
	}
	if nearest > 0 {
		return nearest
	}
	for _, name := range []string{"SUDO_UID", "PKEXEC_UID"} {
		if uid, err := strconv.Atoi(getenv(name)); err == nil && uid >= 0 {
			return uid
		}
	}
	for _, name := range []string{"DOAS_USER", "SUDO_USER"} {
		if user := getenv(name); user != "" {
			l := machine.Login{}
			if l.FromPasswd(r, user, -1); l.UID >= 0 {
				return l.UID
			}
		}
	}
	return os.Geteuid()
}
