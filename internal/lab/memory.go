package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// limitMemory gives a machine that is about to boot by cmd so many bytes of memory, and no swap. What is cached of its
// files counts, and gives way.
func (r run) limitMemory(cmd *exec.Cmd, name string, bytes int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(r.scratch, &fs); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		return errors.New("limit memory: the machine's disk would be in memory too; set TMPDIR to a folder that is on a disk")
	}
	unified, legacy, err := r.memoryCgroup(name)
	if err != nil {
		return err
	}
	limit := []byte(strconv.FormatInt(bytes, 10))
	if legacy == "" {
		for _, dir := range []string{filepath.Dir(filepath.Dir(unified)), filepath.Dir(unified)} {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
				return fmt.Errorf("limit memory: %w", err)
			}
		}
		return errors.Join(os.WriteFile(filepath.Join(unified, "memory.max"), limit, 0), os.WriteFile(filepath.Join(unified, "memory.swap.max"), []byte("0"), 0))
	}
	if err := os.MkdirAll(legacy, 0o755); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(legacy, "memory.limit_in_bytes"), limit, 0); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	swap := filepath.Join(legacy, "memory.memsw.limit_in_bytes")
	if err := os.WriteFile(swap, limit, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("limit memory: %w", err)
	}
	// A process can be started in a cgroup of the unified hierarchy only. Here it joins before it becomes what it is.
	cmd.Args = slices.Concat([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(legacy, "cgroup.procs"), cmd.Path}, cmd.Args[1:])
	cmd.Path = "/bin/sh"
	return nil
}

// memoryCgroup is where a machine's memory is counted: in its cgroup of the unified hierarchy, or else in legacy.
func (r run) memoryCgroup(name string) (unified, legacy string, err error) {
	mount, others, err := cgroupMounts()
	if err != nil {
		return "", "", err
	}
	for _, other := range others {
		if _, err := os.Stat(filepath.Join(other, "memory.limit_in_bytes")); err == nil {
			return "", filepath.Join(other, r.id(), name), nil
		}
	}
	return filepath.Join(mount, r.id(), name), "", nil
}

// OOMKills is how many processes the kernel has killed because the machine's memory was full. It is for machines with
// limited memory.
func (t *Target) OOMKills() (int, error) {
	unified, legacy, err := t.run.memoryCgroup(t.name)
	if err != nil {
		return 0, err
	}
	file := filepath.Join(unified, "memory.events")
	if legacy != "" {
		file = filepath.Join(legacy, "memory.oom_control")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var n int
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s does not count", file)
}
