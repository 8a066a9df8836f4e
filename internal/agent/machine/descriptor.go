package machine

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// FD is the number of a file's descriptor; the file stays what it is.
func FD(file *os.File) int {
	number := -1
	if raw, err := file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { number = int(fd) })
	}
	return number
}

// AwaitEnd waits until a process has ended, for as many milliseconds; less than 0: for ever.
func AwaitEnd(process *os.File, milliseconds int) {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(FD(process)), Events: unix.POLLIN}}, milliseconds)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// PeerUID is the user of the process at the other end; -1 if that is not known.
func PeerUID(conn *net.UnixConn) int {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1
	}
	uid := -1
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(peer.Uid)
		}
	})
	return uid
}
