package target

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Address is how a node is reached: "local" for this machine, or whatever ssh takes as its destination.
type Address struct {
	destination string
	user, host  string
	port        string
}

// ParseAddress checks s, which comes from an inventory or a command line, so that neither it nor its user or host can become
// an option or part of another command, not even where ssh's own configuration hands them to a shell: no leading dash, no
// white space, no control, invisible or quoting characters.
func ParseAddress(s string) (Address, error) {
	if s == "" {
		return Address{}, fmt.Errorf("target is empty: expected a host such as alice@raspberry-pi.local, or local")
	}
	a := Address{destination: s, host: s}
	if err := checkWord(s, s); err != nil {
		return Address{}, err
	}
	if rest, found := strings.CutPrefix(s, "ssh://"); found {
		u, err := url.Parse(s)
		if err != nil || u.Opaque != "" {
			return Address{}, fmt.Errorf("target %q is not a valid ssh:// address", s)
		}
		if strings.Contains(rest, "/") && u.Path != "/" || u.RawQuery != "" || u.ForceQuery {
			return Address{}, fmt.Errorf("target %q: an ssh:// address ends after the port", s)
		}
		if _, secret := u.User.Password(); secret {
			return Address{}, fmt.Errorf("target %q: a password has no place in a target; ssh asks for it", s)
		}
		a.user, a.host, a.port = u.User.Username(), u.Hostname(), u.Port()
		if u.User != nil && a.user == "" {
			return Address{}, fmt.Errorf("target %q has an empty user", s)
		}
	} else if i := strings.LastIndexByte(s, '@'); i >= 0 {
		a.user, a.host = s[:i], s[i+1:]
		if a.user == "" {
			return Address{}, fmt.Errorf("target %q has an empty user", s)
		}
	}
	if a.host == "" || strings.HasSuffix(a.host, "@") {
		return Address{}, fmt.Errorf("target %q has no host that ssh could reach", s)
	}
	// What an ssh:// address spells with % must hold to the same rules once ssh has read it.
	for _, part := range []string{a.user, a.host} {
		if err := checkWord(s, part); err != nil {
			return Address{}, err
		}
	}
	return a, nil
}

// checkWord refuses a part of the target whole that could be taken for something else than a name.
func checkWord(whole, part string) error {
	if strings.HasPrefix(part, "-") {
		return fmt.Errorf("target %q: %q starts with a dash", whole, part)
	}
	if !utf8.ValidString(part) {
		return fmt.Errorf("target %q is not valid UTF-8", whole)
	}
	for _, r := range part {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) || strings.ContainsRune("'\"`\\$;&|<>(){}*?!#", r) {
			return fmt.Errorf("target %q contains %q, which is not allowed in a target", whole, r)
		}
	}
	return nil
}

// Local tells whether the target is this machine, reached without ssh.
func (a Address) Local() bool { return a.destination == "local" }

// String is the target as the user wrote it.
func (a Address) String() string { return a.destination }

// Host is the host's name without user, scheme and port.
func (a Address) Host() string { return a.host }

// Login is user@host, or the host alone, for programs that take no ssh:// address; they need Port as well.
func (a Address) Login() string {
	if a.user == "" {
		return a.host
	}
	return a.user + "@" + a.host
}

// User is the user that the target names, or "": then it is for ssh's configuration to say.
func (a Address) User() string { return a.user }

// Port is the port that the target names, or "".
func (a Address) Port() string { return a.port }

// knownHost is the host as ssh's known_hosts names it.
func (a Address) knownHost() string {
	if a.port != "" && a.port != "22" {
		return "[" + a.host + "]:" + a.port
	}
	return a.host
}
