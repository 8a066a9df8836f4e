package bootloader

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"ferry/internal/agent/machine"
)

// Place is a file system of its own that a boot loader may read its menu from, as it was seen mounted.
type Place struct {
	Point  string `json:"point"`
	Source string `json:"source"`
	Kind   string `json:"kind"`
	Device string `json:"device"` // its number
	Root   string `json:"root"`   // the folder of the file system that is seen there
}

// is tells whether both show one folder: wherever that is mounted now, or as a part of what is mounted above it. A file system that
// was unmounted and mounted again may have got another number, and one that is mounted twice may have been named in two ways.
func (p Place) is(now Place) bool {
	if p.Device != now.Device && (p.Source != now.Source || p.Kind != now.Kind) {
		return false
	}
	within, found := strings.CutPrefix(p.Root, strings.TrimSuffix(now.Root, "/"))
	return p.Root == now.Root || found && strings.HasPrefix(within, "/") && path.Join(now.Point, within) == p.Point
}

// bootFolders are the beginnings of the paths where those are mounted: GRUB may be on several, as /boot1 and /boot2.
var bootFolders = []string{"/boot", "/efi"}

func isBootFolder(point string) bool {
	return slices.ContainsFunc(bootFolders, func(folder string) bool { return strings.HasPrefix(point, folder) })
}

// Places are those that are mounted where boot loaders have their menus.
func Places(r machine.Root) []Place {
	return slices.DeleteFunc(visible(r), func(p Place) bool { return !isBootFolder(p.Point) })
}

// visible are all file systems that are mounted, but those that others are mounted over.
func visible(r machine.Root) []Place {
	for _, folder := range bootFolders {
		// One that is mounted when somebody looks is mounted now.
		_, _ = os.Stat(r.Path(folder) + "/.")
	}
	var seen []Place
	for m, point := range r.Mounts() {
		below := strings.TrimSuffix(point, "/") + "/"
		seen = slices.DeleteFunc(seen, func(p Place) bool { return p.Point == point || strings.HasPrefix(p.Point, below) })
		seen = append(seen, Place{point, m.Source, m.Kind, m.Device, m.Folder})
	}
	return slices.DeleteFunc(seen, func(p Place) bool { return p.Kind == "autofs" })
}

// Moved says why a menu that is written now is not where the machine would look for it; "" if nothing is known against it. What
// the machine has booted from is what was there before: a file system that is not mounted any more keeps its old menu, and what is
// written to the folder instead, or to memory, does not count.
func Moved(r machine.Root, before []Place) string {
	now := visible(r)
	for _, p := range before {
		if !slices.ContainsFunc(now, p.is) {
			return fmt.Sprintf("%s (%s), which the boot loader's files were on, is not mounted any more on %s", p.Source, p.Kind, p.Point)
		}
	}
	for _, p := range now {
		if isBootFolder(p.Point) && (p.Kind == "tmpfs" || p.Kind == "ramfs") && !slices.ContainsFunc(before, p.is) {
			return fmt.Sprintf("a file system in memory has been mounted on %s, which the boot loader's files are in", p.Point)
		}
	}
	return ""
}
