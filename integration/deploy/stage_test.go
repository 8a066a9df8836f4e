package deploy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/lab"
)

// stage is a step of a deployment in which it can be held up: what a test does to it then is done in that step.
type stage struct {
	name string
	// begin makes the next deployment stop there, reached tells whether it has, and release lets it go on.
	begin   func(r *rehearsal)
	reached func(r *rehearsal) bool
	release func(r *rehearsal)
	// changes tells that the target may have another system from there on.
	changes bool
}

// rehearsal is a site whose deployments can be held up. Its target is reached through a relay, and its builder is its own.
type rehearsal struct {
	*site
	relay *lab.Relay
	turn  *int
}

// in is the rehearsal in a part of the test.
func (r *rehearsal) in(t *testing.T) *rehearsal { return &rehearsal{r.site.in(t), r.relay, r.turn} }

// shipped is how many bytes a rehearsal's deployments have to ship at least, in paths of shippedPath bytes.
const (
	shippedPath = 1 << 20
	shipped     = 6 * shippedPath
)

func newRehearsal(t *testing.T) *rehearsal {
	t.Helper()
	s := newSite(t, siteOptions{alone: true})
	return &rehearsal{site: s, relay: s.relayed("alice", lab.RelayOptions{}), turn: new(int)}
}

// rewrite gives the project another configuration, with everything new that a deployment can be held up in, and returns
// its greeting.
func (r *rehearsal) rewrite() string {
	r.t.Helper()
	*r.turn++
	turn := *r.turn
	greeting := fmt.Sprintf("turn %d", turn)
	home := r.builder.Home()
	wait := func(where string) string {
		return fmt.Sprintf(`derivation {
    name = "wait-%s-%d"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-c" "touch %[3]s/at-%[1]s; while [ -e %[3]s/hold-%[1]s ]; do sleep 0.05; done; echo done >$out" ];
  }`, where, turn, home)
	}
	hold := func(where string) string {
		return fmt.Sprintf("echo %[1]s: one; touch /run/at-%[1]s; while [ -e /run/hold-%[1]s ]; do sleep 0.05; done; echo %[1]s: two", where)
	}
	r.write("web/configuration.nix", with(configuration(greeting), data(fmt.Sprint(turn), shipped/shippedPath, shippedPath)+fmt.Sprintf(`
  environment.etc."evaluated".text = builtins.readFile (%s);
  environment.etc."built".source = %s;
  system.activationScripts.hold = "%s";
  system.preSwitchChecks.hold = "[ $2 != boot ] || { %s; }";
`, wait("evaluate"), wait("build"), hold("activate"), hold("commit"))))
	return greeting
}

// onBuilder is a stage that a file on the builder holds up.
func onBuilder(name string) stage {
	file := func(r *rehearsal, kind string) string {
		return r.builder.Path(filepath.Join(r.builder.Home(), kind+"-"+name))
	}
	return stage{
		name: name,
		begin: func(r *rehearsal) {
			_ = os.Remove(file(r, "at"))
			r.touch(file(r, "hold"))
		},
		reached: func(r *rehearsal) bool {
			_, err := os.Stat(file(r, "at"))
			return err == nil
		},
		release: func(r *rehearsal) { _ = os.Remove(file(r, "hold")) },
	}
}

// onTarget is a stage that a file on the target holds up.
func onTarget(name string) stage {
	return stage{
		name:    name,
		begin:   func(r *rehearsal) { r.onTarget("sh", "-c", "rm -f /run/at-"+name+"; touch /run/hold-"+name) },
		reached: func(r *rehearsal) bool { return r.onTarget("sh", "-c", "ls /run/at-"+name+" 2>/dev/null; true") != "" },
		release: func(r *rehearsal) { r.onTarget("rm", "/run/hold-"+name) },
		changes: true,
	}
}

// onWire is a stage in which the connection falls silent once up bytes have gone to the target.
func onWire(name string, up int64) stage {
	var from lab.Traffic
	return stage{
		name: name,
		begin: func(r *rehearsal) {
			from = r.relay.Traffic()
			if up == 0 {
				r.relay.Freeze()
			}
		},
		reached: func(r *rehearsal) bool {
			now := r.relay.Traffic()
			if now.Connections == from.Connections || now.Up-from.Up < up {
				return false
			}
			r.relay.Freeze()
			return true
		},
		release: func(r *rehearsal) { r.relay.Thaw() },
	}
}

// stages are all steps of a deployment, in their order.
func stages() []stage {
	return []stage{
		onWire("login", 0), onBuilder("evaluate"), onBuilder("build"), onWire("ship", shipped/2), onTarget("activate"), onTarget("commit"),
	}
}

func (r *rehearsal) touch(file string) {
	r.t.Helper()
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// await waits until a deployment is held up in the stage.
func (r *rehearsal) await(s stage) {
	r.t.Helper()
	until(r.t, "the deployment is in its step "+s.name, func() bool { return s.reached(r) })
}

// nothingRuns waits until no process of ferry is left on either end, and checks that it has left nothing else.
func (r *rehearsal) nothingRuns() {
	r.t.Helper()
	const find = `for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep -E '/var/lib/ferry/|nix-store --serve' | grep -v 'grep -E'; flock -n /run/ferry/lock true || echo locked`
	var left string
	until(r.t, "the agent ends", func() bool {
		left = r.onTarget("sh", "-c", find)
		return left == ""
	})
	if units := r.onTarget("systemctl", "list-units", "--all", "--no-legend", "ferry-*"); units != "" {
		r.t.Errorf("units are left on the target: %s", units)
	}
	if files := r.onTarget("find", "/var/lib/ferry", "/tmp", "-name", ".new-*", "-o", "-name", "ferry*", "!", "-path", "/var/lib/ferry"); files != "" {
		r.t.Errorf("files are left on the target: %s", files)
	}
	var running []string
	until(r.t, "ferry's processes end here", func() bool {
		running = r.processes()
		return len(running) == 0
	})
	files, err := filepath.Glob(r.builder.Path("/tmp/*"))
	if err != nil || len(files) > 0 {
		r.t.Errorf("files are left on the builder: %s, %v", files, err)
	}
}

// processes are the builder's, which run in its root and nowhere else.
func (r *rehearsal) processes() []string {
	r.t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/root")
	if err != nil {
		r.t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		if where, err := os.Readlink(link); err != nil || where != filepath.Clean(r.builder.Path("/")) {
			continue
		}
		argv, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		found = append(found, strings.ReplaceAll(string(argv), "\x00", " "))
	}
	return found
}
