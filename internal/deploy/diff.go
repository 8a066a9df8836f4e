package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"ferry/internal/agent"
	"ferry/internal/compare"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
)

// Side is a system that is compared with another one.
type Side struct {
	Name     string        `json:"name"` // in words
	Toplevel nix.StorePath `json:"toplevel"`
	Bundle   nix.StorePath `json:"bundle"` // "": not known
	// Source is the snapshot that it was made from, "" where that is not known here.
	Source nix.StorePath `json:"source"`
	// Here says that all of it is in this machine's store.
	Here bool `json:"here"`

	running bool // it is what runs on the target
}

// Comparison is how two systems of a node differ.
type Comparison struct {
	Node    string           `json:"node"`
	Before  Side             `json:"before"`
	After   Side             `json:"after"`
	Closure *compare.Closure `json:"closure"` // nil: one of the two is nowhere
	System  *compare.System  `json:"system"`  // nil: one of the two is not here
	// NeedsReboot says why the second can only be booted where the first one runs; "": nothing is in the way.
	NeedsReboot string `json:"needs_reboot"`
	// Judged says that which units run is judged by what the system starts, and was not asked of the target.
	Judged bool `json:"units_judged"`
	// Unknown says what could not be found out.
	Unknown []string `json:"unknown"`
}

// Same tells whether both are the same system.
func (c *Comparison) Same() bool { return c.Before.Toplevel == c.After.Toplevel }

// The words for sides besides numbers of generations and store paths.
const (
	SideRunning = "running" // what runs on the target
	SideBooted  = "booted"  // what was booted there
	SideDefault = "default" // what boots there next
	SideTree    = "tree"    // what the working tree builds
)

// Diff compares two systems of a node, each named by a number of a generation, a store path of a toplevel or bundle, or one of
// the words. The target is asked only where it has to be, and nothing is changed there. A failure is an [*Error].
func Diff(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, before, after string) (*Comparison, error) {
	l, err := newLook(with, inv, node)
	if err != nil {
		return nil, err
	}
	defer l.close()
	a, err := l.side(ctx, before)
	if err != nil {
		return nil, err
	}
	b, err := l.side(ctx, after)
	if err != nil {
		return nil, err
	}
	return l.compare(ctx, a, b)
}

// generations asks for the target's generations, once.
func (l *look) generations(ctx context.Context) (*agent.GenerationsResult, error) {
	if err := l.reach(ctx); err != nil || l.have != nil {
		return l.have, err
	}
	err := l.Link.Do(ctx, func(conn *agent.Session) error {
		have, err := conn.Generations(ctx)
		l.have = &have
		return err
	})
	if err != nil {
		return nil, l.Fail(session.Connect, session.Unchanged, err)
	}
	return l.have, nil
}

// side finds the system that a word of the user's means.
func (l *look) side(ctx context.Context, what string) (Side, error) {
	switch what {
	case SideTree:
		return l.tree(ctx)
	case SideRunning, SideBooted, SideDefault:
		return l.there(ctx, what)
	}
	if number, err := strconv.Atoi(what); err == nil {
		return l.generation(ctx, number)
	}
	path, err := nix.ParseStorePath(what)
	if err != nil {
		return Side{}, l.Fail(session.Connect, session.Unchanged, session.Hint(fmt.Sprintf("%q is no system: expected a generation's number, a store path, running, booted, default or tree", run.Clean(what)),
			"ferry generations "+l.Node.Name+" lists the generations"))
	}
	s := Side{Name: path.Base(), Toplevel: path}
	if toplevel := session.BundleLink(path, "profile"); toplevel != "" {
		s.Toplevel, s.Bundle = toplevel, path
	}
	return l.complete(ctx, s)
}

func (l *look) tree(ctx context.Context) (Side, error) {
	ready, err := l.EvaluateAndBuild(ctx)
	if err != nil {
		return Side{}, err
	}
	return l.complete(ctx, Side{Name: "the working tree", Toplevel: ready.Toplevel, Bundle: ready.Bundle})
}

// there finds what runs on the target, was booted there, or boots next.
func (l *look) there(ctx context.Context, what string) (Side, error) {
	have, err := l.generations(ctx)
	if err != nil {
		return Side{}, err
	}
	s := Side{Name: "what runs", Toplevel: nix.StorePath(l.facts.Current), running: what == SideRunning}
	is := func(g agent.Generation) bool { return g.Current }
	switch what {
	case SideBooted:
		s.Name, s.Toplevel = "what was booted", nix.StorePath(l.facts.Booted)
		is = func(g agent.Generation) bool { return g.Booted }
	case SideDefault:
		s.Name, s.Toplevel = "what boots next", nix.StorePath(l.facts.Profile)
		is = func(g agent.Generation) bool { return g.Default }
	}
	if s.Toplevel == "" {
		return Side{}, l.Fail(session.Connect, session.Unchanged, session.Hint("the target has no NixOS system that is "+what, "ferry generations "+l.Node.Name+" shows what it has"))
	}
	if i := slices.IndexFunc(have.Generations, is); i >= 0 {
		s.Name += fmt.Sprintf(" (generation %d)", have.Generations[i].Number)
		s.Bundle = nix.StorePath(have.Generations[i].Bundle)
	} else if last := l.facts.Last; last != nil && last.Toplevel == string(s.Toplevel) {
		s.Bundle = nix.StorePath(last.Bundle)
	}
	return l.complete(ctx, s)
}

