package site

import (
	"fmt"
	"net/netip"
	"strings"

	"ferry/internal/lab"
)

// State is what of a target a deployment may change. Two states are compared with ==.
type State struct {
	Runs       string // toplevel
	Profile    string // toplevel
	Generation string // the profile's link
	Boots      string // toplevel that the boot loader starts
	Bundle     string // what /etc/nixos/current-configuration keeps
	Greeting   string // /etc/greeting
	Greeter    string // the main process of the unit greeter
}

const stateScript = `
readlink -f /run/current-system
readlink -f /nix/var/nix/profiles/system
readlink /nix/var/nix/profiles/system
cat /boot/default
readlink -f /etc/nixos/current-configuration
cat /etc/greeting && echo
systemctl show -p MainPID --value greeter`

// State looks at the target.
func (s *Site) State() State {
	s.T.Helper()
	lines := strings.Split(s.OnTarget("sh", "-c", stateScript), "\n")
	if len(lines) != 7 {
		s.T.Fatalf("state of the target: %q", lines)
	}
	if lines[4] == "/etc/nixos/current-configuration" {
		lines[4] = ""
	}
	return State{lines[0], lines[1], lines[2], lines[3], lines[4], lines[5], lines[6]}
}

// Want fails the test for every part of the state that is not as expected.
func (s *Site) Want(got, want State) {
	s.T.Helper()
	for _, part := range []struct{ what, got, want string }{
		{"the target runs", got.Runs, want.Runs},
		{"its profile is", got.Profile, want.Profile},
		{"its profile's link is", got.Generation, want.Generation},
		{"it boots", got.Boots, want.Boots},
		{"it keeps the bundle", got.Bundle, want.Bundle},
		{"it greets with", got.Greeting, want.Greeting},
		{"its greeter is process", got.Greeter, want.Greeter},
	} {
		if part.got != part.want {
			s.T.Errorf("%s %q, want %q", part.what, part.got, part.want)
		}
	}
}

// Counts are what the target and the network have seen so far.
type Counts struct{ Logins, Elevations, Connections int }

// Relayed makes ssh reach the target through a relay. The node gets more attributes besides.
func (s *Site) Relayed(login string, opts lab.RelayOptions, more ...string) *lab.Relay {
	s.T.Helper()
	relay := lab.StartRelay(s.T, netip.AddrPortFrom(s.Target.Addr(), 22), opts)
	// A target's name is used again when it has stopped, and the builder may be the same.
	name := fmt.Sprintf("relay%d-%s", relay.Addr().Port(), s.Target.Name())
	if err := s.Builder.KnowThrough(name, relay, s.Target); err != nil {
		s.T.Fatal(err)
	}
	s.Inventory(s.Node(login+"@"+name, more...))
	return relay
}

// Watched makes ssh reach the target through a relay, and gives a function that counts what has happened since it was
// called last.
func (s *Site) Watched(login string) (since func() Counts) {
	s.T.Helper()
	relay := s.Relayed(login, lab.RelayOptions{})
	last := s.Counts()
	return func() Counts {
		s.T.Helper()
		now := s.Counts()
		now.Connections = relay.Traffic().Connections
		defer func() { last = now }()
		return now.Minus(last)
	}
}

// Counts are how often someone logged in and became root on the target so far.
func (s *Site) Counts() Counts {
	s.T.Helper()
	logins, err := s.Target.Authentications(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	elevations, err := s.Target.Elevations(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	return Counts{Logins: logins, Elevations: elevations}
}

// Minus is what has come since before.
func (c Counts) Minus(before Counts) Counts {
	return Counts{c.Logins - before.Logins, c.Elevations - before.Elevations, c.Connections - before.Connections}
}

func (c Counts) String() string {
	return fmt.Sprintf("%d logins, %d elevations, %d connections", c.Logins, c.Elevations, c.Connections)
}

// Bundle is the store path that ferry build prints.
func (s *Site) Bundle(args ...string) string {
	s.T.Helper()
	o := s.Ferry(append([]string{"build"}, args...)...)
	if o.Status != 0 {
		s.T.Fatalf("ferry build: status %d", o.Status)
	}
	return strings.TrimSuffix(o.Out, "\n")
}

// Toplevel is the system of a bundle on the builder.
func (s *Site) Toplevel(bundle string) string {
	s.T.Helper()
	return strings.TrimSpace(s.Must("readlink", bundle+"/profile"))
}
