package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ferry/internal/lab"
)

// tool is a way to deploy: what a person types, as one script.
type tool struct {
	name   string
	script string // $0 is nixpkgs, $1 the host
}

// The tools that are measured. Those by hand make the same bundle as ferry, from the default.nix that ferry abandon writes
// (see [site.byHand]), but for the last one, which ships the system and keeps its configuration and nixpkgs here.
const (
	byFerry    = "ferry"
	byClosure  = "nix-copy-closure"
	byNixCopy  = "nix copy"
	systemOnly = "nix-copy-closure, system alone"
)

const (
	bundling = `bundle=$(nix-build --no-out-link ../by-hand --arg source 'builtins.path { path = ./.; name = "source"; }') && `
	// switching is how they end.
	switching = `ssh "root@$1" sudo "$bundle/nixos-rebuild-switch" switch`
)

var tools = []tool{
	{byFerry, `ferry deploy`},
	{byClosure, bundling + `nix-copy-closure --to "root@$1" "$bundle" && ` + switching},
	{byNixCopy, bundling + `nix --extra-experimental-features nix-command copy --no-check-sigs --to "ssh-ng://root@$1" "$bundle" && ` + switching},
	{systemOnly, `system=$(nix-build --no-out-link "$0/nixos" -A system --arg configuration ./configuration.nix) &&
		nix-copy-closure --to "root@$1" "$system" &&
		ssh "root@$1" "nix-env -p /nix/var/nix/profiles/system --set $system && sudo $system/bin/switch-to-configuration switch"`},
}

// figures are what one deployment cost.
type figures struct {
	wall        time.Duration
	near, far   time.Duration // CPU time of the building machine and of the target
	memory      int64         // largest resident size in bytes of a process that works on the target
	up, down    int64         // bytes over the wire
	connections int
	turns       int
}

func (s *site) measure(tool tool) figures {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Minute)
	defer cancel()
	before, cpu := s.relay.Traffic(), s.targetCPU()
	peak := watchMemory()
	cmd := s.builder.Command(ctx, "sh", "-c", `cd "$2" && `+tool.script, s.nixpkgs, host, s.path("project"))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	start := time.Now()
	err := cmd.Run()
	f := figures{wall: time.Since(start), memory: peak()}
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", tool.name, err, output.String())
	}
	after := s.relay.Traffic()
	f.near = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	f.far = s.targetCPU() - cpu
	f.up, f.down = after.Up-before.Up, after.Down-before.Down
	f.connections, f.turns = after.Connections-before.Connections, after.Turns-before.Turns
	return f
}

// targetCPU is the CPU time that the target has used since it was made.
func (s *site) targetCPU() time.Duration {
	s.t.Helper()
	text, err := s.target.Output(s.t.Context(), "cat", "/sys/fs/cgroup/cpu.stat")
	s.ok(err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			s.ok(err)
			return time.Duration(n) * time.Microsecond
		}
	}
	s.t.Fatalf("no usage_usec in the target's cpu.stat:\n%s", text)
	return 0
}

// watchMemory looks for the processes that receive paths on a target until the function it returns is called, which gives
// the largest resident size any of them had.
func watchMemory() func() int64 {
	quit, result := make(chan struct{}), make(chan int64)
	here, _ := os.Readlink("/proc/self/ns/pid")
	go func() {
		var peak int64
		for {
			select {
			case <-quit:
				result <- peak
				return
			case <-time.After(20 * time.Millisecond):
				peak = max(peak, largest(here))
			}
		}
	}()
	return func() int64 {
		close(quit)
		return <-result
	}
}

func largest(here string) int64 {
	var peak int64
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range entries {
		name, err := os.ReadFile(dir + "/comm")
		if err != nil || !strings.HasPrefix(string(name), "nix-") && !strings.HasPrefix(string(name), "agent-") {
			continue
		}
		if space, err := os.Readlink(dir + "/ns/pid"); err != nil || space == here {
			continue
		}
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			var kib int64
			if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
				peak = max(peak, kib<<10)
			}
		}
	}
	return peak
}

// median takes each figure's median.
func median(all []figures) figures {
	of := func(get func(figures) int64) int64 {
		values := make([]int64, len(all))
		for i, f := range all {
			values[i] = get(f)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return figures{
		wall:        time.Duration(of(func(f figures) int64 { return int64(f.wall) })),
		near:        time.Duration(of(func(f figures) int64 { return int64(f.near) })),
		far:         time.Duration(of(func(f figures) int64 { return int64(f.far) })),
		memory:      of(func(f figures) int64 { return f.memory }),
		up:          of(func(f figures) int64 { return f.up }),
		down:        of(func(f figures) int64 { return f.down }),
		connections: int(of(func(f figures) int64 { return int64(f.connections) })),
		turns:       int(of(func(f figures) int64 { return int64(f.turns) })),
	}
}

func addrPort(t *lab.Target) netip.AddrPort { return netip.AddrPortFrom(t.Addr(), 22) }
