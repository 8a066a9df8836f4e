package site

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// Stage is a step of a deployment in which it can be held up: what a test does to it then is done in that step.
type Stage struct {
	Name string
	// Begin makes the next deployment stop there, reached tells whether it has, and release lets it go on.
	Begin   func(r *Rehearsal)
	Reached func(r *Rehearsal) bool
	Release func(r *Rehearsal)
	// Changes tells that the target may have another system from there on.
	Changes bool
}

// Rehearsal is a site whose deployments can be held up. Its target is reached through a relay, and its builder is its own.
type Rehearsal struct {
	*Site
	Relay *lab.Relay
	turn  *int
}

// In is the rehearsal in a part of the test.
func (r *Rehearsal) In(t *testing.T) *Rehearsal { return &Rehearsal{r.Site.In(t), r.Relay, r.turn} }

// Shipped is how many bytes a rehearsal's deployments have to ship at least, in paths of shippedPath bytes.
const (
	shippedPath = 1 << 20
	Shipped     = 6 * shippedPath
)

// NewRehearsal makes a site whose deployments can be held up.
func NewRehearsal(t *testing.T) *Rehearsal {
	t.Helper()
	s := New(t, Options{Alone: true})
	return &Rehearsal{Site: s, Relay: s.Relayed("alice", lab.RelayOptions{}), turn: new(int)}
}

// Rewrite gives the project another configuration, with everything new that a deployment can be held up in, and returns
// its greeting.
func (r *Rehearsal) Rewrite() string {
	r.T.Helper()
	*r.turn++
	turn := *r.turn
	greeting := fmt.Sprintf("turn %d", turn)
	home := r.Builder.Home()
	wait := func(where string) string {
		return fmt.Sprintf(`derivation {
    name = "wait-%s-%d"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-c" "touch %[3]s/at-%[1]s; while [ -e %[3]s/hold-%[1]s ]; do sleep 0.05; done; echo done >$out" ];
  }`, where, turn, home)
	}
	r.Write("web/configuration.nix", With(Configuration(greeting), Data(fmt.Sprint(turn), Shipped/shippedPath, shippedPath)+fmt.Sprintf(`
  environment.etc."evaluated".text = builtins.readFile (%s);
  environment.etc."built".source = %s;
`, wait("evaluate"), wait("build"))+Holds()))
	return greeting
}

// Holds are the part of a configuration that a deployment can be held up in on its target, with OnTarget.
func Holds() string {
	hold := func(where string) string {
		return fmt.Sprintf("echo %[1]s: one; touch /run/at-%[1]s; while [ -e /run/hold-%[1]s ]; do sleep 0.05; done; echo %[1]s: two", where)
	}
	return fmt.Sprintf(`
  system.activationScripts.hold = "%s";
  boot.loader.lab.before.hold = "%s";
`, hold("activate"), hold("commit"))
}

// OnBuilder is a stage that a file on the builder holds up.
func OnBuilder(name string) Stage {
	file := func(r *Rehearsal, kind string) string {
		return r.Builder.Path(filepath.Join(r.Builder.Home(), kind+"-"+name))
	}
	return Stage{
		Name: name,
		Begin: func(r *Rehearsal) {
			_ = os.Remove(file(r, "at"))
			r.touch(file(r, "hold"))
		},
		Reached: func(r *Rehearsal) bool {
			_, err := os.Stat(file(r, "at"))
			return err == nil
		},
		Release: func(r *Rehearsal) { _ = os.Remove(file(r, "hold")) },
	}
}

// OnTarget is a stage that a file on the target holds up.
func OnTarget(name string) Stage {
	return Stage{
		Name:    name,
		Begin:   func(r *Rehearsal) { r.OnTarget("sh", "-c", "rm -f /run/at-"+name+"; touch /run/hold-"+name) },
		Reached: func(r *Rehearsal) bool { return r.OnTarget("sh", "-c", "ls /run/at-"+name+" 2>/dev/null; true") != "" },
		Release: func(r *Rehearsal) { r.OnTarget("rm", "/run/hold-"+name) },
		Changes: true,
	}
}

// OnWire is a stage in which the connection falls silent once up bytes have gone to the target.
func OnWire(name string, up int64) Stage {
	var from lab.Traffic
	return Stage{
		Name: name,
		Begin: func(r *Rehearsal) {
			from = r.Relay.Traffic()
			if up == 0 {
				r.Relay.Freeze()
			}
		},
		Reached: func(r *Rehearsal) bool {
			now := r.Relay.Traffic()
			if now.Connections == from.Connections || now.Up-from.Up < up {
				return false
			}
			r.Relay.Freeze()
			return true
		},
		Release: func(r *Rehearsal) { r.Relay.Thaw() },
	}
}

// Stages are all steps of a deployment, in their order.
func Stages() []Stage {
	return []Stage{
		OnWire("login", 0), OnBuilder("evaluate"), OnBuilder("build"), OnWire("ship", Shipped/2), OnTarget("activate"), OnTarget("commit"),
	}
}

func (r *Rehearsal) touch(file string) {
	r.T.Helper()
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		r.T.Fatal(err)
	}
}

// Await waits until a deployment is held up in the stage.
func (r *Rehearsal) Await(s Stage) {
	r.T.Helper()
	Until(r.T, "the deployment is in its step "+s.Name, func() bool { return s.Reached(r) })
}

// NothingRunsThere waits until no process of ferry is left on the target, and checks that it has left nothing else.
func (s *Site) NothingRunsThere() {
	s.T.Helper()
	const find = `for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep -E '/var/lib/ferry/|nix-store --serve' | grep -v 'grep -E'; flock -n /run/ferry/lock true || echo locked`
	var left string
	Until(s.T, "the agent ends", func() bool {
		left = s.OnTarget("sh", "-c", find)
		return left == ""
	})
	if units := s.OnTarget("systemctl", "list-units", "--all", "--no-legend", "ferry-*"); units != "" {
		s.T.Errorf("units are left on the target: %s", units)
	}
	if files := s.OnTarget("find", "/var/lib/ferry", "/tmp", "-name", ".new-*", "-o", "-name", "armed-*", "-o", "-name", "ferry*", "!", "-path", "/var/lib/ferry"); files != "" {
		s.T.Errorf("files are left on the target: %s", files)
	}
}

// NothingRuns waits until no process of ferry is left on either end, and checks that it has left nothing else.
func (r *Rehearsal) NothingRuns() {
	r.T.Helper()
	r.NothingRunsThere()
	var running []string
	Until(r.T, "ferry's processes end here", func() bool {
		running = r.processes()
		return len(running) == 0
	})
	files, err := filepath.Glob(r.Builder.Path("/tmp/*"))
	if err != nil || len(files) > 0 {
		r.T.Errorf("files are left on the builder: %s, %v", files, err)
	}
}

// processes are the builder's, which run in its root and nowhere else.
func (r *Rehearsal) processes() []string {
	r.T.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/root")
	if err != nil {
		r.T.Fatal(err)
	}
	var found []string
	for _, link := range links {
		if where, err := os.Readlink(link); err != nil || where != filepath.Clean(r.Builder.Path("/")) {
			continue
		}
		argv, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		found = append(found, strings.ReplaceAll(string(argv), "\x00", " "))
	}
	return found
}
