package units

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// Troubled names the system's units that are in trouble, as far as that is known.
func Troubled(ctx context.Context, runner *run.Runner, r machine.Root) []string {
	return System(runner, r).TroubledNow(ctx)
}

// TroubledNow names the units that are in trouble, as far as that is known.
func (m Manager) TroubledNow(ctx context.Context) []string {
	units, _ := m.AskTroubled(ctx)
	return units
}

// listTroubled asks for units that have failed or wait to be started again. Newer systemds have two words for waiting.
var listTroubled = []string{"list-units", "--state=failed,auto-restart,auto-restart-queued", "--plain", "--no-legend", "--no-pager", "--full"}

// AskTroubled asks for the units that have failed, or wait to be started again after they have.
func (m Manager) AskTroubled(ctx context.Context) ([]string, error) {
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
func (m Manager) services(ctx context.Context, names []string) ([]serviceState, error) {
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

// TroubledBefore names the units of the system and of all users that are in trouble before a switch: those that also were
// started again lately. A switch is not blamed for them.
func TroubledBefore(ctx context.Context, runner *run.Runner, r machine.Root) []string {
	managers := append([]Manager{System(runner, r)}, OfUsers(runner, r)...)
	return AskAll(managers, func(m Manager) []string { return m.TroubledBefore(ctx) })
}

// TroubledBefore names the units that are in trouble before a switch: see [TroubledBefore].
func (m Manager) TroubledBefore(ctx context.Context) []string {
	units := m.TroubledNow(ctx)
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

// TroubledAfter names the units that are in trouble after an activation that began at the uptime from. A service that has been
// started again since is watched until it has run for a while, or is started again once more: then it is in trouble.
func (m Manager) TroubledAfter(ctx context.Context, from int64, known []string) []string {
	units := m.TroubledNow(ctx)
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
