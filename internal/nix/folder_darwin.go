package nix

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// List gives what is in it, in the order of a NAR. It may be called once.
func (d *Folder) List() ([]DirEntry, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("openat", err)
	}
	folder := os.NewFile(uintptr(fd), ".")
	defer folder.Close()
	found, err := folder.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var entries []DirEntry
	for _, e := range found {
		entries = append(entries, DirEntry{e.Name(), typeOf(e.Type())})
	}
	sortEntries(entries)
	return entries, nil
}

func typeOf(mode fs.FileMode) FileType {
	switch {
	case mode.IsRegular():
		return RegularType
	case mode.IsDir():
		return FolderType
	case mode&fs.ModeSymlink != 0:
		return LinkType
	}
	return OtherType
}
