package lockout

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/agent/machine"
)

// etcView is /etc as a system leaves it: what its toplevel brings, and the machine's own files that belong to no system.
type etcView struct {
	files    *machine.Files
	toplevel string
	// before is the toplevel whose files go when this one comes; "" for the one that runs.
	before string
}

// read gives a file by its path below /etc.
func (v etcView) read(name string) (string, machine.Presence) {
	return look(v, name, func(p string, within ...string) (string, machine.Presence) { return v.files.Read(p, within...) })
}

// names are those in a folder by its path below /etc. Where the machine has a folder of its own, its names and the system's
// are in it; whether one is really there, read tells.
func (v etcView) names(name string) ([]string, machine.Presence) {
	brought, found := v.files.Names(v.toplevel+"/etc/"+name, v.toplevel, machine.StoreFolder)
	if found == machine.Unreadable {
		return nil, machine.Unreadable
	}
	own, ownFound := v.files.Names("/etc/"+name, "/etc")
	if ownFound == machine.Present {
		found = machine.Present
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
	if _, found := v.files.Resolve(v.toplevel + "/etc/" + name); found != machine.Absent {
		return false
	}
	_, found := v.files.Resolve(v.before + "/etc/" + name)
	return found != machine.Absent
}

// absolute gives a file by its whole path: below /etc as the system leaves it, else only from the store.
func (v etcView) absolute(p string) (string, machine.Presence) {
	p = path.Clean(p)
	if name, inEtc := strings.CutPrefix(p, "/etc/"); inEtc {
		return v.read(name)
	}
	return v.files.Read(p, machine.StoreFolder)
}

// look finds name in the system's etc, else, if it does not go with the other system's, in the machine's.
func look[T any](v etcView, name string, read func(string, ...string) (T, machine.Presence)) (T, machine.Presence) {
	content, found := read(v.toplevel+"/etc/"+name, v.toplevel, machine.StoreFolder)
	if found != machine.Absent || v.goes(name) {
		return content, found
	}
	return read("/etc/"+name, "/etc", machine.StoreFolder)
}

// unit gives a unit's file; empty when it is masked.
func (v etcView) unit(name string) (string, machine.Presence) {
	return v.read("systemd/system/" + name)
}

// wanted are the names of all units that some unit or target of the system wants, sorted.
func (v etcView) wanted() (units []string, known bool) {
	names, found := v.names("systemd/system")
	if found == machine.Unreadable {
		return nil, false
	}
	for _, folder := range names {
		kind := filepath.Ext(folder)
		if kind != ".wants" && kind != ".requires" && kind != ".upholds" {
			continue
		}
		wanting, found := v.names("systemd/system/" + folder)
		if found == machine.Unreadable {
			return nil, false
		}
		units = append(units, wanting...)
	}
	slices.Sort(units)
	return slices.Compact(units), true
}

// programs gives the texts of the scripts in the store that a unit starts.
func (v etcView) programs(unit string) ([]string, machine.Presence) {
	text, found := v.unit(unit)
	if found != machine.Present {
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
		script, found := v.files.Read(strings.Trim(words[0], `"`), machine.StoreFolder)
		if found != machine.Present {
			return nil, machine.Unreadable
		}
		scripts = append(scripts, script)
	}
	return scripts, machine.Present
}
