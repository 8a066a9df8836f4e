package compare

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Units are what a switch does to units, by their full names. What is stopped before the activation and started after it counts
// as restarted.
type Units struct {
	Stop    []string `json:"stop"`
	Restart []string `json:"restart"`
	Reload  []string `json:"reload"`
	Start   []string `json:"start"` // those that are new among them
	// Skip are those that have changed and go on as they are, because the configuration says so.
	Skip []string `json:"skip"`
	// Idle are those that have changed or are gone, and do not run as far as is known: nothing is done to them.
	Idle []string `json:"idle"`
}

// Empty tells whether nothing is done to any unit.
func (u Units) Empty() bool {
	return len(u.Stop)+len(u.Restart)+len(u.Reload)+len(u.Start)+len(u.Skip)+len(u.Idle) == 0
}

// compareUnits goes by the rules of switch-to-configuration, for the units of two systems' own folders. active tells which
// units run; nil: those are taken to run that the old system starts by itself and that do not end by themselves.
func compareUnits(before, after string, active func(unit string) bool) Units {
	c := unitComparison{old: openUnits(before), new: openUnits(after)}
	c.pulledBefore, c.pulledAfter = c.old.pulledIn(), c.new.pulledIn()
	if c.active = active; c.active == nil {
		c.active = func(unit string) bool { return c.pulledBefore[unit] && c.old.stays(unit) }
	}
	c.stop, c.restart, c.reload, c.start = set{}, set{}, set{}, set{}
	c.skip, c.idle = set{}, set{}
	all := set{}
	for _, f := range []*unitFolder{c.old, c.new} {
		for unit := range f.units {
			all[unit] = true
		}
	}
	maps.Copy(all, c.pulledBefore)
	maps.Copy(all, c.pulledAfter)
	for _, unit := range all.sorted() {
		c.unit(unit)
	}
	for unit := range c.stop {
		if c.start[unit] {
			delete(c.stop, unit)
			delete(c.start, unit)
			c.restart[unit] = true
		}
	}
	for unit := range c.restart {
		delete(c.reload, unit)
		delete(c.start, unit)
	}
	return Units{c.stop.sorted(), c.restart.sorted(), c.reload.sorted(), c.start.sorted(), c.skip.sorted(), c.idle.sorted()}
}

// set is a set of units.
type set map[string]bool

func (s set) sorted() []string {
	list := make([]string, 0, len(s))
	for unit := range s {
		list = append(list, unit)
	}
	slices.Sort(list)
	return list
}

type unitComparison struct {
	old, new                                 *unitFolder
	pulledBefore, pulledAfter                set
	active                                   func(string) bool
	stop, restart, reload, start, skip, idle set
}

// unit sorts one unit into the lists.
func (c *unitComparison) unit(unit string) {
	was, is := c.old.read(unit), c.new.read(unit)
	if was == nil && is == nil {
		return
	}
	different := same
	if was != nil && is != nil {
		different = was.difference(is)
	}
	running := was != nil && c.active(unit)
	switch {
	case is == nil && running:
		if was.flag("Unit", "X-StopOnRemoval", true) {
			c.stop[unit] = true
		}
		return
	case is == nil:
		c.idle[unit] = true
		return
	case !running:
		// A target that is active starts what it wants, also what only runs for a moment.
		if c.pulledAfter[unit] && !isTarget(unit) && (!c.pulledBefore[unit] || was == nil || different != same) {
			c.start[unit] = true
		} else if was != nil && different != same {
			c.idle[unit] = true
		}
		return
	case isTarget(unit):
		if is.flag("Unit", "X-StopOnReconfiguration", false) {
			c.stop[unit], c.start[unit] = true, true
		}
		return
	case different == needsReload:
		c.reload[unit] = true
	case different == needsRestart:
		c.changed(unit, is)
	}
}

