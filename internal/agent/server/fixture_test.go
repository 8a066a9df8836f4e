package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/machine/machinetest"
	"ferry/internal/agent/receive"
	"ferry/internal/nix"
)

// TestMain lets this test program act as the agent that a job is started from, and as one that holds the lock.
func TestMain(m *testing.M) {
	if os.Getenv("FERRY_TEST_SLEEP") != "" {
		time.Sleep(time.Hour)
	}
	if len(os.Args) == 3 && os.Args[1] == "job" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := runJobIn(ctx, machine.Root{Dir: os.Getenv("FERRY_TEST_ROOT")}, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "tidy" {
		goOnTidying(context.Background(), machine.Root{Dir: os.Getenv("FERRY_TEST_ROOT")}, os.Args[2])
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "rollback" {
		if err := rollBackIn(context.Background(), machine.Root{Dir: os.Getenv("FERRY_TEST_ROOT")}, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if os.Getenv("FERRY_TEST_DEAF") != "" {
			signal.Ignore(syscall.SIGTERM)
		}
		_, holder, err := takeLock(machine.Root{Dir: os.Getenv("FERRY_TEST_ROOT")}, Options{Who: "other@there", Session: os.Args[2]}, time.Now())
		fmt.Println(holder, err)
		time.Sleep(time.Hour)
	}
	if len(os.Args) == 4 && os.Args[1] == "keep" {
		limit, err := time.ParseDuration(cmp.Or(os.Getenv("FERRY_TEST_KEEP"), "10m"))
		if err == nil {
			err = receive.RunParking(context.Background(), os.Args[2], os.Args[3], limit)
		}
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "append" {
		os.Exit(appendWithin(os.Args[2]))
	}
	if len(os.Args) == 2 && os.Args[1] == "noisy" {
		os.Exit(noisy())
	}
	os.Exit(m.Run())
}

const (
	oldSystem nix.StorePath = "/nix/store/00000000000000000000000000000000-old"
	newSystem nix.StorePath = "/nix/store/11111111111111111111111111111111-new"
	oldBundle nix.StorePath = "/nix/store/22222222222222222222222222222222-ferry-pi"
	newBundle nix.StorePath = "/nix/store/33333333333333333333333333333333-ferry-pi"
)

// machine is a fake target: a folder that stands for /, and programs that write down how they are called.
type fakeMachine struct {
	*machinetest.Machine
}

// switchScript is what the fake systems switch with. The files in /control say what happens.
const switchScript = `#!/bin/sh
echo "$(basename "$(dirname "$(dirname "$0")")") $1" >>"$FERRY_TEST_ROOT/calls"
echo "switching: $1"
if [ -e "$FERRY_TEST_ROOT/control/wait" ]; then
	while [ ! -e "$FERRY_TEST_ROOT/control/go" ]; do sleep 0.01; done
fi
case $0 in *new*) which=new ;; *) which=old ;; esac
while [ -e "$FERRY_TEST_ROOT/control/hang-$which-$1" ]; do sleep 0.01; done
echo "done" >&2
case $0 in *new*) system=` + string(newSystem) + `;; *) system=` + string(oldSystem) + `;; esac
status=0
[ ! -e "$FERRY_TEST_ROOT/control/status-$1" ] || read -r status <"$FERRY_TEST_ROOT/control/status-$1"
case $0 in *old*) [ ! -e "$FERRY_TEST_ROOT/control/old-is-well" ] || status=0;; esac
[ ! -e "$FERRY_TEST_ROOT/control/status-$which-$1" ] || read -r status <"$FERRY_TEST_ROOT/control/status-$which-$1"
case $1:$status in test:[0234]) ln -sfn "$system" "$FERRY_TEST_ROOT/run/current-system";; esac
exit "$status"
`

const nixEnvScript = `#!/bin/sh
echo "nix-env $3 $4" >>"$FERRY_TEST_ROOT/calls"
[ "$1" = -p ] && [ "$2" = "$FERRY_TEST_ROOT` + systemProfile + `" ] || exit 9
[ ! -e "$FERRY_TEST_ROOT/control/nix-env-fails" ] || { echo "error: read-only file system" >&2; exit 1; }
case $3 in
--set) n=$(ls -d "$2"-*-link | wc -l); n=$((n + 1)); ln -s "$4" "$2-$n-link"; ln -sfn "system-$n-link" "$2";;
--switch-generation) ln -sfn "system-$4-link" "$2";;
esac
`

const nixStoreScript = `#!/bin/sh
case $1 in
--version) echo "nix-store (Nix) 2.99.0";;
--realise)
	echo "nix-store --realise $2" >>"$FERRY_TEST_ROOT/calls"
	[ ! -e "$FERRY_TEST_ROOT/control/nix-store-fails" ] || { echo "error: no such path" >&2; exit 1; }
	ln -sfn "$2" "$4";;
*) exit 1;;
esac
`

// What the fake systemd does: it starts services at once, and writes down which timers are started and stopped.
const (
	fakeSystemdRun = `#!/bin/sh
for arg; do
	case $arg in --unit=*) unit=${arg#--unit=};; --on-active=*) after=${arg#--on-active=};; esac
done
while [ "$1" != -- ]; do shift; done
shift
if [ -n "$after" ]; then
	[ ! -e "$FERRY_TEST_ROOT/control/no-timers" ] || { echo "Failed to start transient timer unit" >&2; exit 1; }
	echo "arm $unit $after" >>"$FERRY_TEST_ROOT/timers"
else
	setsid "$@" >/dev/null 2>&1 </dev/null &
fi
`
	fakeSystemctl = `#!/bin/sh
case $1 in
stop) shift 2; for unit; do echo "stop $unit" >>"$FERRY_TEST_ROOT/timers"; done;;
list-units) case "$*" in *--type=*) cat "$FERRY_TEST_ROOT/control/standing" 2>/dev/null;; *) cat "$FERRY_TEST_ROOT/control/failed" 2>/dev/null;; esac;;
show) for unit; do :; done; cat "$FERRY_TEST_ROOT/control/show-$unit" 2>/dev/null;;
start) shift 2; for unit; do
	echo "start $unit" >>"$FERRY_TEST_ROOT/timers"
	[ -e "$FERRY_TEST_ROOT/control/cannot-$unit" ] || echo "$unit loaded active listening it" >>"$FERRY_TEST_ROOT/control/standing"
done;;
esac
exit 0
`
)

// withSystemd gives the machine a systemd.
func (m *fakeMachine) withSystemd() *fakeMachine {
	m.Write(machine.SystemdRuns+"/.keep", "")
	m.Program("/bin/systemd-run", fakeSystemdRun)
	m.Program("/bin/systemctl", fakeSystemctl)
	return m
}

// newMachine is a NixOS that runs, boots and keeps the old system, and has the new one in its store.
func newMachine(t *testing.T) *fakeMachine {
	t.Helper()
	m := &fakeMachine{machinetest.New(t)}
	t.Cleanup(m.endJobs)
	m.Write("/etc/NIXOS", "")
	m.Write("/etc/nixos/.keep", "")
	m.Write("/control/.keep", "")
	for _, system := range []nix.StorePath{oldSystem, newSystem} {
		m.Program(string(system)+"/bin/switch-to-configuration", switchScript)
	}
	m.Write(string(oldBundle)+"/ferry.json", "{}")
	m.Write(string(newBundle)+"/ferry.json", "{}")
	m.Link(string(oldSystem), string(oldBundle)+"/profile")
	m.Link(string(newSystem), string(newBundle)+"/profile")
	m.Link(string(oldSystem), "/run/current-system")
	m.Link(string(oldSystem), "/run/booted-system")
	m.Link(string(oldSystem), systemProfile+"-1-link")
	m.Link("system-1-link", systemProfile)
	m.Link(string(oldBundle), currentConfiguration)
	m.Program("/bin/nix-env", nixEnvScript)
	m.Program("/bin/nix-store", nixStoreScript)
	t.Setenv("PATH", m.Path("/bin")+":"+os.Getenv("PATH"))
	t.Setenv("FERRY_TEST_ROOT", m.Dir)
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	return m
}

// endJobs ends what a failed test has left at work, or one that is about what goes on and on: each job is a process that outlives
// who has started it.
func (m *fakeMachine) endJobs() {
	until(m.T, "no job is left", func() bool {
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		left := 0
		for _, file := range lines {
			text, _ := os.ReadFile(file)
			words := strings.Split(string(text), "\x00")
			if len(words) < 3 || words[1] != "job" && words[1] != "tidy" || !strings.HasPrefix(words[2], m.Dir+"/") {
				continue
			}
			left++
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return err == nil && left == 0
	})
}

// calls is what was run, in order.
func (m *fakeMachine) calls() []string {
	m.T.Helper()
	text := strings.TrimSpace(m.Read("/calls"))
	for _, p := range []nix.StorePath{oldSystem, newSystem, oldBundle, newBundle} {
		text = strings.ReplaceAll(text, string(p), p.Hash()[:1]+"-"+p.Name())
		text = strings.ReplaceAll(text, p.Base(), p.Hash()[:1]+"-"+p.Name())
	}
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// ferry is the other side of an agent.
type ferry struct {
	t     *testing.T
	in    *io.PipeWriter
	wire  *agent.Wire
	hello agent.Hello
	ended chan error
	id    int
	beats atomic.Int64 // frames that say that the agent is there
}

// beatCounter counts the frames, which come one a write, that say that the agent is there.
type beatCounter struct {
	io.Writer
	beats *atomic.Int64
}

func (c beatCounter) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0] == byte(agent.FrameAlive) {
		c.beats.Add(1)
	}
	return c.Writer.Write(p)
}

// on puts the agent on the machine.
func (m *fakeMachine) on(opts Options) Options {
	m.T.Helper()
	opts.root = m.Root
	if opts.Program == "" {
		var err error
		if opts.Program, err = os.Executable(); err != nil {
			m.T.Fatal(err)
		}
	}
	return opts
}

// connect starts an agent on the machine and reads its hello.
func (m *fakeMachine) connect(opts Options) *ferry {
	m.T.Helper()
	opts = m.on(opts)
	in, far := io.Pipe()
	near, out := io.Pipe()
	f := &ferry{t: m.T, in: far, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		err := Serve(ctx, in, beatCounter{out, &f.beats}, opts)
		_ = out.CloseWithError(io.EOF)
		_ = in.CloseWithError(io.ErrClosedPipe)
		f.ended <- err
	}()
	m.T.Cleanup(func() {
		_ = f.in.Close()
		_ = near.Close()
		cancel()
		select {
		case <-f.ended:
		case <-time.After(20 * time.Second):
			m.T.Error("the agent goes on")
		}
	})
	magic := make([]byte, len(agent.Magic)+1)
	if _, err := io.ReadFull(near, magic); err != nil || string(magic) != agent.Magic+"\n" {
		m.T.Fatalf("it says %q, %v", magic, err)
	}
	f.wire = agent.NewWire(near, far)
	kind, payload, err := f.wire.Read()
	if err != nil || kind != agent.FrameHello {
		m.T.Fatalf("frame %q, %v", kind, err)
	}
	if err := json.Unmarshal(payload, &f.hello); err != nil {
		m.T.Fatal(err)
	}
	return f
}

// locked are the options of a deployment.
func locked(session string) Options {
	return Options{Who: "alice@here", Session: session, Lock: true, leaving: time.Millisecond}
}

func (f *ferry) send(r agent.Request) {
	f.t.Helper()
	f.id++
	r.ID = f.id
	if err := f.wire.WriteJSON(agent.FrameRequest, r); err != nil {
		f.t.Fatal(err)
	}
}

// answer reads until the response.
func (f *ferry) answer() (agent.Response, string) {
	f.t.Helper()
	var log strings.Builder
	for {
		kind, payload, err := f.wire.Read()
		if err != nil {
			f.t.Fatalf("read the answer: %v", err)
		}
		switch kind {
		case agent.FrameLog:
			log.Write(payload)
		case agent.FrameResponse:
			var r agent.Response
			if err := json.Unmarshal(payload, &r); err != nil {
				f.t.Fatal(err)
			}
			if r.ID != f.id {
				f.t.Fatalf("an answer to %d instead of %d", r.ID, f.id)
			}
			return r, log.String()
		}
	}
}

func (f *ferry) ask(r agent.Request) (agent.Response, string) {
	f.t.Helper()
	f.send(r)
	return f.answer()
}

const job = "deployment1"

func activation(action string) agent.Request {
	return agent.Request{Method: agent.MethodActivate, Job: job, Toplevel: newSystem, Bundle: newBundle, Action: action}
}

func commitment(action string) agent.Request {
	return agent.Request{Method: agent.MethodCommit, Job: job, Toplevel: newSystem, Bundle: newBundle, Action: action}
}

// Where the agent keeps what the next one has to find, also one of another version.
const (
	parkedFolder = "/run/ferry/kept"
	bootMark     = "/run/ferry/boot"
	arrivingFile = "/nix/var/nix/ferry-arriving.json"
	// parkedEnd is what the next agent says to who keeps a path that nobody wants.
	parkedEnd = 'e'
)
