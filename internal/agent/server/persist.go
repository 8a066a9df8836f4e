package server

import (
	"os"
	"path"
	"path/filepath"
	"slices"

	"ferry/internal/agent"

	"golang.org/x/sys/unix"
)

// lasting are the folders that ferry takes for granted to outlive a reboot. The link in /etc/nixos is none: the bundle is kept
// without it.
var lasting = []string{"/nix/var/nix", agent.Folder, filepath.Dir(journalFile)}

// emptied are those of them that a reboot empties, as far as that can be told: they are in memory, or something was deployed and
// the journal of it is gone, as on a file system that is rolled back at each boot.
func (r root) emptied() []string {
	var found []string
	for _, folder := range lasting {
		lost := r.inMemory(folder)
		if folder == filepath.Dir(journalFile) && r.exists(filepath.Join(gcRoots, previousSystem)) && !r.exists(journalFile) && !r.exists(rotatedJournal) {
			lost = true
		}
		if lost {
			found = append(found, folder)
		}
	}
	return found
}

// inMemory tells whether what is written to a path is gone after a reboot, because its file system is in memory or what is
// written to it is.
func (r root) inMemory(p string) bool {
	on := r.mountOf(r.nearest(p))
	// Where that folder is not seen from here, nothing is known.
	if on.upper != "" && r.exists(on.upper) {
		on = r.mountOf(r.nearest(on.upper))
	}
	return slices.Contains([]string{"tmpfs", "ramfs", "rootfs"}, on.kind)
}

// nearest is p without links if it is there, else the deepest folder above it that is.
func (r root) nearest(p string) string {
	for ; p != "/"; p = path.Dir(p) {
		if resolved, found := newInspectedFiles(r).resolve(p); found == present {
			return resolved
		}
	}
	return p
}

// noLink says why currentConfiguration cannot be made; "" if it can, as far as that can be told without trying.
func (r root) noLink() string {
	folder := filepath.Dir(currentConfiguration)
	if to, err := os.Readlink(r.path(folder)); err == nil {
		if _, found := newInspectedFiles(r).resolve(folder); found == absent {
			return folder + " is a link to " + to + ", which is not there"
		}
	}
	at := r.nearest(folder)
	info, err := os.Stat(r.path(at))
	switch {
	case err == nil && !info.IsDir():
		return folder + " is no folder"
	case r.mountOf(at).readOnly:
		return at + " is mounted read-only"
	case r.immutable(at):
		return at + " has the attribute immutable"
	}
	return ""
}

// immutable tells whether a folder has the attribute that chattr +i gives. Linux before 4.11 does not say.
func (r root) immutable(folder string) bool {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, r.path(folder), 0, unix.STATX_BASIC_STATS, &stat)
	return err == nil && stat.Attributes&unix.STATX_ATTR_IMMUTABLE != 0
}
