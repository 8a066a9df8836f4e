package nix

import (
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// List gives what is in it, in the order of a NAR. It may be called once.
func (d *Folder) List() ([]DirEntry, error) {
	if d.buf == nil {
		d.buf = make([]byte, 32<<10)
	}
	var entries []DirEntry
	for {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Getdents(d.fd, d.buf)
			return err
		})
		if err != nil {
			return nil, os.NewSyscallError("getdents", err)
		}
		if n == 0 {
			break
		}
		entries = appendEntries(entries, d.buf[:n])
	}
	sortEntries(entries)
	return entries, nil
}

// Where things are in a struct linux_dirent64, see getdents(2).
const (
	direntLength = 16
	direntType   = 18
	direntName   = 19
)

func appendEntries(entries []DirEntry, b []byte) []DirEntry {
	for len(b) > direntName {
		length := int(binary.NativeEndian.Uint16(b[direntLength:]))
		if length <= direntName || length > len(b) {
			break
		}
		name, _, _ := strings.Cut(string(b[direntName:length]), "\x00")
		if name != "." && name != ".." {
			entries = append(entries, DirEntry{name, typeOf(b[direntType])})
		}
		b = b[length:]
	}
	return entries
}

func typeOf(dirent byte) FileType {
	switch dirent {
	case unix.DT_REG:
		return RegularType
	case unix.DT_DIR:
		return FolderType
	case unix.DT_LNK:
		return LinkType
	case unix.DT_UNKNOWN:
		return UnknownType
	}
	return OtherType
}
