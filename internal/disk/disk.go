// Package disk writes what a power cut must not take away: when a function has returned without an error, what it did is on
// the disk, name and content.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Disk is where files are written. The zero value is ready, and may be used from several goroutines.
type Disk struct {
	// Trace, when set, is told of each step that has reached the disk, by its verb and the path: of one that failed it is not.
	Trace func(step, path string)
}

func (d Disk) done(step, path string) {
	if d.Trace != nil {
		d.Trace(step, path)
	}
}

// WriteFile makes name a file with this content and these permissions, whatever the umask. Whoever reads it sees the old file
// or the whole new one, and so does whoever boots after a power cut. Several may write the same file at once: the last one
// stays. After an error the old file is there and nothing else.
func (d Disk) WriteFile(name string, content []byte, mode fs.FileMode) error {
	if err := writeWhole(name, content, mode, (*os.File).Sync); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(name)); err != nil {
		return err
	}
	d.done("write", name)
	return nil
}

// WriteWhole is WriteFile for what may be lost with the power: a cache, and what is in memory anyway.
func WriteWhole(name string, content []byte, mode fs.FileMode) error {
	return writeWhole(name, content, mode, func(*os.File) error { return nil })
}

func writeWhole(name string, content []byte, mode fs.FileMode, sync func(*os.File) error) error {
	folder := filepath.Dir(name)
	next, err := os.CreateTemp(folder, NewPrefix)
	if err != nil {
		return err
	}
	_, err = next.Write(content)
	if err == nil {
		err = next.Chmod(mode)
	}
	if err == nil {
		err = sync(next)
	}
	if err = errors.Join(err, next.Close()); err == nil {
		err = os.Rename(next.Name(), name)
	}
	if err != nil {
		_ = os.Remove(next.Name())
	}
	return err
}

// NewPrefix is how the name of a file begins that is not whole yet. One that is left is of a process that was killed.
const NewPrefix = ".new-"

// Link makes link a symbolic link to target, in one step: whatever was there, unless it is a folder, is replaced.
func (d Disk) Link(target, link string) error {
	next := link + ".new"
	_ = os.Remove(next)
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	if err := os.Rename(next, link); err != nil {
		_ = os.Remove(next)
		return err
	}
	if err := syncFolder(filepath.Dir(link)); err != nil {
		return err
	}
	d.done("link", link)
	return nil
}

// MkdirAll makes a folder and those above it that are missing.
func (d Disk) MkdirAll(folder string, mode fs.FileMode) error {
	// The name of each new folder is in the one above it.
	var holders []string
	for at := filepath.Clean(folder); ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		holders = append(holders, filepath.Dir(at))
	}
	if err := os.MkdirAll(folder, mode); err != nil {
		return err
	}
	for _, holder := range holders {
		if err := syncFolder(holder); err != nil {
			return err
		}
	}
	if len(holders) > 0 {
		d.done("mkdir", folder)
	}
	return nil
}

// SyncFile brings to the disk what was written to a file that is open, and its name.
func (d Disk) SyncFile(file *os.File) error {
	if err := errors.Join(file.Sync(), syncFolder(filepath.Dir(file.Name()))); err != nil {
		return err
	}
	d.done("sync", file.Name())
	return nil
}

// SyncFolder brings to the disk which names are in a folder: after a file in it was made, renamed or removed by something else.
// A folder that is not there has none.
func (d Disk) SyncFolder(folder string) error {
	err := syncFolder(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		d.done("sync", folder)
	}
	return err
}

func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// SyncFilesystems brings to the disk all that was written to the file systems of these paths, those of them that are there. It
// does not wait longer than for ctx: a disk that hangs goes on without it.
func (d Disk) SyncFilesystems(ctx context.Context, paths ...string) error {
	seen := map[uint64]bool{}
	for _, path := range paths {
		var at unix.Stat_t
		err := unix.Stat(path, &at)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err == nil && !seen[uint64(at.Dev)] {
			err = syncFilesystem(ctx, path)
		}
		if err != nil {
			return fmt.Errorf("bring what was written to %s to the disk: %w", path, err)
		}
		seen[uint64(at.Dev)] = true
		d.done("sync all", path)
	}
	return nil
}

func syncFilesystem(ctx context.Context, path string) error {
	ended := make(chan error, 1)
	go func() {
		file, err := os.Open(path)
		if err == nil {
			err = errors.Join(syncfs(file), file.Close())
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