// changed decides about a unit that runs and has changed by more than what it can reload.
func (c *unitComparison) changed(unit string, is *unitFile) {
	switch kind := filepath.Ext(unit); {
	case kind == ".slice" || kind == ".socket":
		// Neither is touched: a slice has its limits from the reload of systemd, a socket would lose connections.
	case unit == "-.mount" || unit == "nix.mount" || kind == ".automount":
		c.reload[unit] = true
	case is.flag("Service", "X-ReloadIfChanged", false):
		c.reload[unit] = true
	case !is.flag("Service", "X-RestartIfChanged", true), is.flag("Unit", "RefuseManualStop", false), is.flag("Unit", "X-OnlyManualStart", false):
		c.skip[unit] = true
	case kind != ".service", !is.flag("Service", "X-StopIfChanged", true):
		c.restart[unit] = true
	default:
		c.restartSockets(unit, is)
	}
}

// restartSockets stops a service and starts it again, or its sockets, if those will start it when somebody comes.
func (c *unitComparison) restartSockets(unit string, is *unitFile) {
	sockets := strings.Fields(strings.Join(is.values["Service"]["Sockets"], " "))
	if len(sockets) == 0 {
		sockets = []string{strings.TrimSuffix(unit, ".service") + ".socket"}
	}
	bySocket := false
	for _, socket := range sockets {
		if c.old.read(socket) == nil || !c.active(socket) {
			continue
		}
		c.stop[socket] = true
		if c.new.read(socket) != nil {
			c.start[socket], bySocket = true, true
		}
	}
	c.stop[unit] = true
	if !bySocket || is.flag("Service", "X-NotSocketActivated", false) {
		c.start[unit] = true
	}
}

func isTarget(unit string) bool { return strings.HasSuffix(unit, ".target") }

// unitFolder is the folder systemd/system of a system's etc.
type unitFolder struct {
	dir   string
	units set // that have a file or an addition of their own, without templates and second names
	files map[string]*unitFile
}

