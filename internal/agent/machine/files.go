package machine

import (
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Presence is what is known of a file.
type Presence int

const (
	Absent Presence = iota
	Present
	// Unreadable says that something is there which cannot be read whole, or leads where nothing is read.
	Unreadable
	// Awaited says that ferry is asked for it and has not told it yet. Who reads is given nothing instead, and goes on: so all that is
	// wanted is asked for in one round, however many files that is, and what came of the nothing is not used.
	Awaited
)

const (
	StoreFolder = "/nix/store"
	// Masked is what a unit that must not run is a link to.
	Masked = "/dev/null"
	// MaxFile is how large a file may be that is read to compare two systems, in bytes. Half a file would lead to false
	// conclusions, so a larger one counts as unreadable.
	MaxFile = 1 << 20
	// maxInspectedFiles is how many files and folders are read for one comparison, and maxInspectedBytes how much.
	maxInspectedFiles = 2000
	maxInspectedBytes = 32 << 20
	// maxInspectedNames is how many names of a folder are read.
	maxInspectedNames = 20000
)

// Files reads the files of systems: few, small, and only where they may lead.
type Files struct {
	root Root
	// How many more files and folders, and bytes, may be read.
	left, bytes int
	// Foreseen tells of what is at a path of a system that is not here yet, with what is looked for below it; known is false of a
	// path that is here, or nowhere. nil: all is here.
	Foreseen func(path string, below []string) (entry Entry, known bool)
}

// Entry is what is known of a file of a system that is not here.
type Entry struct {
	Kind  FileKind
	Text  string   // of a file, or where a link leads
	Names []string // in a folder
}

// FileKind is what a file is that is not here.
type FileKind int

// The kinds of files.
const (
	// KindUnknown is there, and no more is known of it.
	KindUnknown FileKind = iota
	KindAbsent
	KindFile
	KindFolder
	KindLink
	// KindAwaited is asked for and not told yet.
	KindAwaited
)

// NewFiles reads files of a machine, within the bounds of one comparison.
func NewFiles(r Root) *Files {
	return &Files{root: r, left: maxInspectedFiles, bytes: maxInspectedBytes}
}

// Resolve follows the links of p, each as this machine's root sees it, to a path without any.
func (f *Files) Resolve(p string) (string, Presence) {
	done, rest, links := "/", strings.Split(p, "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, name)
		to, isLink, found := f.lstat(next, rest)
		if found != Present {
			return "", found
		}
		if !isLink {
			done = next
			continue
		}
		if links++; links > 40 {
			return "", Unreadable
		}
		if to == Masked && len(rest) == 0 {
			return Masked, Present
		}
		if path.IsAbs(to) {
			done = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return done, Present
}

// Read gives the content of the regular file that p leads to, if that is below one of within. What is masked, as systemd
// does it by a link to /dev/null, is present and empty.
func (f *Files) Read(p string, within ...string) (string, Presence) {
	resolved, found := f.Resolve(p)
	switch {
	case found == Awaited:
		return "", Present
	case found != Present:
		return "", found
	case resolved == Masked:
		return "", Present
	case !Below(resolved, within), f.left <= 0, f.bytes <= 0:
		return "", Unreadable
	}
	f.left--
	if file, found, known := f.foreseen(resolved, KindFile); known {
		f.bytes -= len(file.Text)
		return file.Text, found
	}
	// Without O_NONBLOCK a pipe in the place of a file would be waited for.
	file, err := os.OpenFile(f.root.Path(resolved), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", Unreadable
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > MaxFile {
		return "", Unreadable
	}
	text, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err != nil || len(text) > MaxFile {
		return "", Unreadable
	}
	f.bytes -= len(text)
	return string(text), Present
}

// Names are those in the folder that p leads to, sorted.
func (f *Files) Names(p string, within ...string) ([]string, Presence) {
	resolved, found := f.Resolve(p)
	if found == Awaited {
		return nil, Present
	}
	if found != Present {
		return nil, found
	}
	if !Below(resolved, within) || f.left <= 0 {
		return nil, Unreadable
	}
	f.left--
	if file, found, known := f.foreseen(resolved, KindFolder); known {
		return slices.Sorted(slices.Values(file.Names)), found
	}
	folder, err := os.Open(f.root.Path(resolved))
	if err != nil {
		return nil, Unreadable
	}
	defer folder.Close()
	names, err := folder.Readdirnames(maxInspectedNames)
	if err != nil && err != io.EOF || len(names) == maxInspectedNames {
		return nil, Unreadable
	}
	slices.Sort(names)
	return names, Present
}

// Below tells whether a path is in one of the folders, or below it.
func Below(p string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool { return strings.HasPrefix(p, folder+"/") })
}

// lstat tells what is at next, where it leads if it is a link, and whether it is there.
func (f *Files) lstat(next string, rest []string) (to string, isLink bool, found Presence) {
	if f.Foreseen != nil {
		if entry, known := f.Foreseen(next, rest); known {
			switch entry.Kind {
			case KindAbsent:
				return "", false, Absent
			case KindLink:
				return entry.Text, true, Present
			case KindFile, KindFolder:
				return "", false, Present
			case KindAwaited:
				return "", false, Awaited
			}
			return "", false, Unreadable
		}
	}
	info, err := os.Lstat(f.root.Path(next))
	switch {
	case os.IsNotExist(err):
		return "", false, Absent
	case err != nil:
		return "", false, Unreadable
	case info.Mode()&os.ModeSymlink == 0:
		return "", false, Present
	}
	if to, err = os.Readlink(f.root.Path(next)); err != nil {
		return "", true, Unreadable
	}
	return to, true, Present
}

// foreseen gives a file that is not here by its path without links.
func (f *Files) foreseen(resolved string, kind FileKind) (Entry, Presence, bool) {
	if f.Foreseen == nil {
		return Entry{}, Absent, false
	}
	entry, known := f.Foreseen(path.Clean(resolved), nil)
	if !known {
		return entry, Absent, false
	}
	switch entry.Kind {
	case kind:
		return entry, Present, true
	case KindAwaited:
		return Entry{}, Present, true
	}
	return entry, Unreadable, true
}
