package chaos_test

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/integration/site"
	"ferry/internal/lab"
)

// machine is a target, and the project that is deployed to it again and again.
type machine struct {
	*site.Site
	login     string
	lossy     bool              // its disks lose with the power what was not synced
	toplevels map[string]string // by the systems' names
	// usual is how long a deployment of a system takes that is not hurt, and usually how long each phase does.
	usual   map[string]time.Duration
	usually map[phase]time.Duration
	turn    int
	// power is held by who switches the target or its cable.
	power *sync.Mutex
	now   look // how the last round left it
	// previous ran before the last deployment: ferry rollback returns to it.
	previous string
	accounts string // who may log in, and how: no deployment here changes that
	entries  int    // how many lines the journal had
}

// storeLimit is the size of a target's store, which is filled up at times.
const storeLimit = 96 << 20

// loginsFile is a file of the target, on disk: what ran there when somebody logged in, written by sshd for each session, on
// whatever connection. It owes nothing to ferry, and is where no fault fills or protects anything.
const (
	loginsFile = "/srv/logins"
	// roundFile is made when a round begins.
	roundFile = "/srv/round"
	sshrc     = "readlink -f /run/current-system >>" + loginsFile + " 2>/dev/null; sync " + loginsFile + "\n"
)

// newMachine makes a target that runs a system that ferry has deployed. Every other one is deployed to as root, and every third one
// loses with its power what was not synced.
func newMachine(t *testing.T, number int, building *sync.Mutex) *machine {
	t.Helper()
	who, home := "alice", "/home/alice"
	if *login == "root" || *login == "" && number%2 == 0 {
		who, home = "root", "/root"
	}
	s := site.New(t, site.Options{Login: who, Alone: true, Target: lab.Options{StoreLimit: storeLimit, Disk: *lossy || number%3 == 0}})
	m := &machine{Site: s, login: who, lossy: *lossy || number%3 == 0, usual: map[string]time.Duration{}, usually: maps.Clone(firstGuess), power: new(sync.Mutex)}
	m.toplevels = writeProject(s, who, building)
	var all []string
	for _, toplevel := range m.toplevels {
		all = append(all, toplevel)
	}
	// As after many deployments: what they share with each other is there.
	if err := s.Target.InstallClosure(t.Context(), s.Builder, all...); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{home + "/.ssh/rc": sshrc, loginsFile: ""} {
		if err := s.Target.WriteFile(t.Context(), name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.OnTarget("chmod", "666", loginsFile)
	for range 2 {
		// The second time is the usual one.
		if violations := m.plainDeployment(t, nil, false); len(violations) > 0 {
			t.Fatalf("before any fault: %s", strings.Join(violations, "\n"))
		}
		s.OnTarget("sh", "-c", passwords)
	}
	if m.accounts = m.says(t.Context(), accountsScript); !strings.Contains(m.accounts, "hers") {
		t.Fatalf("the accounts are:\n%s", m.accounts)
	}
	// Nobody has cut its power for long.
	if err := s.Target.Sync(); err != nil {
		t.Fatal(err)
	}
	return m
}

// writeProject writes the project, with a node for each system, and builds the systems.
func writeProject(s *site.Site, login string, building *sync.Mutex) map[string]string {
	s.T.Helper()
	// Several that build the same at once wait for each other, for seconds at every step.
	building.Lock()
	defer building.Unlock()
	var nodes, list strings.Builder
	for _, sys := range systems() {
		file := "systems/" + sys.name + ".nix"
		s.Write(file, sys.configuration())
		fmt.Fprintf(&nodes, "  nodes.%s = {\n    configuration = ./%s;\n    system = %q;\n    target = %q;\n%s  };\n",
			sys.name, file, s.Target.System(), login+"@"+s.Target.Name(), sys.node)
		fmt.Fprintf(&list, "(import %s/nixos { configuration = %s/%s; system = %q; }).system\n", s.Nixpkgs, s.Project, file, s.Target.System())
	}
	s.Write("ferry.nix", fmt.Sprintf("{\n  nixpkgs = %q;\n%s}\n", s.Nixpkgs, nodes.String()))
	// They stay when garbage is collected, and so does what is pinned.
	s.Must("nix-store", "--realise", s.Nixpkgs, "--add-root", s.Project+"-nixpkgs", "--indirect")
	built := strings.Fields(s.Must("nix-build", "--out-link", s.Project+"-systems", "-E", "[ "+list.String()+" ]"))
	for i, link := range built {
		built[i] = strings.TrimSpace(s.Must("readlink", "-f", link))
	}
	toplevels := map[string]string{}
	for i, sys := range systems() {
		if i >= len(built) {
			s.T.Fatalf("%d systems were built, of %d", len(built), len(systems()))
		}
		toplevels[sys.name] = built[i]
	}
	return toplevels
}

// in is the machine in a part of the test.
func (m *machine) in(t *testing.T) *machine {
	part := *m
	part.Site = m.Site.In(t)
	return &part
}

// good is a system that may stay and is not the one that runs.
func (m *machine) good(spare int) system {
	var may []system
	for _, s := range systems() {
		if s.fate == mayStay && m.toplevels[s.name] != m.now.runs {
			may = append(may, s)
		}
	}
	return may[spare%len(may)]
}

// nameOf is the name of the system with a toplevel.
func (m *machine) nameOf(toplevel string) string {
	for name, path := range m.toplevels {
		if path == toplevel {
			return name
		}
	}
	return toplevel
}

// takes is how long a deployment of a system takes as a rule.
func (m *machine) takes(s system) time.Duration {
	if usual := m.usual[s.name]; usual > 0 {
		return usual
	}
	usual := 3 * time.Second
	for _, other := range m.usual {
		usual = min(usual, other)
	}
	return usual + time.Duration(s.patience*float64(time.Second))
}

// took remembers how long a deployment has taken that was left alone.
func (m *machine) took(s system, d time.Duration) {
	if before := m.usual[s.name]; before > 0 {
		d = (3*before + d) / 4
	}
	m.usual[s.name] = d
}

// tookEach remembers how long each phase has taken of a deployment that was left alone.
func (m *machine) tookEach(lasts map[phase]time.Duration) {
	for one, d := range lasts {
		if m.usually[one] > 0 {
			m.usually[one] = (3*m.usually[one] + d) / 4
		}
	}
}

// plainDeployment deploys as anybody would, with the default limits, and says what is wrong afterwards. What a power cut has taken
// from paths of a deployment that it has broken off, and Nix believes to have, is nobody's if this one does not need it.
func (m *machine) plainDeployment(t *testing.T, tell func(string, ...any), collect bool) (violations []string) {
	t.Helper()
	m.turn++
	next := m.good(m.turn)
	begin, ran := time.Now(), m.now.runs
	watch := startWatch(t.Context(), m.Target, false)
	f, err := m.start(doSwitch, next.name)
	if err != nil {
		t.Fatal(err)
	}
	status, ended := f.wait(4 * time.Minute)
	lasts := watch.end()
	if tell != nil {
		tell("the next, plain deployment of %s ended with status %d after %v", next.name, status, time.Since(begin).Round(time.Millisecond))
	}
	if !ended || status != 0 {
		f.end()
		return []string{fmt.Sprintf("the next, plain deployment of %s ended with status %d:\n%s", next.name, status, f.output())}
	}
	m.took(next, time.Since(begin))
	m.tookEach(lasts)
	m.previous = ran
	if left := m.awaitQuiet(t.Context(), 0); left != "" {
		violations = append(violations, "after the next, plain deployment there is left: "+left)
	}
	if here := m.awaitQuietHere(t.Context()); here != "" {
		violations = append(violations, "after the next, plain deployment there is left here: "+here)
	}
	if collect {
		m.says(t.Context(), "nix-store --gc >/dev/null 2>&1")
	}
	m.now, err = m.look(t.Context(), false)
	if err != nil {
		return append(violations, err.Error())
	}
	m.entries += len(m.now.journal)
	new := m.toplevels[next.name]
	if is := m.now; is.runs != new || is.boots != new || is.profile != new || is.kept != new {
		violations = append(violations, fmt.Sprintf("after the next, plain deployment, of %s: %s", next.name, is.describe(m)))
	}
	return append(append(violations, m.now.whole(m)...), stillArmed(m.now.armed, false)...)
}
