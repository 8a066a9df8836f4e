package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ferry/internal/agent"
)

// ownFolders finds out whether the folders that ferry keeps things in as root are root's alone, as far as they are there: a
// service that has RuntimeDirectory=ferry, StateDirectory=ferry or LogsDirectory=ferry makes one of them its own, and could then
// put anything in the place of what the agent writes there. The folder of the journal may lie in one that others write to, as
// some systems have it; the rest may not.
func ownFolders(r root) error {
	for _, folder := range []string{jobsFolder, agent.Folder, trialFolder} {
		if err := wayTo(r, folder); err != nil {
			return err
		}
	}
	for _, folder := range []string{jobsFolder, agent.Folder} {
		if err := ownEntries(r, folder); err != nil {
			return err
		}
	}
	logs := filepath.Dir(journalFile)
	info, err := os.Stat(r.path(logs))
	if err != nil {
		return nothingThere(err)
	}
	return isOwn(r.path(logs), info)
}

// wayTo looks at a folder, at all above it, and where links lead to it, at the folders that these are in: who may write there can
// move them. One of ferry's own that is too wide is narrowed.
func wayTo(r root, folder string) error {
	top, err := filepath.EvalSymlinks(r.path("/"))
	if err != nil {
		return err
	}
	if err := linksTo(r, folder, top); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(r.path(folder))
	if err != nil {
		return nothingThere(err)
	}
	if info, err := os.Lstat(real); err == nil && ownerOf(info) == os.Geteuid() && info.Mode().Perm()&0o022 != 0 {
		if err := os.Chmod(real, info.Mode().Perm()&^0o022); err != nil {
			return err
		}
	}
	return upFrom(real, top)
}

// linksTo looks at the folders that the links are in which a path leads through.
func linksTo(r root, folder, top string) error {
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
			at, to = top, strings.TrimPrefix(to, r.dir)
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

// ownEntries looks at what is in a folder; what else is below them, they keep from others themselves. A socket may be the login
// user's.
func ownEntries(r root, folder string) error {
	entries, err := os.ReadDir(r.path(folder))
	if err != nil {
		return nothingThere(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || info.Mode().Type()&fs.ModeSocket != 0 {
			continue
		}
		if ownerOf(info) != os.Geteuid() {
			return notOwn(filepath.Join(r.path(folder), entry.Name()), info)
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

// isOwn tells whether nobody but root, which the agent is, may write to a folder.
func isOwn(path string, info fs.FileInfo) error {
	if ownerOf(info) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return notOwn(path, info)
	}
	return nil
}

func notOwn(path string, info fs.FileInfo) error {
	if uid := ownerOf(info); uid != os.Geteuid() {
		return fmt.Errorf("%s belongs to the user with the number %d and has to be root's alone: give the service that has it another folder "+
			"(RuntimeDirectory, StateDirectory, LogsDirectory), and move this one away", path, uid)
	}
	return fmt.Errorf("others than root may write to %s (mode %o): chmod go-w %s", path, info.Mode().Perm(), path)
}
