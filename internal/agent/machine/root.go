package machine

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ferry/internal/disk"
	"ferry/internal/nix"

	"golang.org/x/sys/unix"
)

// Root is where the machine's files are looked up: "" on a target, a folder in a test.
type Root struct {
	Dir  string
	Disk disk.Disk
}

// Path is where a file of the machine is found.
func (r Root) Path(p string) string { return r.Dir + p }

// Line is the first line of a file, without blanks around it; "" if it cannot be read.
func (r Root) Line(p string) string {
	data, err := os.ReadFile(r.Path(p))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

// maxText is how much of a file of the running system is told, in bytes.
const maxText = 64 << 10

// Text is the content of a file of a system, or "" if there is none, or too much of it.
func (r Root) Text(p string) string {
	text, _ := NewFiles(r).Read(p, StoreFolder)
	if len(text) > maxText {
		return ""
	}
	return text
}

// StorePath is the store path that a chain of links ends at, or "" if it ends elsewhere or nowhere.
func (r Root) StorePath(p string) string {
	for range 40 {
		if _, err := nix.ParseStorePath(p); err == nil && r.Exists(p) {
			return p
		}
		to, err := os.Readlink(r.Path(p))
		if err != nil {
			return ""
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(p), to)
		}
		p = filepath.Clean(to)
	}
	return ""
}

// Exists tells whether there is something at a path, be it a link that leads nowhere.
func (r Root) Exists(p string) bool {
	_, err := os.Lstat(r.Path(p))
	return err == nil
}

// Head is the beginning of a small file.
func (r Root) Head(name string) []byte { return r.Beginning(name, 64<<10) }

// Beginning is at most limit bytes of a file.
func (r Root) Beginning(name string, limit int64) []byte {
	file, err := os.Open(r.Path(name))
	if err != nil {
		return nil
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, limit))
	if err != nil {
		return nil
	}
	return text
}

// Modified is when a link was made, in seconds since 1970; 0 if there is none.
func (r Root) Modified(link string) int64 {
	info, err := os.Lstat(r.Path(link))
	if err != nil {
		return 0
	}
	return info.ModTime().Unix()
}

// BootID names the present boot of the kernel.
func (r Root) BootID() string { return r.Line("/proc/sys/kernel/random/boot_id") }

// RemoveLink removes what is there of a link or a file.
func RemoveLink(link string) error {
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// SystemdRuns is there where PID 1 is systemd.
const SystemdRuns = "/run/systemd/system"

// RunFolder holds what ferry needs while the machine runs, such as a folder for each job. A reboot empties it.
const RunFolder = "/run/ferry"

// Uptime is the machine's monotonic clock in milliseconds. Nobody sets it, and all processes see the same one.
func Uptime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return t.Nano() / int64(time.Millisecond)
}

// GCRoots is where ferry keeps store paths from being collected: a bundle that was shipped and is not committed, the committed one,
// and what a rollback needs.
const GCRoots = "/nix/var/nix/gcroots/ferry"

// Keep makes a GC root of ferry's own, by name, that is a link to a store path: nothing else is one for every Nix.
func (r Root) Keep(name, target string) error {
	if err := r.Disk.MkdirAll(r.Path(GCRoots), 0o755); err != nil {
		return err
	}
	return r.Disk.Link(target, r.Path(filepath.Join(GCRoots, name)))
}

// Release removes one of ferry's GC roots.
func (r Root) Release(name string) error {
	return RemoveLink(r.Path(filepath.Join(GCRoots, name)))
}
