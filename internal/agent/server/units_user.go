package server

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ferry/internal/run"
)

// usersUnits is how long the managers of all users may take to be asked.
const usersUnits = 5 * time.Second

// userManagers are the runtime folders of the users who have a manager of their own, by the users' names.
func (r root) userManagers() map[string]string {
	// The pattern is well formed.
	sockets, _ := filepath.Glob(r.path("/run/user/*/systemd/private"))
	folders := map[string]string{}
	passwd, _ := newInspectedFiles(r).read("/etc/passwd", passwordFolders...)
	for _, socket := range sockets {
		folder := filepath.Dir(filepath.Dir(socket))
		for line := range strings.Lines(passwd) {
			if f := strings.Split(line, ":"); len(f) == 7 && f[2] == filepath.Base(folder) {
				folders[f[0]] = folder
			}
		}
	}
	return folders
}

// failedUserUnits names the units of users that are in trouble, each behind its user's name, as far as that is known: the
// managers are the users' own, and are not waited for.
func failedUserUnits(ctx context.Context, runner *run.Runner, r root) []string {
	ctx, stop := context.WithTimeout(ctx, usersUnits)
	defer stop()
	var units []string
	for user, folder := range r.userManagers() {
		argv := slices.Insert(slices.Clone(listTroubled), 1, "--user")
		// Root may talk to every manager's own socket, which needs no bus.
		out := &beginning{left: maxUserUnits}
		if err := runner.Run(ctx, run.Command{Argv: argv, Env: []string{"XDG_RUNTIME_DIR=" + folder}, Out: out, Grace: time.Second}); err != nil {
			continue
		}
		for line := range strings.Lines(out.text.String()) {
			if fields := strings.Fields(strings.TrimLeft(line, "●* ")); len(fields) > 0 {
				units = append(units, run.Clean(user+": "+fields[0]))
			}
		}
	}
	slices.Sort(units)
	return units
}

// maxUserUnits is how much is read of what a user's manager says, which may be anything, in bytes.
const maxUserUnits = 64 << 10

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

// nameUserUnits puts names in the place of what was said of a user without any, as far as those have them that are in trouble.
func nameUserUnits(said []string, failing func() []string) []string {
	if !slices.ContainsFunc(said, func(unit string) bool { return strings.HasSuffix(unit, ": "+unnamed) }) {
		return said
	}
	now := failing()
	var named []string
	for _, unit := range said {
		user, isUnnamed := strings.CutSuffix(unit, unnamed)
		found := slices.DeleteFunc(slices.Clone(now), func(other string) bool { return !strings.HasPrefix(other, user) })
		if isUnnamed && strings.HasSuffix(user, ": ") && len(found) > 0 {
			named = append(named, found...)
			continue
		}
		named = append(named, unit)
	}
	return named
}
