package compare

import (
	"fmt"
	"maps"
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
	// Again are those that have not changed and do not run, and are started because something wants them: what only runs for a
	// moment, or was stopped by hand.
	Again []string `json:"again"`
	// Skip are those that have changed and go on as they are, because the configuration says so.
	Skip []string `json:"skip"`
	// Left are those that have changed and go on as they are, because a switch does nothing to such units.
	Left []string `json:"left"`
	// Idle are those that have changed or are gone, and do not run as far as is known: nothing is done to them.
	Idle []string `json:"idle"`
}

// Empty tells whether nothing is done to any unit that has not been done by every switch.
func (u Units) Empty() bool {
	return len(u.Stop)+len(u.Restart)+len(u.Reload)+len(u.Start)+len(u.Skip)+len(u.Left)+len(u.Idle) == 0
}

// noUnits are none.
func noUnits() Units {
	none := []string{}
	return Units{none, none, none, none, none, none, none, none}
}

// Done is what is done to each unit, in words: "restarted".
func (u Units) Done() map[string]string {
	done := map[string]string{}
	for _, list := range []struct {
		what  string
		units []string
	}{{"stopped", u.Stop}, {"restarted", u.Restart}, {"reloaded", u.Reload}, {"started", u.Start}} {
		for _, unit := range list.units {
			if done[unit] != "" {
				done[unit] += " and "
			}
			done[unit] += list.what
		}
	}
	return done
}

// Running is what of a machine's units a switch goes by.
type Running struct {
	// States are those of the units that systemd has loaded, by their first names: active, inactive, failed and so on.
	States map[string]string
	// Files are those that units were loaded from, where that is another than the one of the name in /etc/systemd/system.
	Files map[string]string
	// Start, Restart and Reload are what a switch before has left to do.
	Start, Restart, Reload []string
}

// set is a set of units.
type set map[string]bool

func (s set) sorted() []string { return append([]string{}, slices.Sorted(maps.Keys(s))...) }

func setOf(units []string) set {
	s := set{}
	for _, unit := range units {
		s[unit] = true
	}
	return s
}

// unitComparison decides about units as a switch program does.
type unitComparison struct {
	program  Program
	old, new *unitFolder
	home     string            // what the names of files begin with that units are loaded from
	states   map[string]string // of those that are not inactive
	loaded   set               // nil: that is not known
	files    map[string]string

	stop, restart, reload, start, skip set
	leftover                           set // what a switch before has left to start and restart
	// bySocket are the sockets that services are left to, by service.
	bySocket map[string][]string
	problems []string
}

// newComparison compares two folders of units. running is what runs of the first; nil: those are taken to run that it starts by
// itself and that do not end by themselves.
func newComparison(program Program, before, after, home string, running *Running) *unitComparison {
	c := &unitComparison{
		program: program, old: openUnits(program, before), new: openUnits(program, after), home: home, states: map[string]string{},
		stop: set{}, restart: set{}, reload: set{}, start: set{}, skip: set{}, bySocket: map[string][]string{}, problems: []string{},
	}
	if running == nil {
		for unit := range c.old.started() {
			if c.old.stays(unit) {
				c.states[unit] = "active"
			}
		}
		return c
	}
	c.loaded, c.files = set{}, running.Files
	for unit, state := range running.States {
		c.loaded[unit] = true
		if state != "inactive" {
			c.states[unit] = state
		}
	}
	c.start, c.restart, c.reload = setOf(running.Start), setOf(running.Restart), setOf(running.Reload)
	c.leftover = setOf(append(slices.Clone(running.Start), running.Restart...))
	return c
}

// decide takes every unit that runs, in the order of their names. An error is what makes the program end before it does anything.
func (c *unitComparison) decide() error {
	for _, unit := range slices.Sorted(maps.Keys(c.states)) {
		if err := c.unit(unit); err != nil {
			return err
		}
	}
	return nil
}

func (c *unitComparison) runs(unit string) bool {
	return c.states[unit] == "active" || c.states[unit] == "activating"
}

// isElsewhere tells whether a unit was loaded from a file that is not the system's: today's program leaves those alone.
func (c *unitComparison) isElsewhere(unit string) bool {
	file, known := c.files[unit]
	return c.program == Today && known && !strings.HasPrefix(file, c.home)
}

// fileOf is the name of the file that stands for a unit in both folders.
func (c *unitComparison) fileOf(unit string) string {
	template := templateOf(unit)
	if template == "" || c.program != Perl && (c.old.has(unit) || c.new.has(unit)) {
		return unit
	}
	return template
}

