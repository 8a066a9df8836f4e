package nix

import (
	"os"

	"golang.org/x/sys/unix"
)

// asInStore gives what is at path the time that Nix gives everything.
func asInStore(path string) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}
