package userdb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Restore undoes what an activation has done to the accounts of the machine below root: before is what they were when it
// began, after what they were when it ended; nil if nobody knows. What others have changed since, a password or a user of
// their own, stays. It goes before an activation of the system before, which would else remove whom the other one has declared.
// What could not be put back is the error; the rest is.
func Restore(root string, before State, after *State) error {
	return change(root, before, func(now State) State { return undo(before, after, now, false) })
}

// RestoreAtBoot is Restore for a machine that has booted the system before since: its activation has removed users already, who
// then were not removed by others.
func RestoreAtBoot(root string, before State, after *State) error {
	return change(root, before, func(now State) State { return undo(before, after, now, true) })
}

// Undone is what Restore would make of the accounts that are now.
func Undone(before State, after *State, now State) State { return undo(before, after, now, false) }

// Complete puts back what want has and the machine below root has not, or has otherwise, and leaves what it has besides: for
// after an activation, whose own users are needed.
func Complete(root string, want State) error {
	return change(root, want, func(now State) State {
		next := State{Files: maps.Clone(now.Files)}
		for _, t := range tables {
			file, had := want.Files[t.name]
			if !had {
				continue
			}
			m := merging{before: parse(file.Content), now: parse(now.Files[t.name].Content), keepOthers: true}
			file.Content = m.merge()
			next.Files[t.name] = file
		}
		return next
	})
}

// Differs tells whether two States say different things of users and groups.
func (s State) Differs(other State) bool {
	if len(s.Files) != len(other.Files) {
		return true
	}
	for name, file := range s.Files {
		is, there := other.Files[name]
		if !there || !bytes.Equal(file.Content, is.Content) {
			return true
		}
	}
	return false
}

// change writes what becomes of the accounts, under the lock of those who change passwords.
func change(root string, kept State, become func(now State) State) error {
	defer lock(root)()
	now, err := Read(root)
	if err != nil {
		return err
	}
	next := become(now)
	var problems []error
	for _, name := range names() {
		was, there := now.Files[name]
		file, stays := next.Files[name]
		switch {
		case !stays && !there:
		case !stays:
			if _, had := kept.Files[name]; had || !removable(name) {
				continue
			}
			problems = append(problems, remove(root, name))
		case there && bytes.Equal(was.Content, file.Content) && was.Mode == file.Mode && was.UID == file.UID && was.GID == file.GID:
		default:
			problems = append(problems, write(root, name, file))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("put the accounts back: %w", err)
	}
	return nil
}

// removable tells whether a machine can do without a file.
func removable(name string) bool {
	return name != "/etc/passwd" && name != "/etc/group" && name != "/etc/shadow"
}

func write(root, name string, file File) error {
	at, err := resolve(root, name)
	if err != nil {
		return err
	}
	if inStore(at) {
		// It is the system's that runs now.
		return nil
	}
	return replace(root+at, file)
}

func remove(root, name string) error {
	at, err := resolve(root, name)
	if err != nil || inStore(at) {
		return err
	}
	if err := os.Remove(root + at); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// undo gives what the accounts become.
func undo(before State, after *State, now State, booted bool) State {
	next := State{Files: map[string]File{}}
	for _, name := range lists {
		if file, had := before.Files[name]; had {
			next.Files[name] = file
		}
	}
	for _, name := range numbers {
		if file, there := now.Files[name]; there {
			next.Files[name] = joinNumbers(before.Files[name], file)
		} else if file, had := before.Files[name]; had {
			next.Files[name] = file
		}
	}
	last := now
	if after != nil {
		last = *after
	}
	for _, t := range tables {
		was, had := before.Files[t.name]
		is, there := now.Files[t.name]
		switch {
		case !there && !had:
			continue
		case !had:
			if removable(t.name) && bytes.Equal(is.Content, last.Files[t.name].Content) {
				continue
			}
			was = File{Mode: is.Mode, UID: is.UID, GID: is.GID}
		case bytes.Equal(is.Content, last.Files[t.name].Content) && after != nil:
			next.Files[t.name] = was
			continue
		}
		m := merging{
			before: parse(was.Content), now: parse(is.Content), members: t.declared == declaredGroups,
			declared: declaredIn(last, t.declared), known: after != nil, booted: booted,
		}
		if after != nil {
			m.after = parse(after.Files[t.name].Content)
		} else {
			m.after = m.now
		}
		was.Content = m.merge()
		next.Files[t.name] = was
	}
	return next
}

// joinNumbers gives the numbers that names had, and of those who are new the numbers that they have got: what is left of a
// user, a home for one, must not become somebody else's.
func joinNumbers(before, now File) File {
	var was, is map[string]int64
	if json.Unmarshal(now.Content, &is) != nil {
		return before
	}
	if before.Content == nil || json.Unmarshal(before.Content, &was) != nil {
		return now
	}
	same := len(was) == len(is)
	for name, n := range was {
		if has, there := is[name]; !there || has != n {
			same = false
		}
		is[name] = n
	}
	if same {
		return before
	}
	text, err := json.Marshal(is)
	if err != nil {
		return now
	}
	before.Content = text
	return before
}

const (
	// lockFile is what lckpwdf(3) locks, and with it every program that changes a password.
	lockFile = "/etc/.pwd.lock"
	// lockWait is how long its holder is waited for, as lckpwdf does.
	lockWait = 15 * time.Second
)

// lock keeps others from changing accounts until it is released. Where it cannot be had, what is to be put back is put back all
// the same: NixOS's own programs do not ask for it either.
func lock(root string) (release func()) {
	file, err := os.OpenFile(root+lockFile, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return func() {}
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(50 * time.Millisecond) {
		err := unix.FcntlFlock(file.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil || time.Now().After(end) {
			break
		}
	}
	return func() { _ = file.Close() }
}

// Writable tells why the accounts of the machine below root could not be put back; nil: nothing is known that speaks against it.
func Writable(root string) error {
	for _, name := range []string{"/etc/passwd", "/etc/group", "/etc/shadow"} {
		at, err := resolve(root, name)
		if err != nil {
			return err
		}
		if inStore(at) {
			continue
		}
		var system unix.Statfs_t
		if unix.Statfs(filepath.Dir(root+at), &system) != nil {
			continue
		}
		switch {
		case system.Flags&unix.ST_RDONLY != 0:
			return fmt.Errorf("%s cannot be written: its file system is read-only", at)
		case isMount(root, at):
			return fmt.Errorf("%s cannot be replaced: something is mounted there", at)
		}
	}
	return nil
}

// isMount tells whether something is mounted in the place of a file. The numbers of devices do not tell: a file of an overlay may
// have another one than its folder.
func isMount(root, name string) bool {
	text, err := os.ReadFile(root + "/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == name {
			return true
		}
	}
	return false
}
