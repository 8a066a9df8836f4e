package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// switchLock is what NixOS's own switch-to-configuration holds while it works. Older ones have none. It makes the file so that
// everybody can open it, and hold its lock: today's then refuses (exit status 11), and earlier ones wait for ever.
const switchLock = "/run/nixos/switch-to-configuration.lock"

// turnFile is held by who replaces a lock's file.
const turnFile = jobsFolder + "/turn"

// stcLockWait is how long somebody else's switch is waited for.
const stcLockWait = 10 * time.Second

// awaitSwitchLock waits until nobody else of root's switches, and says who still does when the time is up. After that only root
// can open the lock's file: it is replaced if it was one that others could have open. Who holds it without being root is not
// waited for.
func awaitSwitchLock(ctx context.Context, r root, wait time.Duration) string {
	name := r.path(switchLock)
	for start := time.Now(); ; {
		private := isPrivate(name)
		holder := rootUses(name, !private)
		if holder == "" {
			if private && isFree(name) {
				return ""
			}
			if err := replaceLock(name, r.path(turnFile)); err != nil {
				// switch-to-configuration will say what is wrong with its lock.
				return ""
			}
			// Somebody may have opened the one that was there a moment ago.
			if holder = rootUses(name, false); holder == "" {
				return ""
			}
		}
		if time.Since(start) > wait || ctx.Err() != nil {
			return holder
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// isPrivate tells whether a file is there, and is one that only root can open.
func isPrivate(name string) bool {
	info, err := os.Lstat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 == 0 && ownerOf(info) == os.Geteuid()
}

// isFree tells whether nobody holds the lock on a file.
func isFree(name string) bool {
	file, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer file.Close()
	free, err := tryLock(file)
	return free || err != nil
}

// replaceLock puts a new file that only root can open in the place of a lock's. What is there and is no file is left alone. Those
// who replace one wait for each other by the file turn: each would have a lock of its own.
func replaceLock(name, turn string) error {
	for _, folder := range []string{filepath.Dir(name), filepath.Dir(turn)} {
		if err := ownFolder(folder, 0o755); err != nil {
			return err
		}
	}
	mine, err := os.OpenFile(turn, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer mine.Close()
	if err := syscall.Flock(int(mine.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	old, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil {
		defer old.Close()
		if info, err := old.Stat(); err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no file", name)
		}
		// Held until the new one is there: who has just opened the old one does not get it.
		if free, _ := tryLock(old); free && isPrivate(name) {
			return nil
		}
	}
	next := name + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	return os.Rename(next, name)
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
