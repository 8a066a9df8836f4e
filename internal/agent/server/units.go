package server

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// A unit is in trouble when it has failed, or when systemd starts it again and again: one with Restart=always is never in the
// failed state for long, and looks well each time that it has just been started.

// failedUnits names the system's units that are in trouble, as far as that is known.
func failedUnits(ctx context.Context, runner *run.Runner, r machine.Root) []string {
	return systemManager(runner, r).troubledNow(ctx)
}

func (m manager) troubledNow(ctx context.Context) []string {
	units, _ := m.askTroubled(ctx)
	return units
}

// listTroubled asks for units that have failed or wait to be started again. Newer systemds have two words for waiting.
var listTroubled = []string{"list-units", "--state=failed,auto-restart,auto-restart-queued", "--plain", "--no-legend", "--no-pager", "--full"}

// askTroubled asks for the units that have failed, or wait to be started again after they have.
func (m manager) askTroubled(ctx context.Context) ([]string, error) {
	out, err := m.ask(ctx, listTroubled...)
	if err != nil {
		return nil, err
	}
	var units, waiting []string
	for line := range strings.Lines(out) {
		fields := strings.Fields(strings.TrimLeft(line, "●* "))
		switch {
		case len(fields) == 0:
		case len(fields) > 3 && strings.HasPrefix(fields[3], autoRestart):
			waiting = append(waiting, fields[0])
		default:
			units = append(units, m.called(fields[0]))
		}
	}
	if len(waiting) == 0 {
		return units, nil
	}
	services, err := m.services(ctx, waiting)
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		if s.failed() {
			units = append(units, m.called(s.name))
		}
	}
	return units, nil
}

// autoRestart is the beginning of the sub-state of a service that waits to be started again.
const autoRestart = "auto-restart"

// serviceState is what systemd says of one.
type serviceState struct {
	name, state, sub, result string
	exit                     string // of its main process, the last time
	// restarts is how often systemd has started it again by itself since somebody has started it; 0 before systemd 235, which
	// does not say.
	restarts int
	// since is when it came into the state, by uptime in milliseconds.
	since int64
}

// failed tells that it has failed, or waits to be started again after that.
func (s serviceState) failed() bool {
	switch {
	case s.state == "failed":
		return true
	case strings.HasPrefix(s.sub, autoRestart):
		// A service that ends well and is started again all the same is meant so.
		return s.result != "success" || s.exit != "0" && s.exit != ""
	}
	return false
}

// services asks about services by their names, or patterns of them. Those that are not there any more are left out.
func (m manager) services(ctx context.Context, names []string) ([]serviceState, error) {
	out, err := m.ask(ctx, append([]string{
		"show", "--no-pager", "--property=Id,ActiveState,SubState,Result,ExecMainStatus,NRestarts,StateChangeTimestampMonotonic", "--",
	}, names...)...)
	if err != nil {
		return nil, err
	}
	var all []serviceState
	for block := range strings.SplitSeq(strings.TrimSpace(out), "\n\n") {
		var s serviceState
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch key {
			case "Id":
				s.name = value
			case "ActiveState":
				s.state = value
			case "SubState":
				s.sub = value
			case "Result":
				s.result = value
			case "ExecMainStatus":
				s.exit = value
			case "NRestarts":
				s.restarts, _ = strconv.Atoi(value)
			case "StateChangeTimestampMonotonic":
				micro, _ := strconv.ParseInt(value, 10, 64)
				s.since = micro / 1000
			}
		}
		if s.name != "" {
			all = append(all, s)
		}
	}
	return all, nil
}

// restartedLately is how long ago systemd may have started a service again that counts as one that is started again and again:
// before a switch, where nobody can wait to see it happen.
const restartedLately = 2 * time.Minute

// troubledBefore names the units of the system and of all users that are in trouble before a switch: those that also were
// started again lately. A switch is not blamed for them.
func troubledBefore(ctx context.Context, runner *run.Runner, r machine.Root) []string {
	managers := append([]manager{systemManager(runner, r)}, userManagers(runner, r)...)
	return askAll(managers, func(m manager) []string { return m.troubledBefore(ctx) })
}

func (m manager) troubledBefore(ctx context.Context) []string {
	units := m.troubledNow(ctx)
	services, err := m.services(ctx, []string{"*.service"})
	if err != nil {
		return units
	}
	for _, s := range services {
		if name := m.called(s.name); s.restarts > 0 && machine.Uptime()-s.since < restartedLately.Milliseconds() && !slices.Contains(units, name) {
			units = append(units, name)
		}
	}
	return units
}

