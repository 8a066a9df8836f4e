package deploy_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// watchNix makes the target write every command of Nix that runs there to a file, which the function it returns reads, and
// takes the Nix daemon away.
func watchNix(s *site.Site) (commands func() []string) {
	s.T.Helper()
	const log = "/var/log/nix-commands"
	s.OnTarget("systemctl", "mask", "--now", "--runtime", "--quiet", "nix-daemon.socket", "nix-daemon.service")
	s.OnTarget("sh", "-euc", `
mkdir /usr/lib/real-nix
cd /usr/bin
for name in nix nix-*; do
	mv "$name" /usr/lib/real-nix/
	printf '#!/bin/sh\necho "%s $*" >>`+log+`\nexec /usr/lib/real-nix/%s "$@"\n' "$name" "$name" >"$name"
	chmod 755 "$name"
done
: >`+log)
	return func() []string {
		s.T.Helper()
		return strings.Split(strings.TrimSpace(s.OnTarget("cat", log)), "\n")
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
func offerCache(s *site.Site) *cache {
	s.T.Helper()
	c := new(cache)
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		s.T.Fatal(err)
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
	s.T.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		s.T.Fatal(err)
	}
	// The lab itself is the target's gateway.
	gateway := s.Target.Addr().As4()
	gateway[3] = 1
	conf := s.OnTarget("cat", "/etc/nix/nix.conf") + "\nsubstituters = http://" + net.JoinHostPort(net.IP(gateway[:]).String(), port) + "\n"
	if err := s.Target.WriteFile(s.T.Context(), "/etc/nix/nix.conf", []byte(conf), 0o644); err != nil {
		s.T.Fatal(err)
	}
	return c
}

// TestTheKernelSawNoEvaluationAndNoBuild asks the target's kernel, by its account of processes, what a first and a second
// deployment have run there.
func TestTheKernelSawNoEvaluationAndNoBuild(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	// It may build, if anybody should ask it to.
	s.OnTarget("sh", "-c", "sed -i 's/^max-jobs = 0/max-jobs = 1/' /etc/nix/nix.conf && systemctl restart nix-daemon")
	ended, err := s.Target.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Deploy()
	s.Write("web/configuration.nix", site.Configuration("second"))
	s.Deploy()
	var seen []lab.Ended
	site.Until(t, "the agents have ended", func() bool {
		if seen, err = ended(); err != nil {
			t.Fatal(err)
		}
		return count(seen, "sudo") == 2
	})
	nixes, built := programsOfNix(seen)
	for _, program := range nixes {
		if program != "nix-store" && program != "nix-env" {
			t.Errorf("%s ran on the target", program)
		}
	}
	if len(built) > 0 {
		t.Errorf("Nix has run %s on the target", built)
	}
	for program, least := range map[string]int{"sshd": 2, "nix-store": 4, "nix-env": 2, "switch-to-confi": 4, "systemctl": 2} {
		if n := count(seen, program); n < least {
			t.Errorf("the kernel saw %s %d times, and should have at least %d times", program, n, least)
		}
	}

	// What was not seen above would have been.
	s.OnTarget("nix-build", "--no-out-link", "-E", `derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo >$out" ]; }`)
	if seen, err = ended(); err != nil {
		t.Fatal(err)
	}
	if nixes, built = programsOfNix(seen); !slices.Contains(nixes, "nix-build") || !slices.Contains(built, "sh") {
		t.Errorf("the kernel does not see a build: programs of Nix %s, and run by them %s", nixes, built)
	}
}

// count is how often a program has run.
func count(seen []lab.Ended, program string) (n int) {
	for _, e := range seen {
		if e.Program == program && e.Executed {
			n++
		}
	}
	return n
}

// programsOfNix are those that have run, and other programs that these have run.
func programsOfNix(seen []lab.Ended) (nixes, built []string) {
	isNix := map[int]bool{}
	for _, e := range seen {
		if e.Program == "nix" || strings.HasPrefix(e.Program, "nix-") {
			isNix[e.PID] = true
			nixes = append(nixes, e.Program)
		}
	}
	for _, e := range seen {
		if e.Executed && isNix[e.Parent] && !isNix[e.PID] {
			built = append(built, e.Program)
		}
	}
	return nixes, built
}

// TestNothingIsEvaluatedBuiltOrFetchedOnTheTarget deploys to a target that may not build, has no way out, and tells of
// every command of Nix and of every question for its binary cache.
func TestNothingIsEvaluatedBuiltOrFetchedOnTheTarget(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	if conf := s.OnTarget("cat", "/etc/nix/nix.conf"); !strings.Contains(conf, "max-jobs = 0\n") {
		t.Fatalf("the target may build:\n%s", conf)
	}
	s.OnTarget("ip", "route", "delete", "default")
	cache := offerCache(s)
	commands := watchNix(s)
	s.Deploy()
	s.Write("web/configuration.nix", site.Configuration("second"))
	s.Deploy()
	s.Deploy()
	if asked := cache.requests(); len(asked) > 0 {
		t.Errorf("the target asked its binary cache for %s", asked)
	}
	harmless := regexp.MustCompile(`^nix-store --version$|^nix-store --serve --write$|^nix-store --query --requisites /nix/store/\S+$|` +
		`^nix-env -p /nix/var/nix/profiles/system --set /nix/store/\S+$`)
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
	_ = s.Target.Command(t.Context(), "nix-store", "--realise", "/nix/store/00000000000000000000000000000000-missing").Run()
	if asked := cache.requests(); len(asked) == 0 {
		t.Error("the target does not ask its binary cache for anything")
	}
}
