package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// systemd is a connection to a service manager, over the bus: the machine's own or a user's.
type systemd struct {
	conn    *dbus.Conn
	signals chan *dbus.Signal
	// results are those of the jobs that have ended, by the job's object.
	results map[dbus.ObjectPath]result
	// limit is how long a call may take; callers wait for jobs without one.
	limit time.Duration
}

// result is how a job has ended, as systemd says it: done, canceled, timeout, failed, dependency, skipped, …
type result struct{ unit, how string }

const (
	manager      = "org.freedesktop.systemd1.Manager"
	managerPath  = "/org/freedesktop/systemd1"
	managerOwner = "org.freedesktop.systemd1"
)

// connect opens the bus at address, "" for the system's, and asks the manager for its signals.
func connect(address string, limit time.Duration) (*systemd, error) {
	if address == "" {
		address = "unix:path=/run/dbus/system_bus_socket"
	}
	conn, err := dbus.Connect(address)
	if err != nil {
		return nil, message{"Failed to open dbus connection", err}
	}
	s := &systemd{conn: conn, signals: make(chan *dbus.Signal, 4096), results: map[dbus.ObjectPath]result{}, limit: limit}
	conn.Signal(s.signals)
	for _, member := range []string{"JobRemoved", "Reloading"} {
		if err := conn.AddMatchSignal(dbus.WithMatchInterface(manager), dbus.WithMatchMember(member)); err != nil {
			return nil, err
		}
	}
	return s, s.call(manager+".Subscribe", nil)
}

func (s *systemd) close() { _ = s.conn.Close() }

func (s *systemd) call(method string, into any, args ...any) error {
	ctx, stop := context.WithTimeout(context.Background(), s.limit)
	defer stop()
	call := s.conn.Object(managerOwner, managerPath).CallWithContext(ctx, method, 0, args...)
	if call.Err != nil || into == nil {
		return call.Err
	}
	return call.Store(into)
}

// units are all that are loaded under their first name, follow no other, and are not inactive.
func (s *systemd) units() (map[string]unitState, error) {
	var list [][]any
	if err := s.call(manager+".ListUnits", &list); err != nil {
		return nil, fmt.Errorf("ListUnits: %w", err)
	}
	states := map[string]unitState{}
	for _, entry := range list {
		name, _ := entry[0].(string)
		active, _ := entry[3].(string)
		following, _ := entry[5].(string)
		path, _ := entry[6].(dbus.ObjectPath)
		if following == "" && active != "inactive" {
			states[name] = unitState{Active: active, Path: string(path)}
		}
	}
	return states, nil
}

// property is a unit's; "" where it is not known.
func (s *systemd) property(path, name string) string {
	value, err := s.conn.Object(managerOwner, dbus.ObjectPath(path)).GetProperty(name)
	if err != nil {
		return ""
	}
	return fmt.Sprint(value.Value())
}

// load is the object of a unit that is loaded; an error if it is not.
func (s *systemd) load(unit string) (string, error) {
	var path dbus.ObjectPath
	err := s.call(manager+".GetUnit", &path, unit)
	return string(path), err
}

// job asks for one: Start, Stop, Restart or Reload.
func (s *systemd) job(verb, unit string) (dbus.ObjectPath, error) {
	var path dbus.ObjectPath
	err := s.call(manager+"."+verb+"Unit", &path, unit, "replace")
	return path, err
}

// errBusLost ends a run whose bus is gone.
var errBusLost error = message{"Failed to process dbus messages while waiting for jobs", nil}

// take takes one signal in, if one comes within wait. It gives whether the manager has said that it reloads or has reloaded.
func (s *systemd) take(wait time.Duration) (came bool, reloading *bool, err error) {
	select {
	case signal := <-s.signals:
		if signal == nil {
			return false, nil, errBusLost
		}
		switch signal.Name {
		case manager + ".JobRemoved":
			if len(signal.Body) == 4 {
				path, _ := signal.Body[1].(dbus.ObjectPath)
				unit, _ := signal.Body[2].(string)
				how, _ := signal.Body[3].(string)
				s.results[path] = result{unit, how}
			}
		case manager + ".Reloading":
			if len(signal.Body) == 1 {
				if is, ok := signal.Body[0].(bool); ok {
					return true, &is, nil
				}
			}
		}
		return true, nil, nil
	case <-s.conn.Context().Done():
		return false, nil, errBusLost
	case <-time.After(wait):
		return false, nil, nil
	}
}

// await waits until all of the jobs have ended, without a limit.
func (s *systemd) await(jobs []dbus.ObjectPath) error {
	for _, job := range jobs {
		for s.results[job] == (result{}) {
			if _, _, err := s.take(time.Second); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitReload waits until the manager says that it has reloaded.
func (s *systemd) awaitReload(what string) error {
	for end := time.Now().Add(180 * time.Second); time.Now().Before(end); {
		_, reloading, err := s.take(time.Second)
		if err != nil {
			return err
		}
		if reloading != nil && !*reloading {
			return nil
		}
	}
	return fmt.Errorf("systemd daemon %s failed, timeout after 180s", what)
}

// reload has the manager read its files again, and waits for that.
func (s *systemd) reload() error {
	if err := s.call(manager+".Reload", nil); err != nil {
		return err
	}
	return s.awaitReload("reload")
}

// settle waits until systemd has had nothing to say for a quarter of a second, for a bounded number of messages.
func (s *systemd) settle() error {
	for range 360 {
		came, _, err := s.take(250 * time.Millisecond)
		if err != nil || !came {
			return err
		}
	}
	return nil
}

// lists are the files in which a run says what is left to do, for the next one after an interruption.
type lists struct{ folder string }

func (l lists) file(name string) string { return l.folder + "/" + name + "-list" }

// add appends names to a list.
func (l lists) add(name string, units set) error {
	if len(units) == 0 {
		return nil
	}
	file, err := os.OpenFile(l.file(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(strings.Join(units.sorted(), "\n") + "\n")
	return errors.Join(err, file.Close())
}

func (l lists) remove(name string) error {
	err := os.Remove(l.file(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
