package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncfs brings the file system that file is on to the disk.
func syncfs(file *os.File) error { return unix.Syncfs(int(file.Fd())) }