// unit decides about a unit that is not inactive.
func (c *unitComparison) unit(unit string) error {
	file := c.fileOf(unit)
	if c.isElsewhere(unit) || !c.old.has(file) || !c.runs(unit) {
		return nil
	}
	isGone := c.new.lacks(file)
	if c.program == Today && unit != file {
		isGone = isGone || c.old.hasDropIn(unit) && !c.new.hasDropIn(unit)
	}
	switch {
	case isGone:
		text, err := c.old.text(file, file)
		if err == nil && text.is("Unit", "X-StopOnRemoval", true) {
			c.stop[unit] = true
		}
		return err
	case isTarget(unit):
		return c.target(unit, file)
	}
	switch what, err := c.difference(unit, file); {
	case err != nil:
		return err
	case what == needsReload:
		c.reload[unit] = true
	case what == needsRestart:
		return c.changed(unit, file)
	}
	return nil
}

// target decides about a target that is active: it is started again, so that systemd starts what it wants.
func (c *unitComparison) target(unit, file string) error {
	text, err := c.new.text(file, file)
	if err != nil {
		return err
	}
	sleeps := slices.Contains([]string{"suspend.target", "hibernate.target", "hybrid-sleep.target"}, unit)
	onlyByHand := c.program != Perl && text.is("Unit", "X-OnlyManualStart", false)
	if !sleeps && !onlyByHand && !text.is("Unit", "RefuseManualStart", false) {
		c.start[unit] = true
	}
	if text.is("Unit", "X-StopOnReconfiguration", false) {
		c.stop[unit] = true
	}
	return nil
}

// difference compares a unit's texts; the program in Perl looks at the places of the files.
func (c *unitComparison) difference(unit, file string) (difference, error) {
	if c.program == Perl {
		places := func(f *unitFolder) [2]string {
			path := filepath.Join(f.dir, file)
			return [2]string{place(path), place(path + ".d/overrides.conf")}
		}
		if places(c.old) == places(c.new) {
			return same, nil
		}
		return needsRestart, nil
	}
	before, err := c.old.text(unit, file)
	if err != nil {
		return same, err
	}
	after, err := c.new.text(unit, file)
	if err != nil {
		return same, err
	}
	return differenceOf(c.program, before, after), nil
}

// changed decides about a unit that runs and has changed by more than what it can reload.
func (c *unitComparison) changed(unit, file string) error {
	text, err := c.new.text(unit, file)
	if err != nil {
		return err
	}
	switch kind := filepath.Ext(unit); {
	case kind == ".slice" || kind == ".socket" || kind == ".path" && c.program != Autumn2024:
		// None is touched: a slice has its limits from the reload of systemd, a socket would lose connections.
	case kind == ".mount" && (c.program == Perl || unit == "-.mount" || unit == "nix.mount"):
		c.reload[unit] = true
	case kind == ".mount":
		c.restart[unit] = true
	case text.is("Service", "X-ReloadIfChanged", false) && (c.program == Perl || !c.restart[unit] && !c.stop[unit]):
		c.reload[unit] = true
	case !text.is("Service", "X-RestartIfChanged", true), text.is("Unit", "RefuseManualStop", false),
		c.program != Perl && text.is("Unit", "X-OnlyManualStart", false):
		c.skip[unit] = true
	case kind != ".service" && c.program != Perl, !text.is("Service", "X-StopIfChanged", true):
		c.restart[unit] = true
	default:
		c.stopAndStart(unit, text)
	}
	return nil
}

// stopAndStart stops a service and starts it again, or its sockets, if those will start it when somebody comes.
func (c *unitComparison) stopAndStart(unit string, text unitText) {
	leftToSockets := false
	for _, socket := range c.socketsOf(unit, text) {
		_, there := c.states[socket]
		comes := c.new.hasName(socket)
		switch {
		case there && (comes || c.program == Perl):
			c.stop[socket], c.start[socket], leftToSockets = true, true, true
			c.bySocket[unit] = append(c.bySocket[unit], socket)
		case there:
			c.stop[socket] = true
		case comes && c.program == Today:
			leftToSockets = true
			c.bySocket[unit] = append(c.bySocket[unit], socket)
		}
	}
	c.stop[unit] = true
	delete(c.reload, unit)
	if !leftToSockets || c.program == Today && text.is("Service", "X-NotSocketActivated", false) {
		c.start[unit] = true
	}
}

