package ui

import "golang.org/x/sys/unix"

// The requests that read and set what a terminal does with what is typed.
const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
)

// dropInput forgets what was typed and not read yet.
func dropInput(tty int) error { return unix.IoctlSetInt(tty, unix.TCFLSH, unix.TCIFLUSH) }

// awaitInput waits until a read of tty would not block, for so many milliseconds at most, and says whether it is so.
func awaitInput(tty, milliseconds int) (bool, error) {
	ready, err := unix.Poll([]unix.PollFd{{Fd: int32(tty), Events: unix.POLLIN}}, milliseconds)
	return ready > 0, err
}
