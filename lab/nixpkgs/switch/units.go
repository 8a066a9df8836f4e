package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// callLimit and olderCallLimit are how long a call over the bus may take.
const (
	callLimit      = 25 * time.Second
	olderCallLimit = 5 * time.Second
)

// look finds out what has to happen to units.
func (m *machine) look() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil
	}
	limit := callLimit
	if m.rules == autumn2024 {
		limit = olderCallLimit
	}
	bus, err := connect("", limit)
	if err != nil {
		return err
	}
	m.bus = bus
	if m.rules == autumn2024 {
		m.awaitBoot()
	}
	if m.states, err = bus.units(); err != nil {
		return err
	}
	for name, into := range map[string]set{"start": m.plan.start, "restart": m.plan.restart, "reload": m.plan.reload} {
		pending, err := readList(m.lists.file(name))
		if err != nil {
			return err
		}
		for _, unit := range pending {
			into[unit] = true
		}
	}
	m.units = &comparison{
		dialect: m.rules, old: etcUnits, new: m.toplevel + etcUnits, states: m.states, home: etcUnits, plan: m.plan,
		fragment: func(unit string) string {
			return bus.property(m.states[unit].Path, "org.freedesktop.systemd1.Unit.FragmentPath")
		},
	}
	if err := m.units.all(); err != nil {
		return err
	}
	m.compareMounts()
	if programOf(os.Getenv("SYSTEMD")+"/lib/systemd/systemd") == "" {
		return exit(2)
	}
	// The activation puts the new configuration in the old one's place.
	m.reexec = m.needsReexec()
	if m.action == "dry-activate" {
		return nil
	}
	for _, list := range []struct {
		name  string
		units set
	}{{"start", m.plan.start}, {"restart", m.plan.restart}, {"reload", m.plan.reload}} {
		if err := m.lists.add(list.name, list.units); err != nil {
			return err
		}
	}
	return nil
}

