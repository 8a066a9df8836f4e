package ui

import "golang.org/x/sys/unix"

// The requests that read and set what a terminal does with what is typed.
const (
	getTermios = unix.TIOCGETA
	setTermios = unix.TIOCSETA
)

// fread is FREAD of <sys/fcntl.h>: TIOCFLUSH forgets input then.
const fread = 1

// dropInput forgets what was typed and not read yet.
func dropInput(tty int) error { return unix.IoctlSetPointerInt(tty, unix.TIOCFLUSH, fread) }

// awaitInput waits until a read of tty would not block, for so many milliseconds at most, and says whether it is so. It is
// select, because macOS's poll does not know terminals.
func awaitInput(tty, milliseconds int) (bool, error) {
	var set unix.FdSet
	set.Set(tty)
	limit := unix.NsecToTimeval(int64(milliseconds) * 1e6)
	ready, err := unix.Select(tty+1, &set, nil, nil, &limit)
	return ready > 0, err
}
