package preview

import (
	"context"
	"errors"
	"fmt"

	"ferry/internal/agent"
	"ferry/internal/compare"
	"ferry/internal/inventory"
	"ferry/internal/nix"
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
// the words. The target is asked only where it has to be, and nothing is changed there. A failure is an [*session.Error].
func Diff(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, before, after string) (*Comparison, error) {
	r, err := newReader(with, inv, node)
	if err != nil {
		return nil, err
	}
	defer r.close()
	a, err := r.side(ctx, before)
	if err != nil {
		return nil, err
	}
	b, err := r.side(ctx, after)
	if err != nil {
		return nil, err
	}
	return r.compare(ctx, a, b)
}

// compare compares two systems as far as that can be done from here.
func (r *reader) compare(ctx context.Context, before, after Side) (*Comparison, error) {
	c := &Comparison{Node: r.Node.Name, Before: before, After: after, Unknown: []string{}}
	was, err := r.closure(ctx, before)
	if err != nil {
		return nil, err
	}
	is, err := r.closure(ctx, after)
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
	booted, running, err := r.running(ctx, before)
	if err != nil {
		return nil, err
	}
	c.Judged = running == nil
	system, err := compare.Systems(string(before.Toplevel), string(after.Toplevel), booted, running)
	if err != nil {
		return nil, r.Fail(session.Build, session.Unchanged, session.Hint(err.Error(), "name a system's toplevel, or a bundle of ferry's"))
	}
	c.System = &system
	facts := agent.Facts{Current: string(before.Toplevel)}
	init, _ := session.SystemFile(before.Toplevel, "init-interface-version")
	inhibitors, _ := session.SystemFile(before.Toplevel, "switch-inhibitors")
	facts.InitInterface, facts.Inhibitors = agent.Verbatim(init), agent.Verbatim(inhibitors)
	c.NeedsReboot = NeedsReboot(facts, after.Toplevel)
	return c, nil
}

// running tells what was booted and what of units runs, where before is what runs on the target; nil: that has to be judged.
func (r *reader) running(ctx context.Context, before Side) (booted string, running *compare.Running, err error) {
	if !before.running {
		return "", nil, nil
	}
	var units *agent.UnitsResult
	err = r.Link.Do(ctx, func(conn *agent.Session) error {
		units, err = conn.Units(ctx)
		return err
	})
	if err != nil {
		return "", nil, r.Fail(session.Connect, session.Unchanged, err)
	}
	if units == nil || len(units.Units) == 0 {
		return r.facts.Booted, nil, nil
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
	return r.facts.Booted, running, nil
}

// closure gives the closure of a side: from this machine's store, else from the target's. nil: neither has it.
func (r *reader) closure(ctx context.Context, s Side) ([]compare.Path, error) {
	paths := []compare.Path{}
	if s.Here {
		closure, err := r.local.Closure([]nix.StorePath{s.Toplevel})
		if err != nil {
			return nil, r.Fail(session.Build, session.Unchanged, err)
		}
		infos, err := r.local.PathInfos(closure)
		if err != nil {
			return nil, r.Fail(session.Build, session.Unchanged, err)
		}
		for _, info := range infos {
			paths = append(paths, compare.Path{Path: info.Path, Size: info.NarSize})
		}
		return paths, nil
	}
	if err := r.reach(ctx); err != nil {
		return nil, err
	}
	var result agent.ClosureResult
	err := r.Link.Do(ctx, func(conn *agent.Session) error {
		var err error
		result, err = conn.Closure(ctx, s.Toplevel)
		return err
	})
	var response *agent.ResponseError
	if errors.As(err, &response) && response.Kind == agent.KindInvalid {
		return nil, r.Fail(session.Connect, session.Unchanged, session.Hint(fmt.Sprintf("%s is neither in this machine's store nor in the target's", s.Toplevel),
			"ferry generations "+r.Node.Name+" lists what is there"))
	}
	if err != nil {
		return nil, r.Fail(session.Connect, session.Unchanged, err)
	}
	for _, p := range result.Paths {
		paths = append(paths, compare.Path{Path: p.Path, Size: p.Size})
	}
	return paths, nil
}
