package receive

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is how much the kernel may hold, in bytes, of what is on its way from sshd to the agent, and on to nix-store. All
// three then hand on more at once, and wait less for each other; what sshd cannot hand on it keeps in a buffer that it copies
// as it grows.
const pipeSize = 1 << 20

// Widen makes a pipe hold pipeSize. What is no pipe, or may not be made larger, stays as it is.
func Widen(stream any) {
	file, ok := stream.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}