const (
	// settled is how long a service that systemd has started again must have run to count as one that runs.
	settled = 8 * time.Second
	// settlePause is the time between two looks at one that has not.
	settlePause = 200 * time.Millisecond
)

// troubledAfter names the units that are in trouble after an activation that began at the uptime from. A service that has been
// started again since is watched until it has run for a while, or is started again once more: then it is in trouble.
func (m manager) troubledAfter(ctx context.Context, from int64, known []string) []string {
	units := m.troubledNow(ctx)
	suspects, err := m.services(ctx, []string{"*.service"})
	if err != nil {
		return units
	}
	counts := map[string]int{}
	pick := func(s serviceState) bool {
		name := m.called(s.name)
		return s.restarts == 0 || s.since < from || slices.Contains(units, name) || slices.Contains(known, name)
	}
	suspects = slices.DeleteFunc(suspects, pick)
	for _, s := range suspects {
		counts[s.name] = s.restarts
	}
	for end := time.Now().Add(settled + time.Second); ; {
		suspects = slices.DeleteFunc(suspects, func(s serviceState) bool {
			if s.failed() || s.restarts > counts[s.name] {
				units = append(units, m.called(s.name))
				return true
			}
			return s.state == "active" && machine.Uptime()-s.since >= settled.Milliseconds() || s.state == "inactive"
		})
		if len(suspects) == 0 || time.Now().After(end) || ctx.Err() != nil {
			return units
		}
		time.Sleep(settlePause)
		names := make([]string, len(suspects))
		for i, s := range suspects {
			names[i] = s.name
		}
		if suspects, err = m.services(ctx, names); err != nil {
			return units
		}
	}
}

// judgeUnits tells why the units that are in trouble are not acceptable, "" if they are. said tells that switch-to-configuration
// itself has complained. The units of root and of the login user are judged like the system's own; other users' are only named.
func (g *guard) judgeUnits(ctx context.Context, said bool) string {
	policy := g.job.Switch.Units
	judged, others := g.managers()
	all := askAll(judged, func(m manager) []string {
		if policy == "ignore" {
			return m.troubledNow(ctx)
		}
		return m.troubledAfter(ctx, g.state.Begun, g.state.Before.Failed)
	})
	foreign := askAll(others, func(m manager) []string { return m.troubledNow(ctx) })
	var told complaints
	if said {
		told = readComplaints(filepath.Join(g.dir, logFile))
		mine, theirs := told.sort(g.judgedUsers())
		all = union(all, mine)
		foreign = union(foreign, theirs)
	}
	foreign = slices.DeleteFunc(foreign, func(unit string) bool { return slices.Contains(all, unit) })
	fresh := g.without(all)
	g.state.Failed, g.state.UserUnits = fresh, nameUsers(union(g.state.UserUnits, g.without(foreign)), all)
	switch {
	case policy == "ignore":
		return ""
	case len(fresh) > 0:
		return "units failed: " + strings.Join(fresh, ", ")
	case policy == "none" && len(all) > 0:
		return "units are in the failed state: " + strings.Join(all, ", ")
	case said && len(all)+len(foreign)+len(told.usersWithoutBus) == 0:
		// It names nobody: what it said last is all that is known.
		return "units failed (exit status 4), and switch-to-configuration does not name them: " + orWord(told.last, "it printed nothing")
	}
	return ""
}

// without leaves out the units that were in trouble before the switch.
func (g *guard) without(units []string) []string {
	return slices.DeleteFunc(slices.Clone(units), func(unit string) bool { return slices.Contains(g.state.Before.Failed, unit) })
}

// union is a, and what b has besides.
func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, unit := range b {
		if !slices.Contains(all, unit) {
			all = append(all, unit)
		}
	}
	return all
}

// complaints are what a switch-to-configuration has said of units.
type complaints struct {
	// units are those that it calls failed; a user's stand behind the user's name and a colon.
	units []string
	// users are those whose part there was.
	users []string
	// usersWithoutBus are those whose units it could not look at, because they have no manager.
	usersWithoutBus []string
	// snippets are the parts of the activation script that failed.
	snippets []string
	last     string // the last line
}

// inSnippets is how a reason goes on that is about the activation script.
func (c complaints) inSnippets() string {
	if len(c.snippets) == 0 {
		return ""
	}
	return ": " + strings.Join(c.snippets, ", ")
}

