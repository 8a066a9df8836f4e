package server

import (
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"ferry/internal/agent"
)

// presence is what is known of a file.
type presence int

const (
	absent presence = iota
	present
	// unreadable says that something is there which cannot be read whole, or leads where nothing is read.
	unreadable
	// awaited says that ferry is asked for it and has not told it yet. Who reads is given nothing instead, and goes on: so all that is
	// wanted is asked for in one round, however many files that is, and what came of the nothing is not used.
	awaited
)

const (
	storeFolder = "/nix/store"
	// masked is what a unit that must not run is a link to.
	masked = "/dev/null"
	// maxInspected is how large a file may be that is read to compare two systems, in bytes. Half a file would lead to false
	// conclusions, so a larger one counts as unreadable.
	maxInspected = 1 << 20
	// maxInspectedFiles is how many files and folders are read for one comparison, and maxInspectedBytes how much.
	maxInspectedFiles = 2000
	maxInspectedBytes = 32 << 20
	// maxInspectedNames is how many names of a folder are read.
	maxInspectedNames = 20000
)

// inspectedFiles reads the files of systems: few, small, and only where they may lead.
type inspectedFiles struct {
	root root
	// How many more files and folders, and bytes, may be read.
	left, bytes int
	ahead       *ahead // of a system that is not here yet; nil: it is
}

func newInspectedFiles(r root) *inspectedFiles {
	return &inspectedFiles{root: r, left: maxInspectedFiles, bytes: maxInspectedBytes}
}

// resolve follows the links of p, each as this machine's root sees it, to a path without any.
func (f *inspectedFiles) resolve(p string) (string, presence) {
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
		if found != present {
			return "", found
		}
		if !isLink {
			done = next
			continue
		}
		if links++; links > 40 {
			return "", unreadable
		}
		if to == masked && len(rest) == 0 {
			return masked, present
		}
		if path.IsAbs(to) {
			done = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return done, present
}

// read gives the content of the regular file that p leads to, if that is below one of within. What is masked, as systemd
// does it by a link to /dev/null, is present and empty.
func (f *inspectedFiles) read(p string, within ...string) (string, presence) {
	resolved, found := f.resolve(p)
	switch {
	case found == awaited:
		return "", present
	case found != present:
		return "", found
	case resolved == masked:
		return "", present
	case !below(resolved, within), f.left <= 0, f.bytes <= 0:
		return "", unreadable
	}
	f.left--
	if file, found, told := f.told(resolved, agent.KindFile); told {
		f.bytes -= len(file.Text)
		return string(file.Text), found
	}
	// Without O_NONBLOCK a pipe in the place of a file would be waited for.
	file, err := os.OpenFile(f.root.path(resolved), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", unreadable
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxInspected {
		return "", unreadable
	}
	text, err := io.ReadAll(io.LimitReader(file, maxInspected+1))
	if err != nil || len(text) > maxInspected {
		return "", unreadable
	}
	f.bytes -= len(text)
	return string(text), present
}

// names are those in the folder that p leads to, sorted.
func (f *inspectedFiles) names(p string, within ...string) ([]string, presence) {
	resolved, found := f.resolve(p)
	if found == awaited {
		return nil, present
	}
	if found != present {
		return nil, found
	}
	if !below(resolved, within) || f.left <= 0 {
		return nil, unreadable
	}
	f.left--
	if file, found, told := f.told(resolved, agent.KindFolder); told {
		return slices.Sorted(slices.Values(file.Names)), found
	}
	folder, err := os.Open(f.root.path(resolved))
	if err != nil {
		return nil, unreadable
	}
	defer folder.Close()
	names, err := folder.Readdirnames(maxInspectedNames)
	if err != nil && err != io.EOF || len(names) == maxInspectedNames {
		return nil, unreadable
	}
	slices.Sort(names)
	return names, present
}

func below(p string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool { return strings.HasPrefix(p, folder+"/") })
}

// etcView is /etc as a system leaves it: what its toplevel brings, and the machine's own files that belong to no system.
type etcView struct {
	files    *inspectedFiles
	toplevel string
	// before is the toplevel whose files go when this one comes; "" for the one that runs.
	before string
}

// read gives a file by its path below /etc.
func (v etcView) read(name string) (string, presence) {
	return look(v, name, func(p string, within ...string) (string, presence) { return v.files.read(p, within...) })
}

// names are those in a folder by its path below /etc. Where the machine has a folder of its own, its names and the system's
// are in it; whether one is really there, read tells.
func (v etcView) names(name string) ([]string, presence) {
	brought, found := v.files.names(v.toplevel+"/etc/"+name, v.toplevel, storeFolder)
	if found == unreadable {
		return nil, unreadable
	}
	own, ownFound := v.files.names("/etc/"+name, "/etc")
	if ownFound == present {
		found = present
		brought = slices.DeleteFunc(append(brought, own...), func(n string) bool { return v.goes(name + "/" + n) })
		slices.Sort(brought)
		brought = slices.Compact(brought)
	}
	return brought, found
}

// goes tells whether a file is the other system's and not this one's.
func (v etcView) goes(name string) bool {
	if v.before == "" {
		return false
	}
	if _, found := v.files.resolve(v.toplevel + "/etc/" + name); found != absent {
		return false
	}
	_, found := v.files.resolve(v.before + "/etc/" + name)
	return found != absent
}

// absolute gives a file by its whole path: below /etc as the system leaves it, else only from the store.
func (v etcView) absolute(p string) (string, presence) {
	p = path.Clean(p)
	if name, inEtc := strings.CutPrefix(p, "/etc/"); inEtc {
		return v.read(name)
	}
	return v.files.read(p, storeFolder)
}

// look finds name in the system's etc, else, if it does not go with the other system's, in the machine's.
func look[T any](v etcView, name string, read func(string, ...string) (T, presence)) (T, presence) {
	content, found := read(v.toplevel+"/etc/"+name, v.toplevel, storeFolder)
	if found != absent || v.goes(name) {
		return content, found
	}
	return read("/etc/"+name, "/etc", storeFolder)
}

// unit gives a unit's file; empty when it is masked.
func (v etcView) unit(name string) (string, presence) { return v.read("systemd/system/" + name) }

// wanted are the names of all units that some unit or target of the system wants, sorted.
func (v etcView) wanted() (units []string, known bool) {
	names, found := v.names("systemd/system")
	if found == unreadable {
		return nil, false
	}
	for _, folder := range names {
		kind := filepath.Ext(folder)
		if kind != ".wants" && kind != ".requires" && kind != ".upholds" {
			continue
		}
		wanting, found := v.names("systemd/system/" + folder)
		if found == unreadable {
			return nil, false
		}
		units = append(units, wanting...)
	}
	slices.Sort(units)
	return slices.Compact(units), true
}

// programs gives the texts of the scripts in the store that a unit starts.
func (v etcView) programs(unit string) ([]string, presence) {
	text, found := v.unit(unit)
	if found != present {
		return nil, found
	}
	var scripts []string
	for line := range strings.Lines(text) {
		command, isStart := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=")
		if !isStart {
			continue
		}
		words := strings.Fields(strings.TrimLeft(command, "-@:+!"))
		if len(words) == 0 {
			continue
		}
		script, found := v.files.read(strings.Trim(words[0], `"`), storeFolder)
		if found != present {
			return nil, unreadable
		}
		scripts = append(scripts, script)
	}
	return scripts, present
}
