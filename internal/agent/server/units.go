package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ferry/internal/run"
)

// A unit is in trouble when it has failed, or when systemd starts it again and again: one with Restart=always is never in the
// failed state for long, and looks well each time that it has just been started.

// failedUnits names the units that are in trouble, as far as that is known.
func failedUnits(ctx context.Context, runner *run.Runner, r root) []string {
	units, _ := askFailedUnits(ctx, runner, r)
	return units
}

// listTroubled asks for units that have failed or wait to be started again. Newer systemds have two words for waiting.
var listTroubled = []string{
	"systemctl", "list-units", "--state=failed,auto-restart,auto-restart-queued", "--plain", "--no-legend", "--no-pager", "--full",
}

// askFailedUnits asks systemd for the units that have failed, or wait to be started again after they have.
func askFailedUnits(ctx context.Context, runner *run.Runner, r root) ([]string, error) {
	if !r.exists(systemdRuns) {
		return nil, errors.New("PID 1 is not systemd")
	}
	out, err := runner.Output(ctx, run.Command{Argv: listTroubled})
	if err != nil {
		return nil, err
	}
	var units, waiting []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(strings.TrimLeft(line, "●* "))
		switch {
		case len(fields) == 0:
		case len(fields) > 3 && strings.HasPrefix(fields[3], autoRestart):
			waiting = append(waiting, fields[0])
		default:
			units = append(units, fields[0])
		}
	}
	if len(waiting) == 0 {
		return units, nil
	}
	services, err := showServices(ctx, runner, waiting)
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		if s.failed() {
			units = append(units, s.name)
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

// showServices asks about services by their names, or patterns of them. Those that are not there any more are left out.
func showServices(ctx context.Context, runner *run.Runner, names []string) ([]serviceState, error) {
	argv := append([]string{
		"systemctl", "show", "--no-pager", "--property=Id,ActiveState,SubState,Result,ExecMainStatus,NRestarts,StateChangeTimestampMonotonic", "--",
	}, names...)
	out, err := runner.Output(ctx, run.Command{Argv: argv})
	if err != nil {
		return nil, err
	}
	var all []serviceState
	for block := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n\n") {
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

// troubledBefore names the units that are in trouble before a switch: those that also were started again lately. A switch is
// not blamed for them.
func troubledBefore(ctx context.Context, runner *run.Runner, r root) []string {
	units := failedUnits(ctx, runner, r)
	if !r.exists(systemdRuns) {
		return units
	}
	units = append(units, failedUserUnits(ctx, runner, r)...)
	services, err := showServices(ctx, runner, []string{"*.service"})
	if err != nil {
		return units
	}
	for _, s := range services {
		if s.restarts > 0 && uptime()-s.since < restartedLately.Milliseconds() && !slices.Contains(units, s.name) {
			units = append(units, s.name)
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
func troubledAfter(ctx context.Context, runner *run.Runner, r root, from int64, known []string) []string {
	units := failedUnits(ctx, runner, r)
	if !r.exists(systemdRuns) {
		return units
	}
	suspects, err := showServices(ctx, runner, []string{"*.service"})
	if err != nil {
		return units
	}
	counts := map[string]int{}
	pick := func(s serviceState) bool {
		return s.restarts == 0 || s.since < from || slices.Contains(units, s.name) || slices.Contains(known, s.name)
	}
	suspects = slices.DeleteFunc(suspects, pick)
	for _, s := range suspects {
		counts[s.name] = s.restarts
	}
	for end := time.Now().Add(settled + time.Second); ; {
		suspects = slices.DeleteFunc(suspects, func(s serviceState) bool {
			if s.failed() || s.restarts > counts[s.name] {
				units = append(units, s.name)
				return true
			}
			return s.state == "active" && uptime()-s.since >= settled.Milliseconds() || s.state == "inactive"
		})
		if len(suspects) == 0 || time.Now().After(end) || ctx.Err() != nil {
			return units
		}
		time.Sleep(settlePause)
		names := make([]string, len(suspects))
		for i, s := range suspects {
			names[i] = s.name
		}
		if suspects, err = showServices(ctx, runner, names); err != nil {
			return units
		}
	}
}

// judgeUnits tells why the units that are in trouble are not acceptable, "" if they are. said tells that switch-to-configuration
// itself has complained.
func (g *guard) judgeUnits(ctx context.Context, said bool) string {
	policy := g.job.Switch.Units
	var all []string
	if policy == "ignore" {
		all = failedUnits(ctx, g.runner, g.root)
	} else {
		all = troubledAfter(ctx, g.runner, g.root, g.state.Begun, g.state.Before.Failed)
	}
	var told complaints
	if said {
		told = readComplaints(filepath.Join(g.dir, logFile))
		failing := func() []string { return failedUserUnits(ctx, g.runner, g.root) }
		for _, unit := range nameUserUnits(told.units, failing) {
			if !slices.Contains(all, unit) {
				all = append(all, unit)
			}
		}
	}
	fresh := slices.DeleteFunc(slices.Clone(all), func(unit string) bool { return slices.Contains(g.state.Before.Failed, unit) })
	g.state.Failed = fresh
	switch {
	case policy == "ignore":
		return ""
	case len(fresh) > 0:
		return "units failed: " + strings.Join(fresh, ", ")
	case policy == "none" && len(all) > 0:
		return "units are in the failed state: " + strings.Join(all, ", ")
	case said && len(all) == 0 && len(told.usersWithoutBus) == 0:
		// It names nobody: what it said last is all that is known.
		return "units failed (exit status 4), and switch-to-configuration does not name them: " + orWord(told.last, "it printed nothing")
	}
	return ""
}

// complaints are what a switch-to-configuration has said of units.
type complaints struct {
	// units are those that it calls failed; a user's stand behind the user's name and a colon.
	units []string
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

func parseComplaints(log io.Reader) (c complaints) {
	user, noBus := "", false
	add := func(ofUser bool, unit string) {
		if ofUser {
			unit = orWord(user, "a user") + ": " + unit
		}
		if unit = run.Clean(unit); !slices.Contains(c.units, unit) {
			c.units = append(c.units, unit)
		}
	}
	lines := bufio.NewReaderSize(io.LimitReader(log, maxComplaints), 64<<10)
	for {
		text, err := lines.ReadString('\n')
		line := strings.TrimSpace(text)
		if line != "" && !strings.HasPrefix(line, "ferry: ") {
			c.last = run.Clean(line)
		}
		if m := saidUserReload.FindStringSubmatch(line); m != nil {
			user, noBus = m[1], false
		} else if m := saidFailed.FindStringSubmatch(line); m != nil {
			for unit := range strings.SplitSeq(m[2], ", ") {
				add(m[1] != "", unit)
			}
		} else if m := saidJob.FindStringSubmatch(line); m != nil {
			add(m[1] != "", m[2])
		} else if m := saidJobFor.FindStringSubmatch(line); m != nil {
			add(false, m[1])
		} else if m := saidSnippet.FindStringSubmatch(line); m != nil {
			c.snippets = append(c.snippets, run.Clean(m[1]))
		} else if saidNoBus.MatchString(line) {
			noBus = user != ""
		} else if m := saidUserFailed.FindStringSubmatch(line); m != nil {
			switch ofUser := m[1] + ": "; {
			case noBus:
				c.usersWithoutBus = append(c.usersWithoutBus, run.Clean(m[1]))
			case !slices.ContainsFunc(c.units, func(unit string) bool { return strings.HasPrefix(unit, ofUser) }):
				c.units = append(c.units, run.Clean(ofUser+unnamed))
			}
			user, noBus = "", false
		}
		if err != nil {
			return c
		}
	}
}
