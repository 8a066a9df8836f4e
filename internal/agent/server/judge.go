package server

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"

	"ferry/internal/agent/units"
)

// judgeUnits tells why the units that are in trouble are not acceptable, "" if they are. said tells that switch-to-configuration
// itself has complained. The units of root and of the login user are judged like the system's own; other users' are only named.
func (g *guard) judgeUnits(ctx context.Context, said bool) string {
	policy := g.job.Switch.Units
	judged, others := g.managers()
	all := units.AskAll(judged, func(m units.Manager) []string {
		if policy == "ignore" {
			return m.TroubledNow(ctx)
		}
		return m.TroubledAfter(ctx, g.state.Begun, g.state.Before.Failed)
	})
	foreign := units.AskAll(others, func(m units.Manager) []string { return m.TroubledNow(ctx) })
	var told units.Complaints
	if said {
		told = units.ReadComplaints(filepath.Join(g.dir, logFile))
		mine, theirs := told.Sort(g.judgedUsers())
		all = units.Union(all, mine)
		foreign = units.Union(foreign, theirs)
	}
	foreign = slices.DeleteFunc(foreign, func(unit string) bool { return slices.Contains(all, unit) })
	fresh := g.without(all)
	g.state.Failed, g.state.UserUnits = fresh, units.NameUsers(units.Union(g.state.UserUnits, g.without(foreign)), all)
	switch {
	case policy == "ignore":
		return ""
	case len(fresh) > 0:
		return "units failed: " + strings.Join(fresh, ", ")
	case policy == "none" && len(all) > 0:
		return "units are in the failed state: " + strings.Join(all, ", ")
	case said && len(all)+len(foreign)+len(told.UsersWithoutBus) == 0:
		// It names nobody: what it said last is all that is known.
		return "units failed (exit status 4), and switch-to-configuration does not name them: " + cmp.Or(told.Last, "it printed nothing")
	}
	return ""
}

// without leaves out the units that were in trouble before the switch.
func (g *guard) without(units []string) []string {
	return slices.DeleteFunc(slices.Clone(units), func(unit string) bool { return slices.Contains(g.state.Before.Failed, unit) })
}

// managers are the guard's: the system's and those of the users whose units are judged, and those of the others.
func (g *guard) managers() (judged, others []units.Manager) {
	judged = []units.Manager{units.System(g.runner, g.root)}
	for _, m := range units.OfUsers(g.runner, g.root) {
		if m.UID == 0 || m.UID == g.job.LoginUID {
			judged = append(judged, m)
		} else {
			others = append(others, m)
		}
	}
	return judged, others
}

// judgedUsers are the names of root and of the login user.
func (g *guard) judgedUsers() []string {
	return []string{"root", units.UserName(g.root, g.job.LoginUID)}
}
