package inventory

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// EvaluateSideBySide tells how many processes of Nix evaluate side by side at most; it is one before. What memory is free is shared out
// among them.
func (inv *Inventory) EvaluateSideBySide(processes int) { inv.evaluators.most.Store(int64(processes)) }

// heap is what an evaluation's heap begins with, see [nix.Expression].
func (inv *Inventory) heap() int64 {
	root := os.DirFS("/")
	if !mayReserve(root) {
		return 0
	}
	return initialHeap(freeMemory(root), inv.evaluators.most.Load())
}

// Nix's own first heap is 384 MiB. A NixOS system takes more than twice that in all, and up to a tenth of its evaluation's time goes into
// collecting what of it is garbage. Less than leastHeap saves nothing with every Nix, more than mostHeap little with any.
const (
	leastHeap = 1 << 30
	mostHeap  = 2 << 30
)

// initialHeap is what an evaluation's heap begins with where so much memory is free and so many go on side by side; 0 where Nix is
// left to choose. Half of what is free stays so: no evaluation has to wait for memory because another one had a larger heap.
func initialHeap(free, evaluators int64) int64 {
	share := free / 2 / max(evaluators, 1)
	if share < leastHeap {
		return 0
	}
	return min(share, mostHeap)
}

// mayReserve tells whether memory that is reserved and not used yet costs nothing. Where it does, Nix may not start with a large heap.
func mayReserve(root fs.FS) bool {
	// Since Linux 4.7 the limit of data counts what is reserved as well.
	for _, resource := range []int{syscall.RLIMIT_AS, syscall.RLIMIT_DATA} {
		var limit syscall.Rlimit
		if syscall.Getrlimit(resource, &limit) != nil || limit.Cur < math.MaxInt64 {
			return false
		}
	}
	policy, err := fs.ReadFile(root, "proc/sys/vm/overcommit_memory")
	return err == nil && strings.TrimSpace(string(policy)) != "2"
}

// FreeMemory is how much memory could be taken without swapping, in bytes: what the kernel says of this machine, or what is left to
// the control groups that this process is in. It is 0 where the kernel does not say.
func FreeMemory() int64 { return freeMemory(os.DirFS("/")) }

func freeMemory(root fs.FS) int64 {
	free, known := numberAfter(root, "proc/meminfo", "MemAvailable:")
	if !known {
		return 0
	}
	free <<= 10
	own, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return free
	}
	for line := range strings.Lines(string(own)) {
		number, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		switch {
		case number == "0" && controllers == "":
			free = min(free, cgroup2.free(root, group))
		case controllers == "memory":
			free = min(free, cgroup1.free(root, group))
		}
	}
	// Nothing at all is still known.
	return max(free, 1)
}

// memoryGroups is where a version of control groups has what a group may use and what it does; cache is what of that can be
// taken back.
type memoryGroups struct{ folder, limit, used, cache string }

var (
	cgroup1 = memoryGroups{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
	cgroup2 = memoryGroups{"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"}
)

// free is what a group and those above it leave, in bytes. In a container the folder may be the group's own already, and the name
// one that is only known outside: then only the folder counts.
func (m memoryGroups) free(root fs.FS, group string) int64 {
	free := int64(math.MaxInt64)
	for below := path.Clean("/" + group); ; below = path.Dir(below) {
		folder := m.folder + strings.TrimSuffix(below, "/")
		limit, limited := numberAfter(root, folder+"/"+m.limit, "")
		used, known := numberAfter(root, folder+"/"+m.used, "")
		if limited && known {
			cache, _ := numberAfter(root, folder+"/memory.stat", m.cache+" ")
			free = min(free, max(limit-max(used-cache, 0), 0))
		}
		if below == "/" {
			return free
		}
	}
}

// numberAfter is the number after the first prefix that begins a line of a file.
func numberAfter(root fs.FS, file, prefix string) (n int64, found bool) {
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, false
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		rest, begins := strings.CutPrefix(lines.Text(), prefix)
		if words := strings.Fields(rest); begins && len(words) > 0 {
			n, err := strconv.ParseInt(words[0], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
