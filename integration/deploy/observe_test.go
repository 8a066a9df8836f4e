package deploy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// state is what of a target a deployment may change. Two states are compared with ==.
type state struct {
	runs       string // toplevel
	profile    string // toplevel
	generation string // the profile's link
	boots      string // toplevel that the boot loader starts
	bundle     string // what /etc/nixos/current-configuration keeps
	greeting   string // /etc/greeting
	greeter    string // the main process of the unit greeter
}

const stateScript = `
readlink -f /run/current-system
readlink -f /nix/var/nix/profiles/system
readlink /nix/var/nix/profiles/system
cat /boot/default
readlink -f /etc/nixos/current-configuration
cat /etc/greeting && echo
systemctl show -p MainPID --value greeter`

// state looks at the target.
func (s *site) state() state {
	s.t.Helper()
	lines := strings.Split(s.onTarget("sh", "-c", stateScript), "\n")
	if len(lines) != 7 {
		s.t.Fatalf("state of the target: %q", lines)
	}
	if lines[4] == "/etc/nixos/current-configuration" {
		lines[4] = ""
	}
	return state{lines[0], lines[1], lines[2], lines[3], lines[4], lines[5], lines[6]}
}

// want fails the test for every part of the state that is not as expected.
func (s *site) want(got, want state) {
	s.t.Helper()
	for _, part := range []struct{ what, got, want string }{
		{"the target runs", got.runs, want.runs},
		{"its profile is", got.profile, want.profile},
		{"its profile's link is", got.generation, want.generation},
		{"it boots", got.boots, want.boots},
		{"it keeps the bundle", got.bundle, want.bundle},
		{"it greets with", got.greeting, want.greeting},
		{"its greeter is process", got.greeter, want.greeter},
	} {
		if part.got != part.want {
			s.t.Errorf("%s %q, want %q", part.what, part.got, part.want)
		}
	}
}

// counts are what the target and the network have seen so far.
type counts struct{ logins, elevations, connections int }

// relayed makes ssh reach the target through a relay.
func (s *site) relayed(login string, opts lab.RelayOptions) *lab.Relay {
	s.t.Helper()
	relay := lab.StartRelay(s.t, netip.AddrPortFrom(s.target.Addr(), 22), opts)
	// A target's name is used again when it has stopped, and the builder may be the same.
	name := fmt.Sprintf("relay%d-%s", relay.Addr().Port(), s.target.Name())
	if err := s.builder.KnowThrough(name, relay, s.target); err != nil {
		s.t.Fatal(err)
	}
	s.inventory(s.node(login + "@" + name))
	return relay
}

// watched makes ssh reach the target through a relay, and gives a function that counts what has happened since it was
// called last.
func (s *site) watched(login string) (since func() counts) {
	s.t.Helper()
	relay := s.relayed(login, lab.RelayOptions{})
	last := s.counts()
	return func() counts {
		s.t.Helper()
		now := s.counts()
		now.connections = relay.Traffic().Connections
		defer func() { last = now }()
		return now.minus(last)
	}
}

// counts are how often someone logged in and became root on the target so far.
func (s *site) counts() counts {
	s.t.Helper()
	logins, err := s.target.Authentications(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	elevations, err := s.target.Elevations(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return counts{logins: logins, elevations: elevations}
}

func (c counts) minus(before counts) counts {
	return counts{c.logins - before.logins, c.elevations - before.elevations, c.connections - before.connections}
}

func (c counts) String() string {
	return fmt.Sprintf("%d logins, %d elevations, %d connections", c.logins, c.elevations, c.connections)
}

// says fails the test unless a ferry command's messages contain each of the texts.
func (o outcome) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(o.errors, text) {
			t.Errorf("ferry does not say %q:\n%s", text, o.errors)
		}
	}
}

// bundle is the store path that ferry build prints.
func (s *site) bundle(args ...string) string {
	s.t.Helper()
	o := s.ferry(append([]string{"build"}, args...)...)
	if o.status != 0 {
		s.t.Fatalf("ferry build: status %d", o.status)
	}
	return strings.TrimSuffix(o.out, "\n")
}

// toplevel is the system of a bundle on the builder.
func (s *site) toplevel(bundle string) string {
	s.t.Helper()
	return strings.TrimSpace(s.must("readlink", bundle+"/profile"))
}
