package inventory

import (
	"bytes"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"ferry/internal/nix"
)

// TestAHeapIsLargeOnlyWhereThereIsRoom locks that memory that others may need is left alone, and that Nix's own choice is not made
// smaller.
func TestAHeapIsLargeOnlyWhereThereIsRoom(t *testing.T) {
	const mb, gb = 1 << 20, 1 << 30
	for title, c := range map[string]struct{ free, evaluators, want int64 }{
		"plenty":                   {64 * gb, 2, 2 * gb},
		"one node":                 {2 * gb, 0, gb},
		"shared by two":            {4 * gb, 2, gb},
		"just enough":              {16 * gb, 8, gb},
		"not enough for each":      {16*gb - 1, 8, 0},
		"little memory":            {900 * mb, 1, 0},
		"nothing is known of it":   {0, 2, 0},
		"nothing is left of it":    {1, 1, 0},
		"many cores, little of it": {16 * gb, 64, 0},
	} {
		if got := initialHeap(c.free, c.evaluators); got != c.want {
			t.Errorf("%s: %d MiB, want %d", title, got/mb, c.want/mb)
		}
	}
}

// TestFreeMemoryIsWhatTheControlGroupsLeave locks that a container's limit counts, wherever it is set.
func TestFreeMemoryIsWhatTheControlGroupsLeave(t *testing.T) {
	const (
		machine = "MemTotal:       8388608 kB\nMemAvailable:    4194304 kB\nSwapTotal: 0 kB\n"
		version = "0::/user.slice/a.scope\n"
		former  = "9:name=systemd:/\n4:memory:/docker/abc\n0::/\n"
		gb      = 1 << 30
	)
	for title, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no groups":          {map[string]string{"proc/meminfo": machine}, 4 * gb},
		"nothing is known":   {map[string]string{"proc/meminfo": "MemTotal: 8388608 kB\n", "proc/self/cgroup": version}, 0},
		"no kernel's folder": {nil, 0},
		"no limit": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": version,
			"sys/fs/cgroup/user.slice/a.scope/memory.max": "max\n", "sys/fs/cgroup/user.slice/a.scope/memory.current": "1000\n",
		}, 4 * gb},
		"a limit": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": version,
			"sys/fs/cgroup/user.slice/a.scope/memory.max": "3221225472\n", "sys/fs/cgroup/user.slice/a.scope/memory.current": "2147483648\n",
		}, gb},
		"the cache can be taken back": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": version,
			"sys/fs/cgroup/user.slice/a.scope/memory.max": "3221225472\n", "sys/fs/cgroup/user.slice/a.scope/memory.current": "2147483648\n",
			"sys/fs/cgroup/user.slice/a.scope/memory.stat": "anon 1\ninactive_file 1073741824\nactive_file 5\n",
		}, 2 * gb},
		"a limit of a group above": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": version,
			"sys/fs/cgroup/user.slice/a.scope/memory.max": "max\n", "sys/fs/cgroup/user.slice/a.scope/memory.current": "1000\n",
			"sys/fs/cgroup/user.slice/memory.max": "2147483648\n", "sys/fs/cgroup/user.slice/memory.current": "1073741824\n",
		}, gb},
		"a container's own folder": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "0::/../../elsewhere\n",
			"sys/fs/cgroup/memory.max": "2147483648\n", "sys/fs/cgroup/memory.current": "1073741824\n",
		}, gb},
		"the former version": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": former,
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "2147483648\n", "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/docker/abc/memory.stat": "cache 7\ntotal_inactive_file 536870912\n",
		}, gb + gb/2},
		"the former version without a limit": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": former,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "4096\n",
			"sys/fs/cgroup/memory/memory.stat": "total_inactive_file 8192\n",
		}, 4 * gb},
		"used up": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": version,
			"sys/fs/cgroup/memory.max": "1073741824\n", "sys/fs/cgroup/memory.current": "1073745920\n",
		}, 1},
	} {
		root := fstest.MapFS{}
		for name, text := range c.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := freeMemory(root); got != c.want {
			t.Errorf("%s: %d, want %d", title, got, c.want)
		}
	}
	if free := FreeMemory(); free < 1<<20 {
		t.Errorf("this machine has %d bytes of memory free", free)
	}
}

// TestNoLargeHeapWhereReservingCosts locks that Nix is not made to fail at its start.
func TestNoLargeHeapWhereReservingCosts(t *testing.T) {
	for policy, want := range map[string]bool{"0\n": true, "1\n": true, "2\n": false, "": false} {
		root := fstest.MapFS{}
		if policy != "" {
			root["proc/sys/vm/overcommit_memory"] = &fstest.MapFile{Data: []byte(policy)}
		}
		if got := mayReserve(root); got != want {
			t.Errorf("overcommit_memory %q: %t, want %t", policy, got, want)
		}
	}
	// Limits that nothing here comes near.
	for name, resource := range map[string]int{"ulimit -v": syscall.RLIMIT_AS, "ulimit -d": syscall.RLIMIT_DATA} {
		var before syscall.Rlimit
		if err := syscall.Getrlimit(resource, &before); err != nil {
			t.Fatal(err)
		}
		limited := syscall.Rlimit{Cur: min(1<<46, before.Max), Max: before.Max}
		if err := syscall.Setrlimit(resource, &limited); err != nil {
			t.Fatal(err)
		}
		got := mayReserve(fstest.MapFS{"proc/sys/vm/overcommit_memory": {Data: []byte("0\n")}})
		if err := syscall.Setrlimit(resource, &before); err != nil {
			t.Fatal(err)
		}
		if got {
			t.Errorf("%s: Nix may be started with a heap above the limit", name)
		}
	}
}

// TestANodesEvaluationHasItsShareOfMemory locks that the heap reaches Nix, that it depends on how many evaluate, and that the
// cache does not.
func TestANodesEvaluationHasItsShareOfMemory(t *testing.T) {
	t.Setenv("GC_INITIAL_HEAP_SIZE", "")
	_ = os.Unsetenv("GC_INITIAL_HEAP_SIZE")
	inv, _ := open(t, configured(t, `"`+pinPath(t)+`"`, "impure = true;",
		`{ text = builtins.trace "heap <${builtins.getEnv "GC_INITIAL_HEAP_SIZE"}>" "hello"; }`), Options{})
	node, err := inv.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	said := func(evaluators int) string {
		t.Helper()
		inv.EvaluateSideBySide(evaluators)
		var log bytes.Buffer
		if _, err := inv.Evaluate(t.Context(), node, &log, nil); err != nil {
			t.Fatal(err)
		}
		return log.String()
	}
	if log := said(math.MaxInt); !strings.Contains(log, "heap <>") {
		t.Errorf("with too little memory for each, Nix was given a heap: %s", log)
	}
	if log := said(1); strings.Contains(log, "heap <>") != (inv.heap() == 0) {
		t.Errorf("alone, an evaluation should begin with %d bytes: %s", inv.heap(), log)
	}
	file := func(heap int64) string {
		return Cache{}.file(nix.Expression{Text: "1", Pure: true, Heap: heap}, nix.Version{}, "")
	}
	if file(0) != file(2<<30) {
		t.Error("an evaluation with another heap is not found in the cache")
	}
}
