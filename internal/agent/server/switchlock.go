package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// switchLock is what NixOS's own switch-to-configuration holds while it works. Older ones have none.
const switchLock = "/run/nixos/switch-to-configuration.lock"

// stcLockWait is how long somebody else's switch is waited for.
const stcLockWait = 10 * time.Second

// awaitSwitchLock waits until nobody else switches, and says who still does when the time is up.
func awaitSwitchLock(ctx context.Context, r root, wait time.Duration) string {
	for start := time.Now(); ; {
		holder := switchLockHolder(r)
		if holder == "" || time.Since(start) > wait || ctx.Err() != nil {
			return holder
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// switchLockHolder describes the process that holds switchLock; "" if it is free.
func switchLockHolder(r root) string {
	file, err := os.Open(r.path(switchLock))
	if err != nil {
		return ""
	}
	defer file.Close()
	if !errors.Is(syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		return ""
	}
	info, err := file.Stat()
	if err != nil {
		return "an unknown process"
	}
	inode := ""
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = strconv.FormatUint(stat.Ino, 10)
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return "an unknown process"
	}
	return lockHolder(string(locks), inode)
}

// lockHolder finds the holder of a lock on the file with the inode in what /proc/locks says (see proc_locks(5)).
func lockHolder(locks, inode string) string {
	for line := range strings.Lines(locks) {
		// 1: FLOCK  ADVISORY  WRITE 1234 00:19:567 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		if parts := strings.Split(f[5], ":"); parts[len(parts)-1] != inode {
			continue
		}
		pid, err := strconv.Atoi(f[4])
		if err != nil || pid <= 0 {
			break
		}
		return fmt.Sprintf("process %d (%s)", pid, commandOf(pid))
	}
	return "an unknown process"
}

// commandOf is the beginning of a process's command line.
func commandOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return "gone"
	}
	line := strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
	if len(line) > 120 {
		line = line[:120] + "…"
	}
	return line
}
