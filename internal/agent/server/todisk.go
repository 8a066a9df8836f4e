package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/bootloader"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// activatedLimit is how long the guard waits for that: within guardSlack, and a disk that is slower goes on without it.
const activatedLimit = 10 * time.Second

// activatedToDisk brings to the disk what an activation has written. NixOS puts new files in the place of those of the accounts
// and syncs none: the next thing that is synced, such as what ferry writes down, may bring the new names to the disk before what is
// in them, and a boot after a power cut would find no users.
func (g *guard) activatedToDisk(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, activatedLimit)
	defer stop()
	if err := g.root.Disk.SyncFilesystems(ctx, g.root.Path("/etc"), g.root.Path("/var/lib")); err != nil {
		g.say("%s", run.Clean(err.Error()))
	}
}

// toDisk brings to the disks all that decides what the machine boots, and with which store, so that a power cut from here on
// finds it. Nix does not do that, and a boot loader's own installer only for its own files, if at all. Only these file systems:
// one that somebody else's dead server holds up must not hold up a deployment.
func toDisk(ctx context.Context, r machine.Root) error {
	folders := append([]string{"/nix/store", "/nix/var/nix", "/etc", agent.Folder}, bootloader.Partitions(r)...)
	// GRUB may be on several, as /boot1 and /boot2.
	for _, point := range r.Mounts() {
		if (strings.HasPrefix(point, "/boot") || strings.HasPrefix(point, "/efi")) && !slices.Contains(folders, point) {
			folders = append(folders, point)
		}
	}
	for i, folder := range folders {
		folders[i] = r.Path(folder)
	}
	return r.Disk.SyncFilesystems(ctx, folders...)
}
