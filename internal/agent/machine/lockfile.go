package machine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// UsedByRoot describes the process of root's that uses a lock file, under its name or after another file has taken its place; ""
// if there is none. Where a file can be read by everybody, everybody can hold a lock on it, and so nothing that /proc/locks
// says of it is of use: it has the number of a process that may be another one by now, or one that a user has handed an open
// file to. What counts is who has it open, and how: only root can write to it, as every program does that switches a NixOS.
// Where writers is true, one that has it open for writing counts without having the lock: it waits for that, or is about to.
func UsedByRoot(name string, writers bool) string {
	folders, err := filepath.Glob("/proc/[0-9]*/fd")
	if err != nil {
		return ""
	}
	for _, folder := range folders {
		process := filepath.Dir(folder)
		pid, err := strconv.Atoi(filepath.Base(process))
		if err != nil || !isRoots(process) {
			continue
		}
		files, err := os.ReadDir(folder)
		if err != nil {
			continue
		}
		for _, file := range files {
			// Not by a stat: that of a file in a user's own file system may never end.
			to, err := os.Readlink(filepath.Join(folder, file.Name()))
			replaced := to == name+" (deleted)"
			if err != nil || to != name && !replaced {
				continue
			}
			locked, writes := describeFile(filepath.Join(process, "fdinfo", file.Name()))
			if locked && (writes || !isElevated(process)) || writes && (writers || replaced) {
				return fmt.Sprintf("process %d (%s)", pid, commandOf(pid))
			}
		}
	}
	return ""
}

// isRoots tells whether a process is root's, and was by no set-user-ID program only in part.
func isRoots(process string) bool {
	text, err := os.ReadFile(filepath.Join(process, "status"))
	if err != nil {
		return false
	}
	root := strconv.Itoa(os.Geteuid())
	for line := range strings.Lines(string(text)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			return strings.Join(strings.Fields(ids), " ") == strings.Join([]string{root, root, root, root}, " ")
		}
	}
	return false
}

// describeFile reads what the kernel says of an open file (see proc_pid_fdinfo(5)): whether it holds a lock (flock), and
// whether it can be written to.
func describeFile(info string) (locked, writes bool) {
	text, err := os.ReadFile(info)
	if err != nil {
		return false, false
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "flags":
			flags, err := strconv.ParseUint(strings.TrimSpace(value), 8, 64)
			writes = err == nil && flags&uint64(os.O_WRONLY|os.O_RDWR) != 0
		case "lock":
			locked = locked || strings.Contains(value, "FLOCK") && !strings.Contains(value, "->")
		}
	}
	return locked, writes
}

// isElevated tells whether a process is a set-user-ID program, or was started by one before that had become root in full: a user
// may have started it, sudo for one, with files that they have opened, and let it wait for a password.
func isElevated(process string) bool {
	text, err := os.ReadFile(filepath.Join(process, "auxv"))
	if err != nil {
		return false
	}
	for _, size := range []int{8, 4} {
		if secure, ok := auxiliary(text, size); ok {
			return secure
		}
	}
	return false
}

// auxiliary reads the kernel's auxiliary vector with words of size bytes (see getauxval(3)); ok tells whether it has such.
func auxiliary(text []byte, size int) (secure, ok bool) {
	const pageSize, secureMode = 6, 23 // AT_PAGESZ, AT_SECURE
	word := func(at int) uint64 {
		if size == 4 {
			return uint64(binary.NativeEndian.Uint32(text[at:]))
		}
		return binary.NativeEndian.Uint64(text[at:])
	}
	for at := 0; at+2*size <= len(text); at += 2 * size {
		switch value := word(at + size); word(at) {
		case pageSize:
			ok = value >= 1<<10 && value <= 1<<20
		case secureMode:
			secure = value != 0
		}
	}
	return secure, ok
}

// IsPrivate tells whether a file is there, and is one that only root can open.
func IsPrivate(name string) bool {
	info, err := os.Lstat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 == 0 && OwnerOf(info) == os.Geteuid()
}

// IsFree tells whether nobody holds the lock on a file.
func IsFree(name string) bool {
	file, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer file.Close()
	free, err := TryLock(file)
	return free || err != nil
}

// ReplaceLock puts a new file that only root can open in the place of a lock's. What is there and is no file is left alone. Those
// who replace one wait for each other by the file turn: each would have a lock of its own.
func ReplaceLock(name, turn string) error {
	for _, folder := range []string{filepath.Dir(name), filepath.Dir(turn)} {
		if err := OwnFolder(folder, 0o755); err != nil {
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
		if free, _ := TryLock(old); free && IsPrivate(name) {
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

// TryLock takes the lock on a file if nobody else has it.
func TryLock(file *os.File) (free bool, err error) {
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take the lock: %w", err)
	}
	return true, nil
}

// Flock takes, shares or tries the lock on a file, as how says: see flock(2).
func Flock(file *os.File, how int) error { return syscall.Flock(int(file.Fd()), how) }

// IsCurrent tells whether a file is the one that has its name: another one may have taken its place since it was opened.
func IsCurrent(file *os.File) bool {
	mine, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(file.Name())
	return err == nil && os.SameFile(mine, there)
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

// LockHolder is the process that holds a flock on a file, as /proc/locks tells everyone; 0: none does.
func (r Root) LockHolder(name string) int {
	var st syscall.Stat_t
	if syscall.Stat(r.Path(name), &st) != nil {
		return 0
	}
	file, err := os.Open(r.Path("/proc/locks"))
	if err != nil {
		return 0
	}
	defer file.Close()
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 00:1a:1234 0 EOF; those that wait for it have "->" before the kind.
		fields := strings.Fields(scanner.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[3] != "WRITE" || fields[5] != inode {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 && pid != os.Getpid() {
			return pid
		}
	}
	return 0
}
