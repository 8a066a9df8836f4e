package server

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// rootUses describes the process of root's that uses a lock file, under its name or after another file has taken its place; ""
// if there is none. Where a file can be read by everybody, everybody can hold a lock on it, and so nothing that /proc/locks
// says of it is of use: it has the number of a process that may be another one by now, or one that a user has handed an open
// file to. What counts is who has it open, and how: only root can write to it, as every program does that switches a NixOS.
// Where writers is true, one that has it open for writing counts without having the lock: it waits for that, or is about to.
func rootUses(name string, writers bool) string {
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
