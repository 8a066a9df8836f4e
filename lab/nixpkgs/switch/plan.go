package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// dialect is whose rules are followed.
type dialect string

// The dialects. today is switch-to-configuration-ng of 2026, autumn2024 the one that NixOS 24.11 began with, perl the program
// that came before.
const (
	today      dialect = "2026"
	autumn2024 dialect = "2024-09"
	perl       dialect = "perl"
)

// unitState is a unit that systemd has loaded and that is not inactive.
type unitState struct {
	Active string // active, activating, reloading, deactivating, failed, maintenance
	Path   string // its object on the bus
}

// plan is what has to happen to units, each a set of names.
type plan struct {
	stop, skip, restart, reload, start set
	// hidden are targets that are started, which are not told.
	hidden set
}

type set map[string]bool

func newPlan() *plan {
	return &plan{stop: set{}, skip: set{}, restart: set{}, reload: set{}, start: set{}, hidden: set{}}
}

// sorted are the names, without regard to case.
func (s set) sorted() []string {
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	return names
}

func (s set) without(other set) set {
	left := set{}
	for name := range s {
		if !other[name] {
			left[name] = true
		}
	}
	return left
}

// comparison compares the units of two folders.
type comparison struct {
	dialect  dialect
	old, new string
	states   map[string]unitState
	// fragment is where systemd has loaded a unit from.
	fragment func(unit string) string
	home     string // what a fragment that is looked at begins with
	plan     *plan
}

// all decides about every unit that is not inactive.
func (c *comparison) all() error {
	for _, unit := range sortedKeys(c.states) {
		if err := c.one(unit); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fileOf is the name of the unit's file in either folder: its own, or its template's.
func (c *comparison) fileOf(unit string) (file string, isInstance bool) {
	prefix, instance, found := strings.Cut(strings.TrimSuffix(unit, filepath.Ext(unit)), "@")
	if !found || instance == "" || strings.Contains(instance, ".") {
		return unit, false
	}
	// The program in Perl takes the template for every instance.
	if c.dialect != perl && (exists(c.old, unit) || exists(c.new, unit)) {
		return unit, false
	}
	return prefix + "@" + filepath.Ext(unit), true
}

func exists(folder, name string) bool {
	_, err := os.Stat(filepath.Join(folder, name))
	return err == nil
}

// isMasked tells whether a file ends at /dev/null.
func isMasked(file string) bool {
	target, err := filepath.EvalSymlinks(file)
	return err == nil && target == "/dev/null"
}

func (c *comparison) one(unit string) error {
	state := c.states[unit].Active
	if state != "active" && state != "activating" {
		return nil
	}
	file, isInstance := c.fileOf(unit)
	if !exists(c.old, file) {
		return nil
	}
	if c.dialect == today && !strings.HasPrefix(c.fragment(unit), c.home) {
		return nil
	}
	gone := !exists(c.new, file) || isMasked(filepath.Join(c.new, file))
	if c.dialect == today && isInstance {
		gone = gone || hasDropIn(filepath.Join(c.old, unit+".d")) && !hasDropIn(filepath.Join(c.new, unit+".d"))
	}
	if gone {
		return c.gone(unit, file)
	}
	if strings.HasSuffix(unit, ".target") {
		return c.target(unit, file)
	}
	what, err := c.difference(unit, file, isInstance)
	if err != nil {
		return err
	}
	switch what {
	case reloads:
		c.plan.reload[unit] = true
	case restarts:
		return c.changed(unit, file, isInstance)
	}
	return nil
}

// hasDropIn tells whether a folder has a drop-in that is more than a link to /dev/null.
func hasDropIn(folder string) bool {
	entries, err := os.ReadDir(folder)
	return err == nil && slices.ContainsFunc(entries, func(entry fs.DirEntry) bool {
		return strings.HasSuffix(entry.Name(), ".conf") && !isMasked(filepath.Join(folder, entry.Name()))
	})
}

func (c *comparison) gone(unit, file string) error {
	if isMasked(filepath.Join(c.old, file)) {
		return nil
	}
	text, err := c.read(c.old, unit, file, false)
	if err != nil {
		return err
	}
	if text.isTrue("Unit", "X-StopOnRemoval", true) {
		c.plan.stop[unit] = true
	}
	return nil
}

func (c *comparison) target(unit, file string) error {
	text, err := c.read(c.new, unit, file, false)
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"suspend.target", "hibernate.target", "hybrid-sleep.target"}, unit) &&
		!text.isTrue("Unit", "RefuseManualStart", false) && !c.onlyByHand(text) {
		c.plan.start[unit] = true
		c.plan.hidden[unit] = true
	}
	if text.isTrue("Unit", "X-StopOnReconfiguration", false) {
		c.plan.stop[unit] = true
	}
	return nil
}

// onlyByHand tells whether a unit is not started by a switch. The program in Perl does not know of that.
func (c *comparison) onlyByHand(text unitText) bool {
	return c.dialect != perl && text.isTrue("Unit", "X-OnlyManualStart", false)
}

