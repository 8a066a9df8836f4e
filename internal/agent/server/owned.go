package server

import (
	"os"
	"path/filepath"

	"ferry/internal/agent/machine"
)

// jobFolderMode lets the login user come to the one folder in it that is theirs, whose name they know; nobody else can do
// anything there, or see what there is.
const jobFolderMode = 0o711

// makeJobFolder makes the folder of a job, and the one that it is in.
func makeJobFolder(dir string) error {
	if err := machine.OwnFolder(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	return machine.OwnFolder(dir, jobFolderMode)
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
