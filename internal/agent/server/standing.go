package server

import (
	"context"
	"path"
	"slices"
	"strings"

	"ferry/internal/agent/units"
	"ferry/internal/run"
)

// onlyWaits tells whether a unit can be started again at any time.
func onlyWaits(unit string) bool {
	switch path.Ext(unit) {
	case ".socket", ".timer", ".path", ".automount":
		return true
	}
	return false
}

// restore starts what only waits, ran before the switch and does not run after the rollback, and names what does not run all the
// same; "" if all is as it was.
func (g *guard) restore(ctx context.Context) string {
	limited, stop := context.WithTimeout(ctx, mendLimit)
	defer stop()
	missing := g.missing(limited)
	var waiting []string
	for _, unit := range missing {
		if onlyWaits(unit) {
			waiting = append(waiting, unit)
		}
	}
	if len(waiting) > 0 {
		g.say("starting again what ran before: %s", strings.Join(waiting, ", "))
		// What cannot be started is named below.
		_ = g.runner.Run(limited, run.Command{Argv: append([]string{"systemctl", "start", "--"}, waiting...), Out: g.logFile, Err: g.logFile})
		missing = g.missing(limited)
	}
	missing = slices.DeleteFunc(missing, func(unit string) bool { return !g.isMissed(limited, unit) })
	if len(missing) == 0 {
		return ""
	}
	return "ran before, and not any more: " + strings.Join(missing, ", ")
}

// missing are the units that ran before the switch and do not now.
func (g *guard) missing(ctx context.Context) []string {
	if len(g.state.Before.Standing) == 0 {
		return nil
	}
	now := units.Standing(ctx, g.runner, g.root)
	return slices.DeleteFunc(slices.Clone(g.state.Before.Standing), func(unit string) bool { return slices.Contains(now, unit) })
}

// isMissed tells whether a unit that does not run any more should. A service that something else starts when it is needed, or that
// nothing asks for, may have ended by itself; a unit that the old system does not have was started by hand.
func (g *guard) isMissed(ctx context.Context, unit string) bool {
	out, err := g.runner.Output(ctx, run.Command{Argv: []string{
		"systemctl", "show", "--property=LoadState,Type,WantedBy,RequiredBy,TriggeredBy", "--", unit,
	}})
	if err != nil {
		return false
	}
	has := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		has[key] = value
	}
	switch {
	case has["LoadState"] != "loaded":
		return false
	case path.Ext(unit) != ".service":
		return true
	}
	return has["Type"] != "oneshot" && has["Type"] != "dbus" && has["TriggeredBy"] == "" && has["WantedBy"]+has["RequiredBy"] != ""
}
