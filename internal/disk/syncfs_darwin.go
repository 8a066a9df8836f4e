package disk

import "os"

// syncfs asks the disk to keep what was written to file: elsewhere than on Linux no call does so for a whole file system, and
// only files of ferry's own are synced there.
func syncfs(file *os.File) error { return file.Sync() }
