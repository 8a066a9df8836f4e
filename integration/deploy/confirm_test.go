package deploy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/integration/site"
	"ferry/internal/lab"
	"ferry/internal/run"
	"ferry/internal/target"
)

// caller is ferry's own code at work in the test, with a configuration for ssh in which the lab's machines are known.
type caller struct {
	*target.Dialer
	t    *testing.T
	path string // of the configuration
}

// newCaller knows the site's target as pi, reached by way of at, and its users by their key.
func newCaller(s *site.Site, at netip.AddrPort, options string) *caller {
	s.T.Helper()
	c := &caller{t: s.T, path: filepath.Join(s.T.TempDir(), "config")}
	c.Dialer = &target.Dialer{Runner: new(run.Runner), SSHConfig: c.path}
	home := s.Builder.Path(s.Builder.Home())
	text := fmt.Sprintf("Host pi\n  HostName %s\n  Port %d\n  HostKeyAlias %s\n%s\nHost *\n  IdentityFile %s/.ssh/id_ed25519\n  IdentitiesOnly yes\n  UserKnownHostsFile %[5]s/.ssh/known_hosts\n",
		at.Addr(), at.Port(), s.Target.Name(), options, home)
	if err := os.WriteFile(c.path, []byte(text), 0o600); err != nil {
		s.T.Fatal(err)
	}
	return c
}

func address(t *testing.T, s string) target.Address {
	t.Helper()
	a, err := target.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// kind is why a connection failed, "" if it did not, or what else went wrong.
func kind(err error) target.Kind {
	var connect *target.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &connect):
		return connect.Kind
	}
	return target.Kind(err.Error())
}

// TestConfirmingIsALoginOfItsOwn counts in the target's log and on the wire.
func TestConfirmingIsALoginOfItsOwn(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true, Target: lab.Options{NoSystemd: true}})
	relay := lab.StartRelay(t, netip.AddrPortFrom(s.Target.Addr(), 22), lab.RelayOptions{})
	// A master of the user's own would be used by every other ssh.
	c := newCaller(s, relay.Addr(), "  ControlMaster auto\n  ControlPersist 60\n  ControlPath "+filepath.Join(t.TempDir(), "%C"))
	before := s.Counts()
	for i, user := range []string{"alice", "zoe", "finn", "root"} {
		err := c.Confirm(t.Context(), address(t, user+"@pi"), "sh -c 'umask 077; cat >confirmed'", "", []byte("token of "+user))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := s.Counts().Minus(before), (site.Counts{Logins: i + 1}); got != want || relay.Traffic().Connections != i+1 {
			t.Errorf("%v on %d connections, want %v", got, relay.Traffic().Connections, want)
		}
		home := "/home/" + user
		if user == "root" {
			home = "/root"
		}
		if got := s.OnTarget("stat", "-c", "%U %a", home+"/confirmed") + s.OnTarget("cat", home+"/confirmed"); got != user+" 600token of "+user {
			t.Errorf("on the target there is %q", got)
		}
	}
}

// TestWhatConfirmingAndAnsweringProve has logins that work, and targets that do not answer.
func TestWhatConfirmingAndAnsweringProve(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true, Target: lab.Options{NoSystemd: true}})
	other := lab.StartTarget(t, lab.Options{NoSystemd: true})
	sshd := netip.AddrPortFrom(s.Target.Addr(), 22)
	frozen := lab.StartRelay(t, sshd, lab.RelayOptions{})
	frozen.Freeze()
	const byPassword = "  PubkeyAuthentication no\n"
	for name, c := range map[string]struct {
		at      netip.AddrPort
		options string
		// Why confirming and answering fail; "" if they do not.
		confirms, answers target.Kind
	}{
		"a key":                           {sshd, "", "", ""},
		"a password":                      {sshd, byPassword, target.Denied, ""},
		"a user's own order of methods":   {sshd, "  PreferredAuthentications password,publickey\n", "", ""},
		"no sshd":                         {netip.AddrPortFrom(s.Target.Addr(), 1), byPassword, target.Refused, target.Refused},
		"another machine at its address":  {netip.AddrPortFrom(other.Addr(), 22), byPassword, target.KeyChanged, target.KeyChanged},
		"no way to its address":           {netip.MustParseAddrPort("192.0.2.1:22"), byPassword, target.NoRoute, target.NoRoute},
		"a connection that stays silent":  {frozen.Addr(), byPassword, target.TimedOut, target.TimedOut},
		"a key that is not known":         {sshd, "  GlobalKnownHostsFile /dev/null\n  UserKnownHostsFile /dev/null\n", target.KeyUnknown, target.KeyUnknown},
		"behind a host with a key":        {sshd, "  ProxyJump carol@" + s.Target.Addr().String() + "\n" + byPassword, target.Denied, ""},
		"behind a host with a password":   {sshd, "  ProxyJump jump\n\nHost jump\n  User carol\n  HostName " + s.Target.Addr().String() + "\n" + byPassword, target.Denied, target.Denied},
		"behind a host that is not there": {sshd, "  ProxyJump ssh://carol@" + s.Target.Addr().String() + ":1\n", target.Refused, target.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.In(t)
			d := newCaller(s, c.at, c.options)
			if c.at == frozen.Addr() {
				d.ConnectTimeout = time.Second
			}
			if err := d.Confirm(t.Context(), address(t, "alice@pi"), "true", "", nil); kind(err) != c.confirms {
				t.Errorf("confirming: %v, want %q", err, c.confirms)
			}
			if err := d.Answers(t.Context(), address(t, "alice@pi")); kind(err) != c.answers {
				t.Errorf("answering: %v, want %q", err, c.answers)
			}
		})
	}
}
