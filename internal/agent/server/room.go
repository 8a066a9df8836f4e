package server

import (
	"context"
	"fmt"

	"ferry/internal/run"

	"golang.org/x/sys/unix"
)

// runRoom is how much of /run has to be free for rolling back, in bytes. systemd does not read its units again with less than
// 16 MiB there (since 252): it would start the new system's units for the old one.
const runRoom = 32 << 20

// makeRoom lets a /run that is nearly full grow, so that a rollback does not depend on who has filled it. It is memory, and
// as large as before after a reboot.
func (g *guard) makeRoom(ctx context.Context) {
	folder := g.root.Path("/run")
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return
	}
	size := grown(fs)
	if size == 0 {
		return
	}
	g.say("/run is full: it may grow to %d MiB", size>>20)
	if err := g.runner.Run(ctx, run.Command{Argv: []string{"mount", "-o", fmt.Sprintf("remount,size=%d", size), folder}}); err != nil {
		g.say("%v", err)
	}
}

// grown is how large a file system has to become to have runRoom; 0: it has that, or no limit.
func grown(fs unix.Statfs_t) uint64 {
	block := uint64(fs.Bsize)
	if free := fs.Bavail * block; fs.Blocks == 0 || free >= runRoom {
		return 0
	}
	return fs.Blocks*block + runRoom
}
