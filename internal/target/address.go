package target

import (
	"fmt"
	"net/url"
	"strings"
)

// Address is how a node is reached: "local" for this machine, or whatever ssh takes as its destination.
type Address struct {
	destination string
}

// ParseAddress checks s, which comes from an inventory or a command line, so that it can never become an ssh option or part
// of another command: no leading dash, no white space, no control or quoting characters.
func ParseAddress(s string) (Address, error) {
	if s == "" {
		return Address{}, fmt.Errorf("target is empty: expected a host such as alice@raspberry-pi.local, or local")
	}
	if strings.HasPrefix(s, "-") {
		return Address{}, fmt.Errorf("target %q starts with a dash", s)
	}
	host := s
	if strings.HasPrefix(s, "ssh://") {
		u, err := url.Parse(s)
		if err != nil {
			return Address{}, fmt.Errorf("target %q is not a valid ssh:// address", s)
		}
		if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
			return Address{}, fmt.Errorf("target %q: an ssh:// address ends after the port", s)
		}
		host = u.Host
	}
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	if host == "" || strings.HasPrefix(host, "-") {
		return Address{}, fmt.Errorf("target %q has no host that ssh could reach", s)
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f || strings.ContainsRune("'\"`\\$;&|<>(){}*?!#", r) {
			return Address{}, fmt.Errorf("target %q contains %q, which is not allowed in a target", s, r)
		}
	}
	return Address{destination: s}, nil
}

// Local tells whether the target is this machine, reached without ssh.
func (a Address) Local() bool { return a.destination == "local" }

// String is the target as the user wrote it.
func (a Address) String() string { return a.destination }

// Host is the host's name without user, scheme and port.
func (a Address) Host() string {
	h := strings.TrimPrefix(a.destination, "ssh://")
	if h != a.destination {
		if u, err := url.Parse(a.destination); err == nil {
			return u.Hostname()
		}
	}
	return h[strings.LastIndexByte(h, '@')+1:]
}