func openUnits(dir string) *unitFolder {
	f := &unitFolder{dir: dir, units: set{}, files: map[string]*unitFile{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return f
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".d")
		if !isUnit(name) || strings.Contains(name, "@.") {
			continue
		}
		// A second name of a unit is a link beside it.
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && filepath.Dir(to) == "." && to != name {
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

// read gives a unit, nil if the system does not have it or has it masked.
func (f *unitFolder) read(unit string) *unitFile {
	if file, known := f.files[unit]; known {
		return file
	}
	file := f.parse(unit)
	f.files[unit] = file
	return file
}

func (f *unitFolder) parse(unit string) *unitFile {
	path := filepath.Join(f.dir, unit)
	if real, err := filepath.EvalSymlinks(path); err == nil && real == os.DevNull {
		return nil
	}
	file := &unitFile{values: map[string]map[string][]string{}}
	names := []string{unit}
	if before, after, instance := strings.Cut(unit, "@"); instance {
		if template := before + "@" + filepath.Ext(after); template != unit {
			names = []string{template, unit}
		}
	}
	found := false
	for _, name := range names {
		path := filepath.Join(f.dir, name)
		if text, err := readSome(path); err == nil && filepath.Ext(name) != "" {
			file.add(text)
			found = true
		}
		additions, err := filepath.Glob(globQuote(path) + ".d/*.conf")
		if err != nil {
			continue
		}
		for _, addition := range additions {
			if text, err := readSome(addition); err == nil {
				file.add(text)
				found = true
			}
		}
	}
	if !found {
		return nil
	}
	return file
}

// globQuote keeps a name from being a pattern: systemd's names have backslashes.
func globQuote(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

// maxFile is how much of a file is read.
const maxFile = 1 << 20

func readSome(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	return string(text), err
}

// alwaysActive are targets that are active on every machine that has come up.
var alwaysActive = []string{
	"sysinit.target", "basic.target", "multi-user.target", "local-fs.target", "remote-fs.target", "swap.target", "timers.target", "sockets.target",
	"paths.target", "network.target", "network-online.target", "network-pre.target", "getty.target", "cryptsetup.target", "time-sync.target",
	"nss-lookup.target", "nss-user-lookup.target", "machines.target",
}

// pulledIn are the units that the system starts by itself, among them those that are no longer active afterwards.
func (f *unitFolder) pulledIn() set {
	pulled := set{}
	todo := slices.Clone(alwaysActive)
	if to, err := os.Readlink(filepath.Join(f.dir, "default.target")); err == nil {
		todo = append(todo, filepath.Base(to))
	}
	for len(todo) > 0 {
		unit := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if pulled[unit] {
			continue
		}
		pulled[unit] = true
		for _, kind := range []string{".wants", ".requires", ".upholds"} {
			entries, err := os.ReadDir(filepath.Join(f.dir, unit+kind))
			if err != nil {
				continue
			}
			for _, e := range entries {
				if isUnit(e.Name()) {
					todo = append(todo, e.Name())
				}
			}
		}
		if file := f.read(unit); file != nil {
			for _, key := range []string{"Wants", "Requires", "BindsTo", "Upholds"} {
				todo = append(todo, strings.Fields(strings.Join(file.values["Unit"][key], " "))...)
			}
		}
	}
	maps.DeleteFunc(pulled, func(unit string, _ bool) bool { return f.read(unit) == nil })
	return pulled
}

// stays tells whether a unit that was started is active until it is stopped.
func (f *unitFolder) stays(unit string) bool {
	file := f.read(unit)
	if file == nil {
		return false
	}
	kind := file.values["Service"]["Type"]
	return len(kind) == 0 || kind[len(kind)-1] != "oneshot" || file.flag("Service", "RemainAfterExit", false)
}

// unitFile is what a unit says: by section and key, its values in order.
type unitFile struct {
	values map[string]map[string][]string
}

// add reads one file of the unit.
func (u *unitFile) add(text string) {
	section, line := "", ""
	for part := range strings.Lines(text) {
		part = strings.TrimRight(part, "\r\n")
		if trimmed := strings.TrimSpace(part); line == "" && (trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';') {
			continue
		}
		line += part
		if rest, goesOn := strings.CutSuffix(line, `\`); goesOn {
			line = rest + " "
			continue
		}
		whole := strings.TrimSpace(line)
		line = ""
		if strings.HasPrefix(whole, "[") && strings.HasSuffix(whole, "]") {
			section = whole[1 : len(whole)-1]
			continue
		}
		key, value, found := strings.Cut(whole, "=")
		if !found || section == "Install" {
			// That is for those who enable units by links, which NixOS makes itself.
			continue
		}
		if u.values[section] == nil {
			u.values[section] = map[string][]string{}
		}
		key = strings.TrimSpace(key)
		u.values[section][key] = append(u.values[section][key], strings.TrimSpace(value))
	}
}

// flag is the last value of a key as systemd reads booleans.
func (u *unitFile) flag(section, key string, otherwise bool) bool {
	values := u.values[section][key]
	if len(values) == 0 {
		return otherwise
	}
	switch strings.ToLower(values[len(values)-1]) {
	case "1", "yes", "true", "on", "y", "t":
		return true
	}
	return false
}

// difference says what a change of a unit asks for.
type difference int

const (
	same         difference = iota
	needsReload             // what can be taken over by a reload
	needsRestart            // more than that
)

// unimportant are the keys of [Unit] whose change asks for nothing.
var unimportant = []string{
	"Description", "Documentation", "OnFailure", "OnSuccess", "OnFailureJobMode", "IgnoreOnIsolate", "StopWhenUnneeded", "RefuseManualStart",
	"RefuseManualStop", "AllowIsolate", "CollectMode", "SourcePath",
}

func (u *unitFile) difference(to *unitFile) difference {
	result := same
	sections := maps.Clone(u.values)
	maps.Copy(sections, to.values)
	for section := range sections {
		keys := map[string][]string{}
		maps.Copy(keys, u.values[section])
		maps.Copy(keys, to.values[section])
		for key := range keys {
			was, before := u.values[section][key]
			is, after := to.values[section][key]
			switch {
			case before == after && slices.Equal(was, is):
			case section == "Unit" && slices.Contains(unimportant, key):
			case section == "Unit" && key == "X-Reload-Triggers", section == "Mount" && key == "Options" && before && after:
				result = max(result, needsReload)
			default:
				return needsRestart
			}
		}
	}
	return result
}
