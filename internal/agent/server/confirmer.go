package server

import (
	"os"
	"strconv"
	"strings"
)

// confirmer is the number of the user who can come back over a new connection and confirm a switch: the login user of the agent
// that is the process pid, with the variables that getenv gives. It is taken from the kernel where that is possible, by what is
// above the agent; where a service manager has started the agent for the login user (run0), only the variables say for whom.
func (r root) confirmer(pid int, getenv func(string) string) int {
	below, nearest := -1, -1
	for range maxAncestors {
		p, ok := r.process(pid)
		if !ok || p.pid == 1 {
			break
		}
		if strings.HasPrefix(p.name, "sshd") {
			// The server's process of a session is the user's. One that keeps root for itself is as old as 2017.
			if p.uid > 0 {
				return p.uid
			}
			return max(below, 0)
		}
		if nearest < 0 && p.uid > 0 {
			nearest = p.uid
		}
		below, pid = p.uid, p.parent
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
			l := login{}
			if l.fromPasswd(r, user, -1); l.uid >= 0 {
				return l.uid
			}
		}
	}
	return os.Geteuid()
}
