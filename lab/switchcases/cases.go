// Package switchcases has what NixOS's programs switch-to-configuration do about units, case by case: what the lab's stand-in
// does is tested against it, and so is what ferry foretells. Neither knows of the other.
package switchcases

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The programs, as the option system.switch.rules names them.
const (
	Today      = "2026"
	Autumn2024 = "2024-09"
	Perl       = "perl"
)

// Programs are all of them.
func Programs() []string { return []string{Today, Autumn2024, Perl} }

// Files are files below a system's etc by name, those of units without the folder systemd/system. A text "-> PLACE" is a link.
type Files map[string]string

// Case is a change of a system that runs.
type Case struct {
	// Name begins with the number of the case in the list of what is known of the programs; letters are further ones.
	Name string
	// Runs are the units that are not inactive, with their state where it is not "active": "a.service b.socket=failed".
	Runs string
	// From are the folders that units were loaded from, where that is not /etc/systemd/system.
	From map[string]string
	// Left is what a switch before has left to do: "restart a.service, start b.service".
	Left     string
	Old, New Files
	// Does is what each program does: verbs and units, sorted, "" for nothing, "status 1" for an end before anything. The verbs
	// are reload, restart, skip (named as not restarted), start, stop, swapoff, and reexec for systemd itself; those for what is
	// done in users' own service managers have "user " in front.
	Does map[string]string
	// Systemd is what comes of the targets that a program starts: "start" and, for what has not changed, "again".
	Systemd string
	// Trouble is a part of what a person has to be told of what cannot go well, by program.
	Trouble map[string]string
}

// all is what every program does, each what each does, in the order of Programs.
func all(does string) map[string]string { return each(does, does, does) }

func each(today, autumn, perl string) map[string]string {
	return map[string]string{Today: today, Autumn2024: autumn, Perl: perl}
}

// Write makes the two systems, each a folder with an etc below dir. Equal texts are one file, as in a store.
func (c Case) Write(dir string) (before, after string, err error) {
	before, after = filepath.Join(dir, "before"), filepath.Join(dir, "after")
	store := filepath.Join(dir, "store")
	for system, files := range map[string]Files{before: c.Old, after: c.New} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(system, "etc/systemd/system"), 0o755), os.MkdirAll(store, 0o755))
		for name, text := range files {
			if first, _, _ := strings.Cut(name, "/"); first != "systemd" && first != "fstab" {
				name = "systemd/system/" + name
			}
			err = errors.Join(err, place(store, filepath.Join(system, "etc", name), text))
		}
	}
	return before, after, err
}

func place(store, path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if to, link := strings.CutPrefix(text, "-> "); link {
		return os.Symlink(to, path)
	}
	kept := filepath.Join(store, fmt.Sprintf("%x", sha256.Sum256([]byte(text))))
	return errors.Join(os.WriteFile(kept, []byte(text), 0o644), os.Symlink(kept, path))
}

// States are the units that run, by name, with their states.
func (c Case) States() map[string]string {
	states := map[string]string{}
	for _, word := range strings.Fields(c.Runs) {
		unit, state, stated := strings.Cut(word, "=")
		if !stated {
			state = "active"
		}
		states[unit] = state
	}
	return states
}

// Pending are the units that a switch before has left, by verb.
func (c Case) Pending() map[string][]string {
	pending := map[string][]string{}
	for _, entry := range Split(c.Left) {
		verb, unit, _ := strings.Cut(entry, " ")
		pending[verb] = append(pending[verb], unit)
	}
	return pending
}

// Split gives the entries of a list like those in Does.
func Split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ", ")
}

// Join is the other way around, in order.
func Join(entries []string) string {
	slices.Sort(entries)
	return strings.Join(entries, ", ")
}

// WithTargets is what is seen of what a program does: a target that runs is started by every switch, and what is stopped and
// started is restarted. What systemd does because of the targets is added.
func (c Case) WithTargets(program string) string {
	does := Split(c.Does[program])
	running := c.States()
	entries := slices.DeleteFunc(slices.Clone(does), func(entry string) bool {
		verb, unit, _ := strings.Cut(entry, " ")
		isStarted := strings.HasSuffix(unit, ".target") && running[unit] != "" && slices.Contains(does, "start "+unit)
		return isStarted && (verb == "start" || verb == "stop")
	})
	entries = append(entries, Split(c.Systemd)...)
	for _, entry := range slices.Clone(entries) {
		who, verb, unit := parse(entry)
		start, restart := who+"start "+unit, who+"restart "+unit
		if verb == "stop" && slices.Contains(entries, start) {
			entries = slices.DeleteFunc(entries, func(other string) bool { return other == entry || other == start || other == restart })
			entries = append(entries, restart)
		}
	}
	return Join(entries)
}

func parse(entry string) (who, verb, unit string) {
	if rest, isUser := strings.CutPrefix(entry, "user "); isUser {
		who, entry = "user ", rest
	}
	verb, unit, _ = strings.Cut(entry, " ")
	return who, verb, unit
}
