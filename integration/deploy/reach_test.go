package deploy_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// TestTargetsThatCannotBeReached tells apart why there is no connection, each with what to do, before anything is changed.
func TestTargetsThatCannotBeReached(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{Bare: true, Alone: true})
	other := lab.StartTarget(t, lab.Options{NoSystemd: true})
	config := func(name, text string) string {
		file := filepath.Join(s.Builder.Home(), name)
		if err := s.Builder.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	host := func(known string) string {
		return config("ssh-"+known, fmt.Sprintf("Host web\n HostName %s\n UserKnownHostsFile %s\n IdentityFile ~/.ssh/id_ed25519\n",
			s.Target.Addr(), filepath.Join(s.Builder.Home(), known)))
	}
	// The key of another machine under the target's address.
	config("changed", strings.ReplaceAll(other.KnownHost(), other.Addr().String(), s.Target.Addr().String())+"\n")
	config("unknown", "")
	silent := lab.StartRelay(t, netip.AddrPortFrom(s.Target.Addr(), 22), lab.RelayOptions{})
	silent.Freeze()
	addr := s.Target.Addr().String()
	for name, c := range map[string]struct {
		target string
		args   []string
		text   string
		hints  []string
	}{
		"a host that nobody knows": {"alice@nowhere.invalid", nil, "web: connect: ssh alice@nowhere.invalid: Could not resolve hostname nowhere.invalid: ",
			[]string{"getent hosts nowhere.invalid"}},
		"no ssh server": {"ssh://alice@" + addr + ":1", nil, "web: connect: ssh ssh://alice@" + addr + ":1: connect to host " + addr + " port 1: Connection refused",
			[]string{"is sshd running"}},
		"no route": {"alice@" + netip.MustParseAddr(addr).Next().String(), nil, "web: connect: ssh alice@" + netip.MustParseAddr(addr).Next().String() + ": connect to host ",
			[]string{"is the machine on and in this network: ping "}},
		"an address that nothing is routed to": {"alice@192.0.2.1", nil, "web: connect: ssh alice@192.0.2.1: connect to host 192.0.2.1 port 22: Network is unreachable",
			[]string{"ping 192.0.2.1"}},
		"a machine that says nothing": {"ssh://alice@" + silent.Addr().String(), nil, "web: connect: ssh ssh://alice@" + silent.Addr().String() + ": Connection timed out during banner exchange",
			[]string{"is the machine on and in this network: ping " + silent.Addr().Addr().String()}},
		"a host key that is not known": {"alice@web", []string{"--ssh-config", host("unknown")}, "web: connect: ssh alice@web: the host key is not known",
			[]string{"connect once by hand, compare the fingerprint and accept it: ssh -F "}},
		"a host key that has changed": {"alice@web", []string{"--ssh-config", host("changed")}, "web: connect: ssh alice@web: the host key has changed",
			[]string{"someone may be listening in", `ssh-keygen -f "/root/changed" -R "`}},
		"a login that is refused": {"mallory@" + s.Target.Name(), nil, "web: connect: ssh mallory@" + s.Target.Name() + ": mallory@" + addr + ": Permission denied (publickey",
			[]string{"try the login by hand: ssh mallory@" + s.Target.Name()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.In(t)
			file := fmt.Sprintf("%x.nix", name)
			s.Write(file, fmt.Sprintf("{\n  nixpkgs = %q;\n  nodes.web = {\n%s  };\n}\n", s.Nixpkgs, s.Node(c.target)))
			s.Ferry(append([]string{"deploy", "-f", file}, c.args...)...).Fails(t, 1, c.text, c.hints...)
		})
	}
}