// maxComplaints is how much of the end of a log is searched, in bytes.
const maxComplaints = 1 << 20

// What the programs print, NixOS's old one and its new one, systemctl among them.
var (
	saidFailed     = regexp.MustCompile(`^warning: the following (user )?units failed: (.+)$`)
	saidUserReload = regexp.MustCompile(`^reloading user units for ([^ ]+?)\.\.\.$`)
	saidUserFailed = regexp.MustCompile(`^warning: user activation for ([^ ]+) failed`)
	saidJob        = regexp.MustCompile(`^Failed to (?:start|stop|restart|reload|try-restart|reload-or-restart) (user unit )?([^ :]+\.[a-z]+)(?::.*)?$`)
	saidJobFor     = regexp.MustCompile(`^(?:Job for|A dependency job for) ([^ ]+\.[a-z]+) failed`)
	saidSnippet    = regexp.MustCompile(`^Activation script snippet '([^']+)' failed`)
	saidNoBus      = regexp.MustCompile(`^Error: Failed to open dbus connection`)
)

// readComplaints reads what was said in the log of a job.
func readComplaints(name string) complaints {
	file, err := os.Open(name)
	if err != nil {
		return complaints{}
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > maxComplaints {
		_, _ = file.Seek(-maxComplaints, io.SeekEnd)
	}
	return parseComplaints(file)
}

// parseComplaints reads a log. What stands in it between the first user's part and its end is written by the users: that is no word
// about the system's units. The end is where the program goes on to the system's, the last time that this is said.
func parseComplaints(log io.Reader) (c complaints) {
	lines := strings.Split(readAll(log), "\n")
	users, system := len(lines), len(lines)
	for i, line := range lines {
		if users > i && saidUserReload.MatchString(line) {
			users = i
		}
		if strings.HasPrefix(line, "restarting sysinit-reactivation.target") {
			system = i
		}
	}
	user, noBus := "", false
	add := func(units *[]string, unit string) {
		if unit = run.Clean(unit); !slices.Contains(*units, unit) {
			*units = append(*units, unit)
		}
	}
	for i, text := range lines {
		line, theirs := strings.TrimSpace(text), i > users && i < system
		if line != "" && !strings.HasPrefix(line, "ferry: ") {
			c.last = run.Clean(line)
		}
		name := func(ofUser, unit string) {
			switch {
			case ofUser != "":
				add(&c.units, orWord(user, "a user")+": "+unit)
			case !theirs:
				add(&c.units, unit)
			}
		}
		if m := saidUserReload.FindStringSubmatch(line); m != nil {
			user, noBus = m[1], false
			add(&c.users, user)
		} else if m := saidFailed.FindStringSubmatch(line); m != nil {
			for unit := range strings.SplitSeq(m[2], ", ") {
				name(m[1], unit)
			}
		} else if m := saidJob.FindStringSubmatch(line); m != nil {
			name(m[1], m[2])
		} else if m := saidJobFor.FindStringSubmatch(line); m != nil {
			name("", m[1])
		} else if m := saidSnippet.FindStringSubmatch(line); m != nil && !theirs {
			add(&c.snippets, m[1])
		} else if saidNoBus.MatchString(line) {
			noBus = user != ""
		} else if m := saidUserFailed.FindStringSubmatch(line); m != nil {
			switch ofUser := m[1] + ": "; {
			case noBus:
				add(&c.usersWithoutBus, m[1])
			case !slices.ContainsFunc(c.units, func(unit string) bool { return strings.HasPrefix(unit, ofUser) }):
				add(&c.units, ofUser+unnamed)
			}
			user, noBus = "", false
		}
	}
	return c
}

func readAll(log io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(log, maxComplaints))
	return string(text)
}

// sort tells the units that are judged from those of other users. A user's part may hold whatever that user's manager says, of
// another user too: where others have one, the managers of the judged users alone say what has failed of theirs. One of whom
// nothing is named has no failed unit.
func (c complaints) sort(judged []string) (mine, theirs []string) {
	foreign := slices.ContainsFunc(c.users, func(user string) bool { return !slices.Contains(judged, user) })
	for _, unit := range c.units {
		user, name, ofUser := strings.Cut(unit, ": ")
		if !ofUser || !foreign && name != unnamed && slices.Contains(judged, user) {
			mine = append(mine, unit)
		} else {
			theirs = append(theirs, unit)
		}
	}
	return mine, theirs
}