func (l *look) generation(ctx context.Context, number int) (Side, error) {
	have, err := l.generations(ctx)
	if err != nil {
		return Side{}, err
	}
	i := slices.IndexFunc(have.Generations, func(g agent.Generation) bool { return g.Number == number })
	if i < 0 || have.Generations[i].Toplevel == "" {
		return Side{}, l.Fail(session.Connect, session.Unchanged, session.Hint(fmt.Sprintf("the target has no generation %d", number), "ferry generations "+l.Node.Name+" lists what is there"))
	}
	g := have.Generations[i]
	return l.complete(ctx, Side{Name: fmt.Sprintf("generation %d", number), Toplevel: nix.StorePath(g.Toplevel), Bundle: nix.StorePath(g.Bundle), running: g.Current})
}

// complete finds out what of the side is in this machine's store.
func (l *look) complete(ctx context.Context, s Side) (Side, error) {
	here, err := l.valid(ctx, s.Toplevel)
	if err != nil {
		return s, l.Fail(session.Build, session.Unchanged, err)
	}
	s.Here = here
	if s.Bundle != "" {
		s.Source = session.BundleLink(s.Bundle, "source")
	}
	return s, nil
}

// valid tells whether a path is in this machine's store.
func (l *look) valid(ctx context.Context, p nix.StorePath) (bool, error) {
	if l.local == nil {
		local, err := l.Nix.OpenServe(ctx)
		if err != nil {
			return false, err
		}
		l.local = local
	}
	infos, err := l.local.PathInfos([]nix.StorePath{p})
	return len(infos) > 0, err
}

// compare compares two systems as far as that can be done from here.
func (l *look) compare(ctx context.Context, before, after Side) (*Comparison, error) {
	c := &Comparison{Node: l.Node.Name, Before: before, After: after, Unknown: []string{}}
	was, err := l.closure(ctx, before)
	if err != nil {
		return nil, err
	}
	is, err := l.closure(ctx, after)
	if err != nil {
		return nil, err
	}
	for _, s := range []Side{before, after} {
		if !s.Here {
			c.Unknown = append(c.Unknown, fmt.Sprintf("%s is not in this machine's store: which units, files and users differ cannot be seen", s.Name))
		}
	}
	if was != nil && is != nil {
		closure := compare.Closures(was, is)
		c.Closure = &closure
	}
	if !before.Here || !after.Here {
		return c, nil
	}
	booted, running, err := l.running(ctx, before)
	if err != nil {
		return nil, err
	}
	c.Judged = running == nil
	system, err := compare.Systems(string(before.Toplevel), string(after.Toplevel), booted, running)
	if err != nil {
		return nil, l.Fail(session.Build, session.Unchanged, session.Hint(err.Error(), "name a system's toplevel, or a bundle of ferry's"))
	}
	c.System = &system
	facts := agent.Facts{Current: string(before.Toplevel)}
	init, _ := session.SystemFile(before.Toplevel, "init-interface-version")
	inhibitors, _ := session.SystemFile(before.Toplevel, "switch-inhibitors")
	facts.InitInterface, facts.Inhibitors = agent.Verbatim(init), agent.Verbatim(inhibitors)
	c.NeedsReboot = rebootNeeded(facts, after.Toplevel)
	return c, nil
}

// running tells what was booted and what of units runs, where before is what runs on the target; nil: that has to be judged.
func (l *look) running(ctx context.Context, before Side) (booted string, running *compare.Running, err error) {
	if !before.running {
		return "", nil, nil
	}
	var units *agent.UnitsResult
	err = l.Link.Do(ctx, func(conn *agent.Session) error {
		units, err = conn.Units(ctx)
		return err
	})
	if err != nil {
		return "", nil, l.Fail(session.Connect, session.Unchanged, err)
	}
	if units == nil || len(units.Units) == 0 {
		return l.facts.Booted, nil, nil
	}
	running = &compare.Running{
		States: map[string]string{}, Files: map[string]string{}, Start: units.Start, Restart: units.Restart, Reload: units.Reload,
	}
	for _, unit := range units.Units {
		running.States[unit.Name] = unit.State
		if unit.From != "" {
			running.Files[unit.Name] = unit.From
		}
	}
	return l.facts.Booted, running, nil
}

// closure gives the closure of a side: from this machine's store, else from the target's. nil: neither has it.
func (l *look) closure(ctx context.Context, s Side) ([]compare.Path, error) {
	paths := []compare.Path{}
	if s.Here {
		closure, err := l.local.Closure([]nix.StorePath{s.Toplevel})
		if err != nil {
			return nil, l.Fail(session.Build, session.Unchanged, err)
		}
		infos, err := l.local.PathInfos(closure)
		if err != nil {
			return nil, l.Fail(session.Build, session.Unchanged, err)
		}
		for _, info := range infos {
			paths = append(paths, compare.Path{Path: info.Path, Size: info.NarSize})
		}
		return paths, nil
	}
	if err := l.reach(ctx); err != nil {
		return nil, err
	}
	var result agent.ClosureResult
	err := l.Link.Do(ctx, func(conn *agent.Session) error {
		var err error
		result, err = conn.Closure(ctx, s.Toplevel)
		return err
	})
	var response *agent.ResponseError
	if errors.As(err, &response) && response.Kind == agent.KindInvalid {
		return nil, l.Fail(session.Connect, session.Unchanged, session.Hint(fmt.Sprintf("%s is neither in this machine's store nor in the target's", s.Toplevel),
			"ferry generations "+l.Node.Name+" lists what is there"))
	}
	if err != nil {
		return nil, l.Fail(session.Connect, session.Unchanged, err)
	}
	for _, p := range result.Paths {
		paths = append(paths, compare.Path{Path: p.Path, Size: p.Size})
	}
	return paths, nil
}
