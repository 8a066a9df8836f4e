package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// manager is a service manager: the system's, or that of a user. A user's may be anything that the user has put there.
type manager struct {
	root   machine.Root
	runner *run.Runner
	user   string // whose it is; "": the system's
	uid    int
	gid    int
	folder string // the user's runtime folder
}

func systemManager(runner *run.Runner, r machine.Root) manager {
	return manager{root: r, runner: runner}
}

// userManagers are those of the users who have one, by the users' names.
func userManagers(runner *run.Runner, r machine.Root) []manager {
	// The pattern is well formed.
	sockets, _ := filepath.Glob(r.Path("/run/user/*/systemd/private"))
	var managers []manager
	passwd, _ := machine.NewFiles(r).Read("/etc/passwd", machine.PasswordFolders...)
	for _, socket := range sockets {
		folder := filepath.Dir(filepath.Dir(socket))
		uid, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			continue
		}
		if name, gid := nameOf(passwd, uid); name != "" {
			managers = append(managers, manager{root: r, runner: runner, user: name, uid: uid, gid: gid, folder: folder})
		}
	}
	slices.SortFunc(managers, func(a, b manager) int { return strings.Compare(a.user, b.user) })
	return managers
}

// nameOf is the name of the user with a number, and the number of the user's group; "" if there is none.
func nameOf(passwd string, uid int) (name string, gid int) {
	for line := range strings.Lines(passwd) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) == 7 && f[2] == strconv.Itoa(uid) {
			if gid, err := strconv.Atoi(f[3]); err == nil {
				return f[0], gid
			}
		}
	}
	return "", 0
}

const (
	// usersUnits is how long a user's manager may take to answer.
	usersUnits = 5 * time.Second
	// maxUserUnits is how much is read of what it says, in bytes.
	maxUserUnits = 256 << 10
)

// ask asks the manager with systemctl. A user's is not waited for, and not read without end.
func (m manager) ask(ctx context.Context, argv ...string) (string, error) {
	if !m.root.Exists(machine.SystemdRuns) {
		return "", errors.New("PID 1 is not systemd")
	}
	if m.folder == "" {
		out, err := m.runner.Output(ctx, run.Command{Argv: append([]string{"systemctl"}, argv...)})
		return string(out), err
	}
	ctx, stop := context.WithTimeout(ctx, usersUnits)
	defer stop()
	// The manager's own socket needs no bus, and lets nobody in but its user, who sees this process and what it is given.
	out := &beginning{left: maxUserUnits}
	command := run.Command{
		Argv: append([]string{"systemctl", "--user"}, argv...), Env: []string{"XDG_RUNTIME_DIR=" + m.folder}, Out: out, Grace: time.Second,
		Without: func(name string) bool { return name != "PATH" }, Dir: "/",
	}
	if m.uid != os.Geteuid() {
		command.User = &run.User{UID: uint32(m.uid), GID: uint32(m.gid)}
	}
	err := m.runner.Run(ctx, command)
	return out.text.String(), err
}

// called is the name of a unit for people: behind that of the user whose it is.
func (m manager) called(unit string) string {
	if m.user == "" {
		return unit
	}
	return run.Clean(m.user + ": " + unit)
}

// askAll asks several managers at once, so that none can hold up another one, and gives what they have said in their order.
func askAll(managers []manager, ask func(manager) []string) []string {
	said := make([][]string, len(managers))
	var wait sync.WaitGroup
	for i, m := range managers {
		wait.Go(func() { said[i] = ask(m) })
	}
	wait.Wait()
	return slices.Concat(said...)
}

// managers are the guard's: the system's and those of the users whose units are judged, and those of the others.
func (g *guard) managers() (judged, others []manager) {
	judged = []manager{systemManager(g.runner, g.root)}
	for _, m := range userManagers(g.runner, g.root) {
		if m.uid == 0 || m.uid == g.job.LoginUID {
			judged = append(judged, m)
		} else {
			others = append(others, m)
		}
	}
	return judged, others
}

// judgedUsers are the names of root and of the login user.
func (g *guard) judgedUsers() []string {
	passwd, _ := machine.NewFiles(g.root).Read("/etc/passwd", machine.PasswordFolders...)
	login, _ := nameOf(passwd, g.job.LoginUID)
	return []string{"root", login}
}

// ownFailedUnits names those units of the user who asks that are in trouble.
func ownFailedUnits(ctx context.Context, runner *run.Runner, r machine.Root) []string {
	managers := slices.DeleteFunc(userManagers(runner, r), func(m manager) bool { return m.uid != os.Geteuid() })
	return askAll(managers, func(m manager) []string { return m.troubledNow(ctx) })
}

// beginning keeps the beginning of what is written to it.
type beginning struct {
	text strings.Builder
	left int
}

func (b *beginning) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.text.Write(p[:n])
	b.left -= n
	return len(p), nil
}

// unnamed is how the units of a user are called of whom only that is known that something failed.
const unnamed = "its user units"

// nameUsers leaves a user without names out where units of that user are named, here or there.
func nameUsers(units, there []string) []string {
	named := func(user string) bool {
		return slices.ContainsFunc(slices.Concat(units, there), func(unit string) bool {
			return strings.HasPrefix(unit, user) && unit != user+unnamed
		})
	}
	return slices.DeleteFunc(slices.Clone(units), func(unit string) bool {
		user, isUnnamed := strings.CutSuffix(unit, unnamed)
		return isUnnamed && named(user)
	})
}
