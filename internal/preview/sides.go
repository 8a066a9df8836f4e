package preview

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
)

// reader reads what two systems of a node have, from this machine's store and from the node's target. The target is connected to when
// that is needed first.
type reader struct {
	*session.Visit
	opts  Options
	local *nix.LocalServe
	facts agent.Facts
	have  *agent.GenerationsResult
	open  bool
}

func newReader(with session.Session, inv *inventory.Inventory, node inventory.Node) (*reader, error) {
	v, err := with.Visit(inv, node, session.Reading)
	if err != nil {
		return nil, err
	}
	return &reader{Visit: v}, nil
}

// release closes this machine's store.
func (r *reader) release() {
	if r.local != nil {
		_ = r.local.Close()
	}
}

func (r *reader) close() {
	r.release()
	r.Close()
}

// reach connects, if that has not been done.
func (r *reader) reach(ctx context.Context) error {
	if r.open {
		return nil
	}
	facts, err := r.Reach(ctx)
	if err != nil {
		return err
	}
	r.facts, r.open = facts, true
	return nil
}

// generations asks for the target's generations, once.
func (r *reader) generations(ctx context.Context) (*agent.GenerationsResult, error) {
	if err := r.reach(ctx); err != nil || r.have != nil {
		return r.have, err
	}
	err := r.Link.Do(ctx, func(conn *agent.Session) error {
		have, err := conn.Generations(ctx)
		r.have = &have
		return err
	})
	if err != nil {
		return nil, r.Fail(session.Connect, session.Unchanged, err)
	}
	return r.have, nil
}

// side finds the system that a word of the user's means.
func (r *reader) side(ctx context.Context, what string) (Side, error) {
	switch what {
	case SideTree:
		return r.tree(ctx)
	case SideRunning, SideBooted, SideDefault:
		return r.there(ctx, what)
	}
	if number, err := strconv.Atoi(what); err == nil {
		return r.generation(ctx, number)
	}
	path, err := nix.ParseStorePath(what)
	if err != nil {
		return Side{}, r.Fail(session.Connect, session.Unchanged, session.Hint(fmt.Sprintf("%q is no system: expected a generation's number, a store path, running, booted, default or tree", run.Clean(what)),
			"ferry generations "+r.Node.Name+" lists the generations"))
	}
	s := Side{Name: path.Base(), Toplevel: path}
	if toplevel := session.BundleLink(path, "profile"); toplevel != "" {
		s.Toplevel, s.Bundle = toplevel, path
	}
	return r.complete(ctx, s)
}

func (r *reader) tree(ctx context.Context) (Side, error) {
	ready, err := r.EvaluateAndBuild(ctx)
	if err != nil {
		return Side{}, err
	}
	return r.complete(ctx, Side{Name: "the working tree", Toplevel: ready.Toplevel, Bundle: ready.Bundle})
}

// there finds what runs on the target, was booted there, or boots next.
func (r *reader) there(ctx context.Context, what string) (Side, error) {
	have, err := r.generations(ctx)
	if err != nil {
		return Side{}, err
	}
	s := Side{Name: "what runs", Toplevel: nix.StorePath(r.facts.Current), running: what == SideRunning}
	is := func(g agent.Generation) bool { return g.Current }
	switch what {
	case SideBooted:
		s.Name, s.Toplevel = "what was booted", nix.StorePath(r.facts.Booted)
		is = func(g agent.Generation) bool { return g.Booted }
	case SideDefault:
		s.Name, s.Toplevel = "what boots next", nix.StorePath(r.facts.Profile)
		is = func(g agent.Generation) bool { return g.Default }
	}
	if s.Toplevel == "" {
		return Side{}, r.Fail(session.Connect, session.Unchanged, session.Hint("the target has no NixOS system that is "+what, "ferry generations "+r.Node.Name+" shows what it has"))
	}
	if i := slices.IndexFunc(have.Generations, is); i >= 0 {
		s.Name += fmt.Sprintf(" (generation %d)", have.Generations[i].Number)
		s.Bundle = nix.StorePath(have.Generations[i].Bundle)
	} else if last := r.facts.Last; last != nil && last.Toplevel == string(s.Toplevel) {
		s.Bundle = nix.StorePath(last.Bundle)
	}
	return r.complete(ctx, s)
}

func (r *reader) generation(ctx context.Context, number int) (Side, error) {
	have, err := r.generations(ctx)
	if err != nil {
		return Side{}, err
	}
	i := slices.IndexFunc(have.Generations, func(g agent.Generation) bool { return g.Number == number })
	if i < 0 || have.Generations[i].Toplevel == "" {
		return Side{}, r.Fail(session.Connect, session.Unchanged, session.Hint(fmt.Sprintf("the target has no generation %d", number), "ferry generations "+r.Node.Name+" lists what is there"))
	}
	g := have.Generations[i]
	return r.complete(ctx, Side{Name: fmt.Sprintf("generation %d", number), Toplevel: nix.StorePath(g.Toplevel), Bundle: nix.StorePath(g.Bundle), running: g.Current})
}

// complete finds out what of the side is in this machine's store.
func (r *reader) complete(ctx context.Context, s Side) (Side, error) {
	here, err := r.valid(ctx, s.Toplevel)
	if err != nil {
		return s, r.Fail(session.Build, session.Unchanged, err)
	}
	s.Here = here
	if s.Bundle != "" {
		s.Source = session.BundleLink(s.Bundle, "source")
	}
	return s, nil
}

// valid tells whether a path is in this machine's store.
func (r *reader) valid(ctx context.Context, p nix.StorePath) (bool, error) {
	if r.local == nil {
		local, err := r.Nix.OpenServe(ctx)
		if err != nil {
			return false, err
		}
		r.local = local
	}
	infos, err := r.local.PathInfos([]nix.StorePath{p})
	return len(infos) > 0, err
}
