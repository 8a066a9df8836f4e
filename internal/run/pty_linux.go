package run

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo-terminal: far is who holds it, near is for the programs on it.
func openTerminal() (far, near *os.File, err error) {
	if far, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			far.Close()
		}
	}()
	// Not by Fd, which would make reads of it such that no Close ends them.
	raw, err := far.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var number int
	controlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err = errors.Join(controlErr, err); err != nil {
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	near, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	return far, near, err
}
