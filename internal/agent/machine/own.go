package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// OwnFolder makes a folder that is root's, for others as wide as mode says and no wider. One that belongs to somebody else is
// refused: they could put anything in the place of what is in it.
func OwnFolder(name string, mode os.FileMode) error {
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
	if owner := OwnerOf(info); owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to the user with the number %d and not to root; is it another program's?", name, owner)
	}
	if info.Mode().Perm() != mode {
		return os.Chmod(name, mode)
	}
	return nil
}

// OwnerOf is the number of the user to whom a file belongs; -1 if that is not known.
func OwnerOf(info os.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}

// CheckWay looks at a folder, at all above it, and where links lead to it, at the folders that these are in: who may write there can
// move them. One of ferry's own that is too wide is narrowed.
func (r Root) CheckWay(folder string) error {
	top, err := filepath.EvalSymlinks(r.Path("/"))
	if err != nil {
		return err
	}
	if err := linksTo(r, folder, top); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(r.Path(folder))
	if err != nil {
		return nothingThere(err)
	}
	if info, err := os.Lstat(real); err == nil && OwnerOf(info) == os.Geteuid() && info.Mode().Perm()&0o022 != 0 {
		if err := os.Chmod(real, info.Mode().Perm()&^0o022); err != nil {
			return err
		}
	}
	return upFrom(real, top)
}

// linksTo looks at the folders that the links are in which a path leads through.
func linksTo(r Root, folder, top string) error {
	at, left := top, strings.Split(strings.Trim(folder, "/"), "/")
	for links := 0; len(left) > 0 && links < maxLinks; {
		next := filepath.Join(at, left[0])
		left = left[1:]
		to, err := os.Readlink(next)
		if err != nil {
			at = next
			continue
		}
		links++
		if err := upFrom(at, top); err != nil {
			return err
		}
		if filepath.IsAbs(to) {
			at, to = top, strings.TrimPrefix(to, r.Dir)
		}
		left = append(strings.Split(strings.Trim(to, "/"), "/"), left...)
	}
	return nil
}

// maxLinks is how many links the kernel follows.
const maxLinks = 40

// upFrom looks at a folder that is led to without a link, and at all above it.
func upFrom(folder, top string) error {
	for {
		info, err := os.Lstat(folder)
		if err != nil {
			return nothingThere(err)
		}
		if err := isOwn(folder, info); err != nil || folder == top || folder == "/" {
			return err
		}
		folder = filepath.Dir(folder)
	}
}

// CheckEntries looks at what is in a folder; what else is below them, they keep from others themselves. A socket may be the login
// user's.
func (r Root) CheckEntries(folder string) error {
	entries, err := os.ReadDir(r.Path(folder))
	if err != nil {
		return nothingThere(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || info.Mode().Type()&fs.ModeSocket != 0 {
			continue
		}
		if OwnerOf(info) != os.Geteuid() {
			return notOwn(filepath.Join(r.Path(folder), entry.Name()), info)
		}
	}
	return nil
}

func nothingThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// CheckFolder looks at a folder alone, wherever it is: who may write there may be able to move it.
func (r Root) CheckFolder(folder string) error {
	info, err := os.Stat(r.Path(folder))
	if err != nil {
		return nothingThere(err)
	}
	return isOwn(r.Path(folder), info)
}

// isOwn tells whether nobody but root, which the agent is, may write to a folder.
func isOwn(path string, info fs.FileInfo) error {
	if OwnerOf(info) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return notOwn(path, info)
	}
	return nil
}

func notOwn(path string, info fs.FileInfo) error {
	if uid := OwnerOf(info); uid != os.Geteuid() {
		return fmt.Errorf("%s belongs to the user with the number %d and has to be root's alone: give the service that has it another folder "+
			"(RuntimeDirectory, StateDirectory, LogsDirectory), and move this one away", path, uid)
	}
	return fmt.Errorf("others than root may write to %s (mode %o): chmod go-w %s", path, info.Mode().Perm(), path)
}
