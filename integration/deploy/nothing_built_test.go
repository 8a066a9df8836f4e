package deploy_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// watchNix makes the target write every command of Nix that runs there to a file, which the function it returns reads, and
// takes the Nix daemon away.
func (s *site) watchNix() (commands func() []string) {
	s.t.Helper()
	const log = "/var/log/nix-commands"
	s.onTarget("systemctl", "mask", "--now", "--runtime", "--quiet", "nix-daemon.socket", "nix-daemon.service")
	s.onTarget("sh", "-euc", `
mkdir /usr/lib/real-nix
cd /usr/bin
for name in nix nix-*; do
	mv "$name" /usr/lib/real-nix/
	printf '#!/bin/sh\necho "%s $*" >>`+log+`\nexec /usr/lib/real-nix/%s "$@"\n' "$name" "$name" >"$name"
	chmod 755 "$name"
done
: >`+log)
	return func() []string {
		s.t.Helper()
		return strings.Split(strings.TrimSpace(s.onTarget("cat", log)), "\n")
	}
}

// cache is a binary cache that the target is told of, and that remembers what it was asked for.
type cache struct {
	mu    sync.Mutex
	asked []string
}

func (c *cache) requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// offerCache gives the target a substituter that has nothing.
func (s *site) offerCache() *cache {
	s.t.Helper()
	c := new(cache)
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		s.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.asked = append(c.asked, r.URL.Path)
		c.mu.Unlock()
		http.NotFound(w, r)
	}))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	s.t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	// The lab itself is the target's gateway.
	gateway := s.target.Addr().As4()
	gateway[3] = 1
	conf := s.onTarget("cat", "/etc/nix/nix.conf") + "\nsubstituters = http://" + net.JoinHostPort(net.IP(gateway[:]).String(), port) + "\n"
	if err := s.target.WriteFile(s.t.Context(), "/etc/nix/nix.conf", []byte(conf), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// TestNothingIsEvaluatedBuiltOrFetchedOnTheTarget deploys to a target that may not build, has no way out, and tells of
// every command of Nix and of every question for its binary cache.
func TestNothingIsEvaluatedBuiltOrFetchedOnTheTarget(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	if conf := s.onTarget("cat", "/etc/nix/nix.conf"); !strings.Contains(conf, "max-jobs = 0\n") {
		t.Fatalf("the target may build:\n%s", conf)
	}
	s.onTarget("ip", "route", "delete", "default")
	cache := s.offerCache()
	commands := s.watchNix()
	s.deploy()
	s.write("web/configuration.nix", configuration("second"))
	s.deploy()
	s.deploy()
	if asked := cache.requests(); len(asked) > 0 {
		t.Errorf("the target asked its binary cache for %s", asked)
	}
	harmless := regexp.MustCompile(`^nix-store --version$|^nix-store --serve --write$|` +
		`^nix-env -p /nix/var/nix/profiles/system --set /nix/store/\S+$|` +
		`^nix-store --realise /nix/store/\S+-ferry-web --add-root /etc/nixos/current-configuration --indirect$`)
	seen := commands()
	for _, command := range seen {
		if !harmless.MatchString(command) {
			t.Errorf("the target ran %s", command)
		}
	}
	if len(seen) < 8 {
		t.Errorf("only %d commands of Nix were seen:\n%s", len(seen), strings.Join(seen, "\n"))
	}
	// The watch itself must work: what was not seen above would have been.
	_ = s.target.Command(t.Context(), "nix-store", "--realise", "/nix/store/00000000000000000000000000000000-missing").Run()
	if asked := cache.requests(); len(asked) == 0 {
		t.Error("the target does not ask its binary cache for anything")
	}
}