// awaitBoot waits until the machine has booted, as the older program does.
func (m *machine) awaitBoot() {
	for {
		switch m.bus.property(managerPath, manager+".SystemState") {
		case "running", "degraded", "maintenance", "":
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// needsReexec tells whether PID 1 is another program in the new system, or has another configuration.
func (m *machine) needsReexec() bool {
	running, err := os.Readlink("/proc/1/exe")
	if err == nil && programOf(os.Getenv("SYSTEMD")+"/lib/systemd/systemd") != running {
		return true
	}
	return m.rules != perl && isConfiguredAnew("/etc", m.toplevel+"/etc")
}

// isConfiguredAnew tells whether systemd has its configuration from another place. What that says is not looked at.
func isConfiguredAnew(before, after string) bool {
	const file = "/systemd/system.conf"
	return programOf(before+file) != programOf(after+file)
}

// foretell says what a switch would do.
func (m *machine) foretell() error {
	m.fault.strike("activate")
	tell("would stop the following units", m.plan.stop.without(m.plan.hidden))
	tell("would NOT stop the following changed units", m.plan.skip)
	say("would activate the configuration...")
	_ = start(m.out+"/dry-activate", m.out)
	m.fault.strike("units")
	if m.bus != nil {
		if err := m.activationLists("dry-activation-"); err != nil {
			return err
		}
		if m.rules != perl && m.reexec {
			say("would restart systemd")
		}
	}
	tell("would reload the following units", m.plan.reload)
	tell("would restart the following units", m.plan.restart)
	tell("would start the following units", m.plan.start.without(m.plan.hidden))
	m.fault.strike("end")
	return nil
}

func (m *machine) stopUnits() error {
	if m.bus == nil {
		return nil
	}
	// What is stopped may be asked for by its old configuration only.
	tell("stopping the following units", m.plan.stop.without(m.plan.hidden))
	var jobs []dbus.ObjectPath
	for _, unit := range m.plan.stop.sorted() {
		if job, err := m.bus.job("Stop", unit); err == nil {
			jobs = append(jobs, job)
			m.jobs = append(m.jobs, asked{"stop", unit, job})
		}
	}
	if err := m.bus.await(jobs); err != nil {
		return err
	}
	tell("NOT restarting the following changed units", m.plan.skip)
	return nil
}

// activationLists takes the units that the activation has asked for.
func (m *machine) activationLists(prefix string) error {
	restart, err := readList(m.lists.file(prefix + "restart"))
	if err != nil {
		return err
	}
	reload, err := readList(m.lists.file(prefix + "reload"))
	if err != nil {
		return err
	}
	if len(restart)+len(reload) > 0 && m.rules == today {
		say("WARN: restarting or reloading systemd units from the activation script is deprecated and will be removed in NixOS 26.11.")
	}
	if err := m.units.byActivation(restart); err != nil {
		return err
	}
	for _, unit := range reload {
		if _, runs := m.states[unit]; runs && !m.plan.restart[unit] && !m.plan.stop[unit] {
			m.plan.reload[unit] = true
		}
	}
	for _, name := range []string{prefix + "restart", prefix + "reload"} {
		if err := m.lists.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// restartUnits does what comes after the activation.
func (m *machine) restartUnits() error {
	if err := m.activationLists("activation-"); err != nil {
		return err
	}
	for name, units := range map[string]set{"start": m.plan.start, "restart": m.plan.restart, "reload": m.plan.reload} {
		if err := m.lists.add(name, units); err != nil {
			return err
		}
	}
	if err := m.reloadManager(); err != nil {
		return err
	}
	if err := m.switchUsers(); err != nil {
		return err
	}
	if m.rules == perl {
		m.runTmpfiles()
	} else {
		say("restarting sysinit-reactivation.target")
		if err := m.ask("Restart", set{"sysinit-reactivation.target": true}); err != nil {
			return err
		}
	}
	if err := m.reconsiderReloads(); err != nil {
		return err
	}
	for _, step := range []struct {
		verb, list, says string
		units            set
		shown            set
	}{
		{"Reload", "reload", "reloading the following units", m.plan.reload, m.plan.reload},
		{"Restart", "restart", "restarting the following units", m.plan.restart, m.plan.restart},
		{"Start", "start", "starting the following units", m.plan.start, m.plan.start.without(m.plan.hidden)},
	} {
		tell(step.says, step.shown)
		if err := m.ask(step.verb, step.units); err != nil {
			return err
		}
		if len(step.units) > 0 || step.list == "start" {
			if err := m.lists.remove(step.list); err != nil {
				return err
			}
		}
	}
	return m.judge()
}

// reloadManager has systemd take in the new units.
func (m *machine) reloadManager() error {
	if m.reexec {
		say("restarting systemd...")
		// The connection is closed under the call.
		_ = m.bus.call(manager+".Reexecute", nil)
		if err := m.bus.awaitReload("reexecute"); err != nil {
			return err
		}
	}
	if err := m.bus.call(manager+".ResetFailed", nil); err != nil {
		return err
	}
	if err := m.bus.reload(); err != nil {
		if m.rules == perl {
			m.status = 3
			return nil
		}
		return err
	}
	return nil
}

func (m *machine) runTmpfiles() {
	rules := m.toplevel + "/etc/tmpfiles.d/nixos.conf"
	if _, err := os.Stat(rules); err == nil && start("systemd-tmpfiles", "--create", "--remove", "--exclude-prefix=/dev", rules) != nil {
		m.status = 3
	}
}

// reconsiderReloads takes units off the reload list that do not run any more.
func (m *machine) reconsiderReloads() error {
	for _, unit := range m.plan.reload.sorted() {
		path, err := m.bus.load(unit)
		if err != nil {
			if m.rules == perl {
				continue
			}
			return message{"Failed to get unit " + unit, nil}
		}
		switch m.bus.property(path, "org.freedesktop.systemd1.Unit.ActiveState") {
		case "active", "activating", "reloading":
			continue
		}
		delete(m.plan.reload, unit)
		if !exists(m.units.new, unit) {
			if m.rules == autumn2024 {
				return message{"Failed to open unit file " + unit, nil}
			}
			continue
		}
		text, err := m.units.read(m.units.new, unit, unit, false)
		if err != nil {
			return err
		}
		if !text.isTrue("Unit", "RefuseManualStart", false) || text.isTrue("Unit", "X-OnlyManualStart", false) {
			m.plan.start[unit] = true
			if err := m.lists.add("start", set{unit: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// asked is a job that was asked for.
type asked struct {
	verb, unit string
	path       dbus.ObjectPath
}

// ask asks for a job for each unit and waits for all of them.
func (m *machine) ask(verb string, units set) error {
	var jobs []dbus.ObjectPath
	for _, unit := range units.sorted() {
		job, err := m.bus.job(verb, unit)
		if err != nil {
			say("Failed to %s %s: %v", strings.ToLower(verb), unit, err)
			m.status = 4
			continue
		}
		jobs = append(jobs, job)
		m.jobs = append(m.jobs, asked{strings.ToLower(verb), unit, job})
	}
	return m.bus.await(jobs)
}

// judge tells what has failed and what is new.
func (m *machine) judge() error {
	for _, job := range m.jobs {
		switch m.bus.results[job.path].how {
		case "timeout", "failed", "dependency":
			say("Failed to %s %s", job.verb, job.unit)
			m.status = 4
		}
	}
	if err := m.bus.settle(); err != nil {
		return err
	}
	now, err := m.bus.units()
	if err != nil {
		return err
	}
	failed, fresh := set{}, set{}
	for unit, state := range now {
		_, known := m.states[unit]
		switch {
		case m.hasFailed(unit, state):
			failed[unit] = true
		case !known && !strings.HasSuffix(unit, ".scope"):
			fresh[unit] = true
		}
	}
	tell("the following new units were started", fresh)
	if len(failed) > 0 {
		tell("warning: the following units failed", failed)
		_ = start(append([]string{os.Getenv("SYSTEMD") + "/bin/systemctl", "status", "--no-pager", "--full"}, failed.sorted()...)...)
		m.status = 4
	}
	return nil
}

func (m *machine) hasFailed(unit string, state unitState) bool {
	if state.Active == "failed" {
		return true
	}
	if !strings.HasSuffix(unit, ".service") || m.bus.property(state.Path, "org.freedesktop.systemd1.Unit.SubState") != "auto-restart" {
		return false
	}
	status, err := strconv.Atoi(m.bus.property(state.Path, "org.freedesktop.systemd1.Service.ExecMainStatus"))
	return err == nil && status != 0
}
