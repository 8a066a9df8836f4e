package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/godbus/dbus/v5"
)

// switchUsers does the part of each user who is logged in.
func (m *machine) switchUsers() error {
	const login = "org.freedesktop.login1"
	ctx, stop := context.WithTimeout(context.Background(), callLimit)
	defer stop()
	var users [][]any
	call := m.bus.conn.Object(login, "/org/freedesktop/login1").CallWithContext(ctx, login+".Manager.ListUsers", 0)
	err := call.Err
	if err == nil {
		err = call.Store(&users)
	}
	if err != nil {
		say("Unable to list users with logind: %v", err)
		if m.rules == today {
			return exit(int(syscall.EAGAIN))
		}
		return nil
	}
	for _, user := range users {
		uid, _ := user[0].(uint32)
		name, _ := user[1].(string)
		path, _ := user[2].(dbus.ObjectPath)
		group, groupErr := m.bus.conn.Object(login, path).GetProperty(login + ".User.GID")
		runtime, runtimeErr := m.bus.conn.Object(login, path).GetProperty(login + ".User.RuntimePath")
		if groupErr != nil || runtimeErr != nil {
			if m.rules == perl {
				continue
			}
			return fmt.Errorf("user %s: %w", name, firstOf(groupErr, runtimeErr))
		}
		gid, _ := group.Value().(uint32)
		folder, _ := runtime.Value().(string)
		say("reloading user units for %s...", name)
		if err := m.switchOne(uid, gid, folder); err != nil && m.rules == today {
			say("warning: user activation for %s failed", name)
			m.status = 4
		}
	}
	return nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// switchOne runs this program as a user.
func (m *machine) switchOne(uid, gid uint32, runtime string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Where it was before the activation.
	old := m.oldSystem
	cmd := exec.Command(self)
	cmd.Env = []string{
		"XDG_RUNTIME_DIR=" + runtime, parentVariable + "=" + self, "RULES=" + string(m.rules), "TOPLEVEL=" + m.toplevel,
		"OLD_TOPLEVEL=" + old, "NIXOS_ACTION=" + m.action,
	}
	cmd.Stdout, cmd.Stderr, cmd.Dir = os.Stdout, os.Stderr, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	return cmd.Run()
}

// userSwitch is the part of one user.
type userSwitch struct {
	bus    *systemd
	lists  lists
	plan   *plan
	failed bool
	jobs   []asked
}

// switchUser is the process of one user's part.
func switchUser(rules dialect) error {
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	bus, err := connect("unix:path="+runtime+"/bus", callLimit)
	if err != nil {
		return err
	}
	defer bus.close()
	u := &userSwitch{bus: bus, lists: lists{runtime + "/nixos"}, plan: newPlan()}
	if rules != today {
		_ = bus.call(manager+".Reexecute", nil)
		return u.restartActivation(os.Getenv("TOPLEVEL"))
	}
	if err := os.MkdirAll(u.lists.folder, 0o700); err != nil {
		return err
	}
	if err := u.run(os.Getenv("OLD_TOPLEVEL"), os.Getenv("TOPLEVEL")); err != nil {
		return err
	}
	if u.failed {
		return exit(4)
	}
	return nil
}

func (u *userSwitch) run(old, new string) error {
	states, err := u.bus.units()
	if err != nil {
		return err
	}
	c := &comparison{
		dialect: today, old: old + userUnits, new: new + userUnits, states: states, home: userUnits, plan: u.plan,
		fragment: func(unit string) string {
			return u.bus.property(states[unit].Path, "org.freedesktop.systemd1.Unit.FragmentPath")
		},
	}
	if err := c.all(); err != nil {
		return err
	}
	elsewhere := set{}
	for unit := range states {
		if path := c.fragment(unit); path != "" && !strings.HasPrefix(path, userUnits) && exists(c.new, unit) &&
			(strings.Contains(path, "/.config/systemd/user/") || !exists(c.old, unit)) {
			elsewhere[unit] = true
		}
	}
	tell("stopping the following user units", u.plan.stop.without(u.plan.hidden))
	if err := u.ask("Stop", u.plan.stop); err != nil {
		return err
	}
	tell("NOT restarting the following user units", u.plan.skip)
	_ = u.bus.call(manager+".Reexecute", nil)
	_ = u.bus.call(manager+".ResetFailed", nil)
	_ = u.bus.call(manager+".Reload", nil)
	for _, step := range []struct {
		verb, says   string
		units, shown set
	}{
		{"Reload", "reloading the following user units", u.plan.reload, u.plan.reload},
		{"Restart", "restarting the following user units", u.plan.restart, u.plan.restart},
		{"Start", "starting the following user units", u.plan.start, u.plan.start.without(u.plan.hidden)},
	} {
		tell(step.says, step.shown)
		if err := u.ask(step.verb, step.units); err != nil {
			return err
		}
	}
	if err := u.restartActivation(new); err != nil {
		return err
	}
	if len(elsewhere) > 0 {
		tell("restarting the following user units (post-activation)", elsewhere)
		if err := u.ask("Restart", elsewhere); err != nil {
			return err
		}
	}
	return u.judge()
}

// restartActivation restarts the user's activation unit, if the system has one. Its result is not looked at.
func (u *userSwitch) restartActivation(toplevel string) error {
	if !exists(filepath.Join(toplevel, userUnits), "nixos-activation.service") {
		return nil
	}
	job, err := u.bus.job("Restart", "nixos-activation.service")
	if err != nil {
		say("Failed to restart nixos-activation.service: %v", err)
		u.failed = true
		return nil
	}
	return u.bus.await([]dbus.ObjectPath{job})
}

func (u *userSwitch) ask(verb string, units set) error {
	var jobs []dbus.ObjectPath
	for _, unit := range units.sorted() {
		job, err := u.bus.job(verb, unit)
		if err != nil {
			if verb != "Stop" {
				say("Failed to %s user unit %s: %v", strings.ToLower(verb), unit, err)
				u.failed = true
			}
			continue
		}
		jobs = append(jobs, job)
		u.jobs = append(u.jobs, asked{strings.ToLower(verb), unit, job})
	}
	return u.bus.await(jobs)
}

func (u *userSwitch) judge() error {
	failed := set{}
	for _, job := range u.jobs {
		switch u.bus.results[job.path].how {
		case "timeout", "failed", "dependency":
			say("Failed to %s user unit %s", job.verb, job.unit)
			failed[job.unit] = true
		}
	}
	if len(failed) > 0 {
		tell("warning: the following user units failed", failed)
		say("See `systemctl --user status …` for details.")
		u.failed = true
	}
	return nil
}
