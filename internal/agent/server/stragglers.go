package server

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// unitName is the transient unit that a job runs in.
func unitName(dir string) string { return "ferry-" + filepath.Base(dir) + ".service" }

// endStragglers kills everything that this job has started and that is still there: what an activation that was ended has
// left behind, in whatever session it is. A job has a control group of its own; where it has none, nothing is killed.
func endStragglers() {
	for _, procs := range ownCgroups() {
		if strings.HasPrefix(filepath.Base(filepath.Dir(procs)), "ferry-") {
			killAll(procs)
		}
	}
}

// endStragglersOf kills what a killed job has left in its unit's control group.
func endStragglersOf(unit string) {
	for _, procs := range ownCgroups() {
		killAll(filepath.Join(filepath.Dir(filepath.Dir(procs)), unit, "cgroup.procs"))
	}
}

// ownCgroups are the lists of processes of the control groups that systemd has put this process into: of the unified
// hierarchy, and of systemd's own where there are several (see cgroups(7)).
func ownCgroups() []string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	var lists []string
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || !strings.HasSuffix(fields[2], ".service") {
			continue
		}
		mounts := []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
		if fields[1] == "name=systemd" {
			mounts = []string{"/sys/fs/cgroup/systemd"}
		} else if fields[1] != "" {
			continue
		}
		for _, mount := range mounts {
			list := filepath.Join(mount, fields[2], "cgroup.procs")
			if _, err := os.Stat(list); err == nil {
				lists = append(lists, list)
			}
		}
	}
	return lists
}

// killAll kills the processes in a list but this one, until no more come.
func killAll(list string) {
	for range 50 {
		text, err := os.ReadFile(list)
		if err != nil {
			return
		}
		left := 0
		for line := range strings.Lines(string(text)) {
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil || pid <= 1 || pid == os.Getpid() {
				continue
			}
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				left++
			}
		}
		if left == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
