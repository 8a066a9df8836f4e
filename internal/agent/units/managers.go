package units

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

// Manager is a service manager: the system's, or that of a user. A user's may be anything that the user has put there.
type Manager struct {
	root   machine.Root
	runner *run.Runner
	User   string // whose it is; "": the system's
	UID    int
	gid    int
	folder string // the user's runtime folder
}

// System is the manager of the system.
func System(runner *run.Runner, r machine.Root) Manager {
	return Manager{root: r, runner: runner}
}

// OfUsers are those of the users who have one, by the users' names.
func OfUsers(runner *run.Runner, r machine.Root) []Manager {
	// The pattern is well formed.
	sockets, _ := filepath.Glob(r.Path("/run/user/*/systemd/private"))
	var managers []Manager
	passwd, _ := machine.NewFiles(r).Read("/etc/passwd", machine.PasswordFolders...)
	for _, socket := range sockets {
		folder := filepath.Dir(filepath.Dir(socket))
		uid, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			continue
		}
		if name, gid := nameOf(passwd, uid); name != "" {
			managers = append(managers, Manager{root: r, runner: runner, User: name, UID: uid, gid: gid, folder: folder})
		}
	}
	slices.SortFunc(managers, func(a, b Manager) int { return strings.Compare(a.User, b.User) })
	return managers
}

// UserName is the name of the user with a number; "" if there is none.
func UserName(r machine.Root, uid int) string {
	passwd, _ := machine.NewFiles(r).Read("/etc/passwd", machine.PasswordFolders...)
	name, _ := nameOf(passwd, uid)
	return name
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
func (m Manager) ask(ctx context.Context, argv ...string) (string, error) {
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
	if m.UID != os.Geteuid() {
		command.User = &run.User{UID: uint32(m.UID), GID: uint32(m.gid)}
	}
	err := m.runner.Run(ctx, command)
	return out.text.String(), err
}

// called is the name of a unit for people: behind that of the user whose it is.
func (m Manager) called(unit string) string {
	if m.User == "" {
		return unit
	}
	return run.Clean(m.User + ": " + unit)
}

// AskAll asks several managers at once, so that none can hold up another one, and gives what they have said in their order.
func AskAll(managers []Manager, ask func(Manager) []string) []string {
	said := make([][]string, len(managers))
	var wait sync.WaitGroup
	for i, m := range managers {
		wait.Go(func() { said[i] = ask(m) })
	}
	wait.Wait()
	return slices.Concat(said...)
}

// OwnTroubled names those units of the user who asks that are in trouble.
func OwnTroubled(ctx context.Context, runner *run.Runner, r machine.Root) []string {
	managers := slices.DeleteFunc(OfUsers(runner, r), func(m Manager) bool { return m.UID != os.Geteuid() })
	return AskAll(managers, func(m Manager) []string { return m.TroubledNow(ctx) })
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
