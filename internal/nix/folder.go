package nix

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Folder is an open folder. What is in it is reached by name, one folder at a time, and no symbolic link is followed, whatever is put in
// whose place meanwhile: nothing outside of it is ever read. It is for one goroutine, together with those that were opened in it.
//
// A tree such as nixpkgs has tens of thousands of small files. [os.Root] promises the same and makes two to three times as many system
// calls for each.
type Folder struct {
	fd  int
	buf []byte // shared with the folders in it: each is listed before the next is opened
}

// FileType is what a name stands for, of what a NAR can hold.
type FileType uint8

// The file types. Some file systems do not tell the type with the name.
const (
	UnknownType FileType = iota
	RegularType
	FolderType
	LinkType
	OtherType // nothing that a NAR can hold
)

// DirEntry is a name in a folder.
type DirEntry struct {
	Name string
	Type FileType
}

// FileInfo is what a NAR has of a file.
type FileInfo struct {
	Type       FileType
	Executable bool
	Size       int64 // in bytes
}

// OpenStorePath opens the folder at path. If there is no folder, it opens the one that path is in, and base is its name in that. The
// caller closes it.
func OpenStorePath(path string) (dir *Folder, base string, err error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		base = filepath.Base(path)
		fd, err = openat(unix.AT_FDCWD, filepath.Dir(path), unix.O_DIRECTORY)
	}
	if err != nil {
		return nil, "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Folder{fd: fd}, base, nil
}

// Close closes it; those that were opened in it stay open.
func (d *Folder) Close() { _ = unix.Close(d.fd) }

// Open opens the folder called name in it. The caller closes it.
func (d *Folder) Open(name string) (*Folder, error) {
	fd, err := d.openat("open", name, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &Folder{fd: fd, buf: d.buf}, nil
}

// OpenFile opens the regular file called name in it, for reading, and says what it is. The caller closes it.
func (d *Folder) OpenFile(name string) (*File, FileInfo, error) {
	// Without O_NONBLOCK a pipe put in the file's place would block for ever.
	fd, err := d.openat("open", name, unix.O_NONBLOCK)
	if err != nil {
		return nil, FileInfo{}, err
	}
	f := &File{fd}
	var st unix.Stat_t
	if err = retry(func() error { return unix.Fstat(fd, &st) }); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNoFile
	}
	if err != nil {
		f.Close()
		return nil, FileInfo{}, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, infoOf(&st), nil
}

var errNoFile = errors.New("it is no regular file any more")

// Stat says what name is.
func (d *Folder) Stat(name string) (FileInfo, error) {
	var st unix.Stat_t
	err := checkEntryName(name)
	if err == nil {
		err = retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	}
	if err != nil {
		return FileInfo{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return infoOf(&st), nil
}

// Readlink gives the target of the symbolic link called name.
func (d *Folder) Readlink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	var n int
	err := checkEntryName(name)
	if err == nil {
		err = retry(func() (err error) {
			n, err = unix.Readlinkat(d.fd, name, buf)
			return err
		})
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(buf[:n]), nil
}

// sortEntries brings entries into the order of a NAR.
func sortEntries(entries []DirEntry) {
	slices.SortFunc(entries, func(a, b DirEntry) int { return strings.Compare(a.Name, b.Name) })
}

func infoOf(st *unix.Stat_t) FileInfo {
	info := FileInfo{Type: OtherType, Executable: st.Mode&0o100 != 0, Size: st.Size}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		info.Type = RegularType
	case unix.S_IFDIR:
		info.Type = FolderType
	case unix.S_IFLNK:
		info.Type = LinkType
	}
	return info
}

// File is a regular file that is open for reading.
type File struct{ fd int }

// Read reads what is at offset into p, which may be less than there is; 0 bytes is the file's end.
func (f *File) Read(p []byte, offset int64) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.Pread(f.fd, p, offset)
		return err
	})
	if err != nil {
		return 0, os.NewSyscallError("read", err)
	}
	return n, nil
}

// Close closes it.
func (f *File) Close() { _ = unix.Close(f.fd) }

func (d *Folder) openat(op, name string, flags int) (int, error) {
	err := checkEntryName(name)
	if err == nil {
		var fd int
		if fd, err = openat(d.fd, name, flags|unix.O_NOFOLLOW); err == nil {
			return fd, nil
		}
	}
	return -1, &fs.PathError{Op: op, Path: name, Err: err}
}

func openat(dir int, name string, flags int) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// checkEntryName refuses what is more than a name.
func checkEntryName(name string) error {
	if name == "" || name == "." || name == ".." || strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0 {
		return fs.ErrInvalid
	}
	return nil
}

// retry repeats a system call that a signal has interrupted, as Go's own signals may on file systems in user space.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