// socketsOf are the sockets that a program takes to be those of a service.
func (c *unitComparison) socketsOf(unit string, text unitText) []string {
	base, isService := strings.CutSuffix(unit, ".service")
	if !isService {
		return nil
	}
	if sockets := text.words("Service", "Sockets"); len(sockets) > 0 {
		return sockets
	}
	if template, _, found := strings.Cut(base, "@"); found {
		if base = template; c.program != Today {
			base += "@"
		}
	}
	return []string{base + ".socket"}
}

// result sorts out what comes of it all, with what systemd starts because targets are started.
func (c *unitComparison) result() Units {
	started := append(c.start.sorted(), c.restart.sorted()...)
	goesOn := func(unit string) bool { return c.states[unit] != "" && c.states[unit] != "failed" && !c.stop[unit] }
	wanted, before := c.new.pulls(goesOn, started...), c.old.pulls(goesOn, started...)
	again, left, idle := set{}, set{}, set{}
	all := set{}
	maps.Copy(all, wanted)
	maps.Copy(all, c.old.units)
	maps.Copy(all, c.new.units)
	for unit := range c.states {
		all[unit] = true
	}
	startedAnyway := set{}
	for unit := range all {
		_, there := c.states[unit]
		isWanted := wanted[unit] && (!there || c.states[unit] == "failed" || c.stop[unit])
		switch changed := c.isChanged(unit); {
		case isWanted && c.stop[unit]:
			startedAnyway[unit] = true
		case isWanted && (!before[unit] || changed):
			startedAnyway[unit] = true
		case isWanted && !isTarget(unit) && filepath.Ext(unit) != ".slice" && !mayRefuse(c.new.own(unit)):
			again[unit] = true
		case c.stop[unit] || c.restart[unit] || c.reload[unit] || c.start[unit] || c.skip[unit] || !changed:
		case c.runs(unit):
			left[unit] = true
		default:
			idle[unit] = true
		}
	}
	c.lookAhead(wanted)
	starts, stops, restarts := maps.Clone(c.start), maps.Clone(c.stop), maps.Clone(c.restart)
	maps.Copy(starts, startedAnyway)
	for unit := range starts {
		// A target that runs is started, or stopped before, only for the sake of what it wants, by every switch.
		if isTarget(unit) && c.runs(unit) {
			delete(starts, unit)
			delete(stops, unit)
		}
	}
	for unit := range stops {
		if starts[unit] {
			restarts[unit] = true
		}
	}
	for unit := range restarts {
		delete(stops, unit)
		delete(starts, unit)
	}
	return Units{
		Stop: stops.sorted(), Restart: restarts.sorted(), Reload: c.reload.sorted(), Start: starts.sorted(), Again: again.sorted(),
		Skip: c.skip.sorted(), Left: left.sorted(), Idle: idle.sorted(),
	}
}

// isChanged tells whether a unit is another one in the new system, or gone, whether it runs or not.
func (c *unitComparison) isChanged(unit string) bool {
	file := c.fileOf(unit)
	if c.old.lacks(file) {
		return false
	}
	if c.new.lacks(file) {
		// What stays loaded without a file is none of the system's any more.
		return !c.runs(unit)
	}
	if isTarget(unit) {
		return false
	}
	what, err := c.difference(unit, file)
	return err == nil && what != same
}

// lookAhead finds what of all this cannot go well.
func (c *unitComparison) lookAhead(wanted set) {
	for _, unit := range c.reload.sorted() {
		text := c.new.own(unit)
		kind := filepath.Ext(unit)
		if text != nil && (kind == ".service" && len(text.values("Service", "ExecReload")) == 0 || kind != ".service" && kind != ".mount") {
			c.problems = append(c.problems, fmt.Sprintf("%s is to be reloaded, which it cannot do", unit))
		}
	}
	for _, unit := range c.leftover.sorted() {
		if c.new.own(unit) == nil {
			c.problems = append(c.problems, fmt.Sprintf("%s is to be started, as a switch before has left it, and is gone", unit))
		}
	}
	for _, unit := range slices.Sorted(maps.Keys(c.bySocket)) {
		starts := func(socket string) bool { return wanted[socket] || c.start[socket] }
		if !c.start[unit] && !wanted[unit] && !slices.ContainsFunc(c.bySocket[unit], starts) {
			c.problems = append(c.problems, fmt.Sprintf("%s is stopped and left to %s, which nothing starts", unit, strings.Join(c.bySocket[unit], " and ")))
		}
	}
}
