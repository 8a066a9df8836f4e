package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
)

// children are this process's, by their program's name.
func children(t *testing.T, name string) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err == nil && strings.Contains(string(text), "("+name+") ") && strings.Contains(string(text), fmt.Sprintf(" %d ", os.Getpid())) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestANixStoreThatIsStoppedIsEnded stops it while something is asked of it, and in the middle of a ship: the agent goes on saying
// that it is at work, so nobody else would end that. The next request has another one.
func TestANixStoreThatIsStoppedIsEnded(t *testing.T) {
	m := newMachine(t)
	useRealNix(t, m)
	options := locked("s1")
	options.halted = 200 * time.Millisecond
	a, b := newItem(t, "a", "a"), newItem(t, "b", strings.Repeat("b", 8<<20))
	f := m.connect(options)
	stop := func() {
		t.Helper()
		if got := f.missing(a); len(got) != 1 {
			t.Errorf("missing: %q", got)
		}
		pids := children(t, "nix-store")
		if len(pids) != 1 {
			t.Fatalf("nix-store is %v", pids)
		}
		if err := syscall.Kill(pids[0], syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	const says = "nix-store was stopped (SIGSTOP) and not told to go on"
	stop()
	if r := f.request(agent.Request{Method: agent.MethodMissing}, compress(t, []byte(a.header.Path+"\n"))); r.Error == nil || !strings.Contains(r.Error.Text, says) {
		t.Errorf("a question: %+v", r.Error)
	}
	stop()
	if r := f.ship(compress(t, stream(t, true, b))); r.Error == nil || !strings.Contains(r.Error.Text, says) {
		t.Errorf("a ship: %+v", r.Error)
	}
	if r := f.ship(compress(t, stream(t, true, a, b))); r.Error != nil || r.Ship.Registered != 2 {
		t.Errorf("%+v, %v", r.Ship, r.Error)
	}
}

// TestANixStoreThatGoesOnIsLeftAlone stops one for a moment.
func TestANixStoreThatGoesOnIsLeftAlone(t *testing.T) {
	m := newMachine(t)
	useRealNix(t, m)
	options := locked("s1")
	options.halted = 3 * time.Second
	a := newItem(t, "a", "a")
	f := m.connect(options)
	f.missing(a)
	pids := children(t, "nix-store")
	if len(pids) != 1 {
		t.Fatalf("nix-store is %v", pids)
	}
	if err := syscall.Kill(pids[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Second, func() { _ = syscall.Kill(pids[0], syscall.SIGCONT) })
	if r := f.ship(compress(t, stream(t, true, a))); r.Error != nil {
		t.Errorf("%v", r.Error)
	}
	if now := children(t, "nix-store"); len(now) != 1 || now[0] != pids[0] {
		t.Errorf("nix-store is %v, and was %v", now, pids)
	}
}
