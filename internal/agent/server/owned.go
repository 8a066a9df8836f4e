package server

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ownFolder makes a folder that is root's, for others as wide as mode says and no wider. One that belongs to somebody else is
// refused: they could put anything in the place of what is in it.
func ownFolder(name string, mode os.FileMode) error {
	if err := os.MkdirAll(name, mode); err != nil {
		return err
	}
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", name)
	}
	if owner := ownerOf(info); owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to the user with the number %d and not to root; is it another program's?", name, owner)
	}
	if info.Mode().Perm() != mode {
		return os.Chmod(name, mode)
	}
	return nil
}

// ownerOf is the number of the user to whom a file belongs; -1 if that is not known.
func ownerOf(info os.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}

// jobFolderMode lets the login user come to the one folder in it that is theirs, whose name they know; nobody else can do
// anything there, or see what there is.
const jobFolderMode = 0o711

// makeJobFolder makes the folder of a job, and the one that it is in.
func makeJobFolder(dir string) error {
	if err := ownFolder(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	return ownFolder(dir, jobFolderMode)
}

// openJobLock opens the file whose lock the job's process holds.
func openJobLock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, jobLock), os.O_RDWR, 0)
	if os.IsNotExist(err) {
		// It was begun by an older ferry.
		return os.Open(filepath.Join(dir, jobFile))
	}
	return file, err
}
