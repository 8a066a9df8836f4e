package run

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// HasTerminal tells whether the calling process's group is the foreground group of tty: whether it may ask there. A command
// that was started in the background may not.
func HasTerminal(tty *os.File) bool {
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// TakeTerminal makes the calling process's group the foreground group of tty again, after a process with a terminal of its
// own (Command.Terminal) is done with asking.
func TakeTerminal(tty *os.File) error {
	// A background process that changes the foreground group is stopped by SIGTTOU unless it ignores it.
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	return unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, unix.Getpgrp())
}
