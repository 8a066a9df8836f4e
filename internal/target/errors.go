package target

import (
	"fmt"
	"strings"

	"ferry/internal/run"
)

// Kind is why a target could not be reached.
type Kind string

// The reasons that ssh gives for a connection that is not made, or is lost.
const (
	Unknown     Kind = "unknown"
	HostUnknown Kind = "host unknown"
	KeyUnknown  Kind = "host key unknown"
	KeyChanged  Kind = "host key changed"
	Denied      Kind = "permission denied"
	Refused     Kind = "connection refused"
	NoRoute     Kind = "no route"
	TimedOut    Kind = "timed out"
	Lost        Kind = "connection lost"
	NoTerminal  Kind = "no terminal" // the login works, and [Dialer.StartOnTerminal] does not
	NoSession   Kind = "no further session"
)

// Error is a connection that could not be made or was lost.
type Error struct {
	Address Address
	Kind    Kind
	Text    string // what ssh said, cleaned

	err *run.Error
}

func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = string(e.Kind)
	}
	return fmt.Sprintf("ssh %s: %s", e.Address, text)
}

// Unwrap gives the command that failed.
func (e *Error) Unwrap() error {
	if e.err == nil {
		return nil
	}
	return e.err
}

// MissingError means that there is no ssh in PATH.
type MissingError struct{ Err error }

func (e *MissingError) Error() string {
	return "ssh is not in PATH: OpenSSH's client is not installed here"
}

// Unwrap gives what os/exec said.
func (e *MissingError) Unwrap() error { return e.Err }

// Output is nothing: no program has run.
func (e *MissingError) Output() []string { return nil }

// Hints says how to get it.
func (e *MissingError) Hints() []string {
	return []string{"install it: sudo apt install openssh-client on Debian"}
}

// Output is what else ssh said, where that matters: which key is wrong and where it is kept, or what ferry does not know.
func (e *Error) Output() []string {
	if e.err == nil || e.Kind != KeyChanged && e.Kind != KeyUnknown && e.Kind != Unknown {
		return nil
	}
	return run.LastLines(e.err.Stderr, 20)
}

// Hints says what the user can do about it.
func (e *Error) Hints() []string {
	host, byHand := e.Address.Host(), e.byHand()
	switch e.Kind {
	case HostUnknown:
		return []string{fmt.Sprintf("check the name in the inventory's `target` and in ~/.ssh/config; `getent hosts %s` asks this machine's resolver", run.Quote(host))}
	case KeyUnknown:
		return []string{fmt.Sprintf("connect once by hand, compare the fingerprint and accept it: %s", byHand)}
	case KeyChanged:
		return []string{
			"if the machine was not reinstalled, someone may be listening in: find out before you go on",
			fmt.Sprintf("if it was: %s, then connect once by hand: %s", e.forget(), byHand),
		}
	case Denied:
		return []string{fmt.Sprintf("try the login by hand: %s; is the key loaded (ssh-add -l) and the user right", byHand)}
	case Refused:
		return []string{"the machine answers but no ssh server does: is sshd running, on this port"}
	case NoRoute, TimedOut:
		return []string{fmt.Sprintf("is the machine on and in this network: ping %s", run.Quote(host))}
	case NoSession:
		return []string{"allow more in the target's sshd_config: MaxSessions 10"}
	case Lost:
		return []string{"run the same command again: what has arrived is kept"}
	}
	return nil
}

// byHand is the command that makes the same connection.
func (e *Error) byHand() string {
	argv := []string{"ssh"}
	if e.err != nil && len(e.err.Argv) > 2 && e.err.Argv[1] == "-F" {
		argv = append(argv, e.err.Argv[1:3]...)
	}
	return run.QuoteAll(append(argv, e.Address.String()))
}

// forget is the command that makes ssh forget the host key: as ssh says it, which knows the file and the name in it.
func (e *Error) forget() string {
	if e.err != nil {
		for _, line := range run.LastLines(e.err.Stderr, 20) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "ssh-keygen -f ") {
				return line
			}
		}
	}
	return "ssh-keygen -R " + run.Quote(e.Address.knownHost())
}

// What ssh says when the other side refuses the login, with the methods it would take; without the parenthesis it may be
// about a file, or a firewall of this machine.
const denied = "Permission denied ("

// What ssh says when another program makes the connection, such as a ProxyJump's ssh, and has ended.
const proxyEnded = "UNKNOWN port"

// connectError finds out from ssh's own messages why it ended with status 255. OpenSSH has no other way to tell.
func connectError(addr Address, failed *run.Error) error {
	e := &Error{Address: addr, Kind: Unknown, err: failed}
	all := failed.Stderr
	for _, c := range []struct {
		text string
		kind Kind
	}{
		{"Session open refused by peer", NoSession},
		{"REMOTE HOST IDENTIFICATION HAS CHANGED", KeyChanged},
		{"Host key verification failed", KeyUnknown},
		{"Could not resolve hostname", HostUnknown},
		{denied, Denied},
		{"Too many authentication failures", Denied},
		{"Connection refused", Refused},
		{"No route to host", NoRoute},
		{"Network is unreachable", NoRoute},
		{"Connection timed out", TimedOut},
		{"Operation timed out", TimedOut},
		{"PTY allocation request failed", NoTerminal},
		{"not responding", Lost},
		{"Broken pipe", Lost},
		{"closed by remote host", Lost},
		{"Connection reset", Lost},
		{"Connection closed", Lost},
	} {
		if strings.Contains(all, c.text) {
			e.Kind = c.kind
			e.Text = lineWith(all, c.text)
			break
		}
	}
	if e.Kind == KeyChanged {
		e.Text = "the host key has changed"
	}
	if e.Kind == KeyUnknown {
		e.Text = "the host key is not known"
	}
	if e.Kind == NoSession {
		e.Text = "the ssh server allows no further session on a connection"
	}
	if e.Text == "" {
		if lines := run.LastLines(all, 1); len(lines) > 0 {
			e.Text = lines[0]
		} else {
			e.Kind, e.Text = Lost, "the connection was lost"
		}
	}
	return e
}

func lineWith(all, text string) string {
	for _, line := range run.LastLines(all, 1<<10) {
		if strings.Contains(line, text) {
			return strings.TrimSuffix(strings.TrimPrefix(line, "ssh: "), ".")
		}
	}
	return text
}

// Unreachable tells whether nothing at the address has answered: not the host, or not its sshd. Another address of it may.
func (e *Error) Unreachable() bool {
	switch e.Kind {
	case HostUnknown, Refused, NoRoute, TimedOut, Lost:
		return true
	}
	return false
}
