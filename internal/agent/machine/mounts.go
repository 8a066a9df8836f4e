package machine

import (
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is where a file is.
type Mount struct {
	Source, Kind string
	Device       string // its number
	Folder       string // what of it is seen there
	ReadOnly     bool
	Upper        string // of an overlay: the folder that is written to
}

// MountOf finds the file system that a path is on. What is not known is empty.
func (r Root) MountOf(p string) Mount {
	var found Mount
	longest := -1
	for m, point := range r.Mounts() {
		if below := point == "/" || p == point || strings.HasPrefix(p, point+"/"); below && len(point) >= longest {
			found, longest = m, len(point)
		}
	}
	return found
}

// Mounts are the mounted file systems and where each is mounted, in the order of mounting.
func (r Root) Mounts() func(func(Mount, string) bool) {
	text, err := os.ReadFile(r.Path("/proc/self/mountinfo"))
	if err != nil {
		text = nil
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	return func(yield func(Mount, string) bool) {
		for line := range strings.Lines(string(text)) {
			before, after, found := strings.Cut(line, " - ")
			where, what := strings.Fields(before), strings.Fields(after)
			if !found || len(where) < 5 || len(what) < 2 {
				continue
			}
			m := Mount{Source: what[1], Kind: what[0], Device: where[2], Folder: unescape.Replace(where[3]), ReadOnly: len(where) > 5 && slices.Contains(strings.Split(where[5], ","), "ro")}
			for option := range strings.SplitSeq(strings.Join(what[2:], " "), ",") {
				m.ReadOnly = m.ReadOnly || option == "ro"
				if upper, is := strings.CutPrefix(option, "upperdir="); is {
					m.Upper = unescape.Replace(upper)
				}
			}
			if !yield(m, unescape.Replace(where[4])) {
				return
			}
		}
	}
}

// InMemory tells whether what is written to a path is gone after a reboot, because its file system is in memory or what is
// written to it is.
func (r Root) InMemory(p string) bool {
	on := r.MountOf(r.Nearest(p))
	// Where that folder is not seen from here, nothing is known.
	if on.Upper != "" && r.Exists(on.Upper) {
		on = r.MountOf(r.Nearest(on.Upper))
	}
	return slices.Contains([]string{"tmpfs", "ramfs", "rootfs"}, on.Kind)
}

// Nearest is p without links if it is there, else the deepest folder above it that is.
func (r Root) Nearest(p string) string {
	for ; p != "/"; p = path.Dir(p) {
		if resolved, found := NewFiles(r).Resolve(p); found == Present {
			return resolved
		}
	}
	return p
}

// Immutable tells whether a folder has the attribute that chattr +i gives. Linux before 4.11 does not say.
func (r Root) Immutable(folder string) bool {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, r.Path(folder), 0, unix.STATX_BASIC_STATS, &stat)
	return err == nil && stat.Attributes&unix.STATX_ATTR_IMMUTABLE != 0
}
