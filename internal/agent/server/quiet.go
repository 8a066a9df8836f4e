package server

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// leaveTerminal gives standard error away if out is a terminal, where it would get among the frames.
func leaveTerminal(out io.Writer) error {
	file, ok := out.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	return unix.Dup3(int(null.Fd()), int(os.Stderr.Fd()), 0)
}
