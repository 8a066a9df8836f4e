package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupMounts lists where cgroup hierarchies are mounted: the unified one, and those of version 1.
func cgroupMounts() (unified string, legacy []string, err error) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 3:
		case f[2] == "cgroup2" && unified == "":
			unified = f[1]
		case f[2] == "cgroup":
			legacy = append(legacy, f[1])
		}
	}
	return unified, legacy, nil
}

// makeCgroup makes a cgroup for one machine, in which its system manager has its own. Two managers in one cgroup would
// move each other's processes.
func (r run) makeCgroup(name string) (string, error) {
	unified, _, err := cgroupMounts()
	if err != nil {
		return "", fmt.Errorf("cgroup: %w", err)
	}
	if unified == "" {
		return "", errors.New("cgroup: no unified hierarchy is mounted on this machine")
	}
	dir := filepath.Join(unified, r.id(), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cgroup: %w", err)
	}
	return dir, nil
}

// removeCgroups removes the run's cgroups from every hierarchy; nspawn makes some in the one of systemd's own name too.
func (r run) removeCgroups() error {
	unified, legacy, err := cgroupMounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, mount := range append(legacy, unified) {
		errs = append(errs, removeCgroup(filepath.Join(mount, r.id())))
	}
	return errors.Join(errs...)
}

// removeCgroup removes a cgroup and those below it. Its processes have ended or are about to.
func removeCgroup(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		// A cgroup stays busy for a moment after its last process has been waited for.
		for range 100 {
			err = os.Remove(dir)
			if !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return nil
}