func (c *comparison) read(folder, unit, file string, isInstance bool) (unitText, error) {
	if c.dialect == perl {
		return readAsPerl(filepath.Join(folder, file), filepath.Join(folder, file+".d", "overrides.conf"))
	}
	dropIns := []string{filepath.Join(folder, file+".d")}
	if isInstance {
		dropIns = append(dropIns, filepath.Join(folder, unit+".d"))
	}
	return readUnit(c.dialect, filepath.Join(folder, file), dropIns...)
}

func (c *comparison) difference(unit, file string, isInstance bool) (difference, error) {
	if c.dialect == perl {
		// The early program: whether file and drop-in are the same store paths.
		if fingerprint(c.old, file) == fingerprint(c.new, file) {
			return same, nil
		}
		return restarts, nil
	}
	before, err := c.read(c.old, unit, file, isInstance)
	if err != nil {
		return same, err
	}
	after, err := c.read(c.new, unit, file, isInstance)
	if err != nil {
		return same, err
	}
	return compareTexts(c.dialect, before, after), nil
}

func fingerprint(folder, unit string) string {
	text, _ := filepath.EvalSymlinks(filepath.Join(folder, unit))
	overrides, err := filepath.EvalSymlinks(filepath.Join(folder, unit+".d", "overrides.conf"))
	if err == nil {
		text += " " + overrides
	}
	return text
}

// changed decides about a unit whose text asks for a restart.
func (c *comparison) changed(unit, file string, isInstance bool) error {
	text, err := c.read(c.new, unit, file, isInstance)
	if err != nil {
		return err
	}
	c.restart(unit, file, text)
	return nil
}

// restart is what is done about a unit that is to be restarted, by its type and by what its new text says.
func (c *comparison) restart(unit, file string, text unitText) {
	p := c.plan
	kind := filepath.Ext(unit)
	switch {
	case slices.Contains([]string{"sysinit.target", "basic.target", "multi-user.target", "graphical.target"}, unit), kind == ".slice":
	case kind == ".path" && c.dialect != autumn2024:
	case unit == "-.mount", unit == "nix.mount", kind == ".mount" && c.dialect == perl:
		p.reload[unit] = true
	case kind == ".mount":
		p.restart[unit] = true
	case kind == ".socket":
	case text.isTrue("Service", "X-ReloadIfChanged", false) && (c.dialect == perl || !p.restart[unit] && !p.stop[unit]):
		p.reload[unit] = true
	case !text.isTrue("Service", "X-RestartIfChanged", true), text.isTrue("Unit", "RefuseManualStop", false), c.onlyByHand(text):
		p.skip[unit] = true
	case kind != ".service" && c.dialect != perl, !text.isTrue("Service", "X-StopIfChanged", true):
		p.restart[unit] = true
	default:
		c.stopAndStart(unit, file, text)
	}
}

// stopAndStart stops a service before the activation and starts it after that, or lets its socket do so.
func (c *comparison) stopAndStart(unit, file string, text unitText) {
	p := c.plan
	activated := false
	for _, socket := range c.socketsOf(unit, file, text) {
		_, runs := c.states[socket]
		_, err := os.Lstat(filepath.Join(c.new, socket))
		comes := err == nil
		switch {
		case runs && (comes || c.dialect == perl):
			p.stop[socket], p.start[socket] = true, true
			activated = true
		case runs:
			p.stop[socket] = true
		case comes && c.dialect == today:
			activated = true
		}
	}
	if !activated || c.dialect == today && text.isTrue("Service", "X-NotSocketActivated", false) {
		p.start[unit] = true
	}
	p.stop[unit] = true
	delete(p.reload, unit)
}

// socketsOf are the sockets that may start a service.
func (c *comparison) socketsOf(unit, _ string, text unitText) []string {
	if filepath.Ext(unit) != ".service" {
		return nil
	}
	if names := strings.Fields(strings.Join(text.values("Service", "Sockets"), " ")); len(names) > 0 {
		return names
	}
	base := strings.TrimSuffix(unit, ".service")
	if template, _, found := strings.Cut(base, "@"); found {
		if c.dialect == today {
			return []string{template + ".socket"}
		}
		return []string{template + "@.socket"}
	}
	return []string{base + ".socket"}
}

// byActivation takes the units that the activation has asked to restart into the plan. It gives an error for a unit that is
// not there.
func (c *comparison) byActivation(units []string) error {
	for _, unit := range units {
		if _, runs := c.states[unit]; !runs {
			c.plan.start[unit] = true
			continue
		}
		file, isInstance := c.fileOf(unit)
		text, err := c.read(c.new, unit, file, isInstance)
		if err != nil {
			return err
		}
		scratch := &comparison{dialect: c.dialect, new: c.new, old: c.old, states: c.states, plan: newPlan()}
		scratch.restart(unit, file, text)
		// After the stops: nothing is stopped first any more.
		for name := range scratch.plan.stop {
			c.plan.restart[name] = true
		}
		for name := range scratch.plan.restart {
			c.plan.restart[name] = true
		}
		for name := range scratch.plan.reload {
			c.plan.reload[name] = true
		}
		for name := range scratch.plan.start {
			if !scratch.plan.stop[name] {
				c.plan.start[name] = true
			}
		}
	}
	return nil
}

// readList reads a file of names, one a line; none if it is not there.
func readList(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}
