package compare

import (
	"os"
	"path/filepath"
	"strings"
)

// unitFolder is the folder of units in a system's etc, as a switch program reads it.
type unitFolder struct {
	dir     string
	program Program
	units   set // that have a file or an addition of their own, without templates and second names
	texts   map[string]parsed
	read    map[string]unitText
}

type parsed struct {
	text unitText
	err  error
}

func openUnits(program Program, dir string) *unitFolder {
	f := &unitFolder{dir: dir, program: program, units: set{}, texts: map[string]parsed{}, read: map[string]unitText{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return f
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".d")
		if !isUnit(name) || strings.Contains(name, "@.") || f.firstName(name) != name {
			continue
		}
		f.units[name] = true
	}
	return f
}

func isUnit(name string) bool {
	switch filepath.Ext(name) {
	case ".service", ".socket", ".timer", ".path", ".target", ".mount", ".automount", ".swap", ".slice":
		return true
	}
	return false
}

func isTarget(unit string) bool { return strings.HasSuffix(unit, ".target") }

// firstName is a unit's name where it has several: the others are links beside it.
func (f *unitFolder) firstName(unit string) string {
	for range 8 {
		to, err := os.Readlink(filepath.Join(f.dir, unit))
		if err != nil || filepath.Dir(to) != "." || to == unit {
			break
		}
		unit = to
	}
	return unit
}

// has tells whether there is a file of that name, also one that ends at /dev/null.
func (f *unitFolder) has(file string) bool {
	_, err := os.Stat(filepath.Join(f.dir, file))
	return err == nil
}

// hasName tells whether there is anything of that name.
func (f *unitFolder) hasName(file string) bool {
	_, err := os.Lstat(filepath.Join(f.dir, file))
	return err == nil
}

func (f *unitFolder) isMasked(file string) bool {
	real, err := filepath.EvalSymlinks(filepath.Join(f.dir, file))
	return err == nil && real == os.DevNull
}

// lacks tells whether the program sees no unit there.
func (f *unitFolder) lacks(file string) bool { return !f.has(file) || f.isMasked(file) }

// hasDropIn tells whether an instance has an addition of its own that is more than a link to /dev/null.
func (f *unitFolder) hasDropIn(unit string) bool {
	for _, file := range dropIns(filepath.Join(f.dir, unit+".d")) {
		if real, err := filepath.EvalSymlinks(file); err != nil || real != os.DevNull {
			return true
		}
	}
	return false
}

// templateOf is the file that an instance has its text from; "": it is none that the program knows as such.
func templateOf(unit string) string {
	kind := filepath.Ext(unit)
	prefix, instance, found := strings.Cut(strings.TrimSuffix(unit, kind), "@")
	if !found || instance == "" || strings.Contains(instance, ".") {
		return ""
	}
	return prefix + "@" + kind
}

// text reads a unit: file, which may be its template, with what is added to that, and to the instance if it is one by template.
func (f *unitFolder) text(unit, file string) (unitText, error) {
	if known, ok := f.texts[unit+" "+file]; ok {
		return known.text, known.err
	}
	path := filepath.Join(f.dir, file)
	files := []string{path}
	if f.program == Perl {
		if addition := path + ".d/overrides.conf"; exists(addition) {
			files = append(files, addition)
		}
	} else {
		files = append(files, dropIns(path+".d")...)
		if unit != file {
			files = append(files, dropIns(filepath.Join(f.dir, unit)+".d")...)
		}
	}
	text, err := readUnit(f.program, files...)
	f.texts[unit+" "+file] = parsed{text, err}
	return text, err
}

// own reads a unit as systemd does; nil if it is not there, or masked.
func (f *unitFolder) own(unit string) unitText {
	if known, ok := f.read[unit]; ok {
		return known
	}
	file := unit
	if prefix, instance, isInstance := strings.Cut(unit, "@"); isInstance && !f.has(unit) {
		file = prefix + "@" + filepath.Ext(instance)
	}
	var text unitText
	if !f.lacks(file) {
		files := append([]string{filepath.Join(f.dir, file)}, dropIns(filepath.Join(f.dir, file)+".d")...)
		if unit != file {
			files = append(files, dropIns(filepath.Join(f.dir, unit)+".d")...)
		}
		text = readAsSystemd(files...)
	}
	f.read[unit] = text
	return text
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// alwaysActive are targets that are active on every machine that has come up.
var alwaysActive = []string{
	"sysinit.target", "basic.target", "multi-user.target", "local-fs.target", "remote-fs.target", "swap.target", "timers.target", "sockets.target",
	"paths.target", "network.target", "network-online.target", "network-pre.target", "getty.target", "cryptsetup.target", "time-sync.target",
	"nss-lookup.target", "nss-user-lookup.target", "machines.target", "slices.target",
}

// pulls are the units that are there and that systemd starts along with these, these included. It does not look at what a unit wants
// that runs already, as runs tells, unless that is one of these.
func (f *unitFolder) pulls(runs func(unit string) bool, units ...string) set {
	pulled, todo, asked := set{}, units, len(units)
	for n := 0; n < len(todo); n++ {
		unit := f.firstName(todo[n])
		if pulled[unit] || !isUnit(unit) {
			continue
		}
		pulled[unit] = true
		if n >= asked && runs(unit) {
			continue
		}
		for _, name := range []string{unit, templateOf(unit)} {
			for _, kind := range []string{".wants", ".requires", ".upholds"} {
				entries, err := os.ReadDir(filepath.Join(f.dir, name+kind))
				if name == "" || err != nil {
					continue
				}
				for _, e := range entries {
					todo = append(todo, e.Name())
				}
			}
		}
		for _, key := range []string{"Wants", "Requires", "BindsTo", "Upholds"} {
			todo = append(todo, f.own(unit).words("Unit", key)...)
		}
	}
	for unit := range pulled {
		if f.own(unit) == nil {
			delete(pulled, unit)
		}
	}
	return pulled
}

// started are the units that the system starts by itself.
func (f *unitFolder) started() set {
	none := func(string) bool { return false }
	return f.pulls(none, append([]string{"default.target"}, alwaysActive...)...)
}

// stays tells whether a unit that was started is active until it is stopped.
func (f *unitFolder) stays(unit string) bool {
	text := f.own(unit)
	kind := text.values("Service", "Type")
	return text != nil && (len(kind) == 0 || kind[len(kind)-1] != "oneshot" || text.is("Service", "RemainAfterExit", false))
}

// mayRefuse tells whether a unit may do nothing though it is started, for a condition.
func mayRefuse(text unitText) bool {
	for _, keys := range text {
		for key := range keys {
			if strings.HasPrefix(key, "Condition") || strings.HasPrefix(key, "Assert") {
				return true
			}
		}
	}
	return false
}
