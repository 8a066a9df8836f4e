package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/compare"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/ship"
)

// Planned is what a deployment would do to a node.
type Planned struct {
	Comparison
	// Nothing says that the target has what is asked for already, bundle and all.
	Nothing bool `json:"nothing"`
	// SameSystem says that the target has the system, and only the bundle differs: nothing would be activated.
	SameSystem bool   `json:"same_system"`
	Ship       ToShip `json:"ship"`
	// Lockout is what in the new system may lock out the login that is in use.
	Lockout []agent.Risk `json:"lockout"`
	Stops   []error      `json:"-"` // what would stop the deployment
	// Warnings are the same as texts, and what does not stop it.
	Warnings []string `json:"warnings"`
}

// ToShip is what the target lacks.
type ToShip struct {
	Paths []nix.StorePath `json:"paths"`
	Bytes uint64          `json:"bytes"` // of their NARs, before differences and compression
	// Wire is how many bytes would be sent, and Differences how many of Paths as differences; 0: that was not measured.
	Wire        uint64 `json:"wire"`
	Differences int    `json:"differences"`
	// Seconds is how long that takes at PerSecond bytes per second, the speed of the last ship to the node; 0: that is not known.
	Seconds   float64 `json:"seconds"`
	PerSecond uint64  `json:"bytes_per_second"`
}

// maxMeasured is how many bytes of NARs are compressed at most only to know how long they get.
const maxMeasured = 2 << 30

// Plan evaluates and builds a node's bundle, and says what its deployment with the action switch would do. Nothing is changed
// on the target, and root is needed only where the agent has to be installed. A failure is an [*Error].
func Plan(ctx context.Context, inv *inventory.Inventory, node inventory.Node, opts Options) (*Planned, error) {
	opts.Action = Switch
	l, err := newLook(inv, node, opts)
	if err != nil {
		return nil, err
	}
	defer l.close()
	ready, facts, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	l.facts, l.open, l.measure = facts, true, true
	return l.plan(ctx, ready)
}

// plan says what would be done on the target, which is connected, when its turn has come.
func (l *look) plan(ctx context.Context, ready built) (*Planned, error) {
	over, err := l.turn(ctx, Compare)
	if err != nil {
		return nil, l.fail(Compare, Unchanged, err)
	}
	defer over()
	source, err := l.inv.SourceOf(ctx, l.node)
	if err != nil {
		return nil, l.fail(Evaluate, Unchanged, err)
	}
	after := Side{Name: "the working tree", Toplevel: ready.toplevel, Bundle: ready.bundle, Source: source.Path, Here: true}
	p := &Planned{
		Comparison: Comparison{Node: l.node.Name, After: after, Unknown: []string{}}, Nothing: l.isDone(ready, l.facts),
		SameSystem: l.sameSystem(ready, l.facts), Ship: ToShip{Paths: []nix.StorePath{}}, Lockout: []agent.Risk{}, Warnings: []string{},
	}
	if p.Nothing {
		p.Before = after
		return p, nil
	}
	if l.facts.Current != "" {
		before, err := l.there(ctx, SideRunning)
		if err != nil {
			return nil, err
		}
		c, err := l.compare(ctx, before, after)
		if err != nil {
			return nil, err
		}
		p.Comparison = *c
	} else if err := l.first(ctx, p); err != nil {
		return nil, err
	}
	if err := l.toShip(ctx, ready.bundle, p); err != nil {
		return nil, err
	}
	if p.SameSystem {
		return p, nil
	}
	if l.facts.Current != "" {
		if err := l.foresee(ctx, p); err != nil {
			return nil, err
		}
	}
	l.warn(ctx, ready, p)
	return p, nil
}

// first is the comparison with a target that runs no system yet.
func (l *look) first(ctx context.Context, p *Planned) error {
	if _, err := l.valid(ctx, p.After.Toplevel); err != nil {
		return l.fail(Build, Unchanged, err)
	}
	is, err := l.closure(ctx, p.After)
	if err != nil {
		return err
	}
	closure := compare.Closures(nil, is)
	p.Closure = &closure
	p.Before.Name = "a machine without a NixOS system"
	return nil
}

// toShip asks what the target lacks.
func (l *look) toShip(ctx context.Context, bundle nix.StorePath, p *Planned) error {
	err := l.link.do(ctx, func(conn *agent.Session) error {
		plan, err := ship.MakePlan(ctx, l.local.Serve, conn, bundle, ship.Options{Known: keptBy(l.facts), NoDelta: l.opts.NoDelta, Memory: l.opts.Memory})
		if err != nil {
			return err
		}
		p.Ship = ToShip{Paths: []nix.StorePath{}, Bytes: plan.Bytes}
		for _, info := range plan.Missing {
			p.Ship.Paths = append(p.Ship.Paths, info.Path)
		}
		if l.measure && len(plan.Missing) > 0 && plan.Bytes <= maxMeasured {
			measured, err := plan.Measure(ctx)
			if err != nil {
				return err
			}
			p.Ship.Wire, p.Ship.Differences = measured.Wire, measured.Differences
			p.Ship.estimate(measured, lastSpeed(l.opts.Roots.Speed(l.inv.File, l.node.Name)))
		}
		return nil
	})
	if err != nil {
		return l.fail(Ship, Unchanged, err)
	}
	return nil
}

// warn finds what would stop the deployment, or be done otherwise than asked, as far as that is known before anything is
// shipped.
func (l *look) warn(ctx context.Context, ready built, p *Planned) {
	// What the target itself says it runs counts, also where that is not here.
	p.NeedsReboot = rebootNeeded(l.facts, ready.toplevel)
	stop := func(err error) {
		if err == nil {
			return
		}
		p.Stops = append(p.Stops, err)
		text := err.Error()
		var hinted interface{ Hints() []string }
		if errors.As(err, &hinted) && len(hinted.Hints()) > 0 {
			text += " (" + strings.Join(hinted.Hints(), "; ") + ")"
		}
		p.Warnings = append(p.Warnings, run.Clean(text))
	}
	if !l.opts.ReplaceUnknown {
		stop(surprise(l.facts, l.project(ctx, ready)))
	}
	for _, risk := range p.lockoutWarnings() {
		stop(risk)
	}
	stop(fits(l.facts, p.Ship.Bytes))
	if p.System != nil && p.System.Refused != "" && p.NeedsReboot == "" {
		stop(fmt.Errorf("the system's switch-to-configuration would do nothing: %s", p.System.Refused))
	}
	if p.NeedsReboot == "" {
		stop(goesBack(l.facts, l.opts))
	}
	if l.facts.Booted != "" && l.facts.Booted != l.facts.Current && l.facts.Profile != l.facts.Current {
		p.Warnings = append(p.Warnings, "the running system is not the boot default (started with --action test)")
	}
}

// agree asks a person whether to do what is planned, where there is one to ask.
func (d *deployment) agree(ctx context.Context, ready built, facts agent.Facts) error {
	if d.opts.Agree == nil || d.opts.Action == DryActivate {
		return nil
	}
	l := &look{deployment: d, facts: facts, open: true}
	planned, err := l.plan(ctx, ready)
	// The connection is the deployment's and goes on. A person may take their time, and there may be many nodes.
	if l.local != nil {
		_ = l.local.Close()
	}
	if err != nil {
		return err
	}
	agreed, err := d.opts.Agree(ctx, planned)
	if err != nil {
		return d.fail(Connect, Unchanged, err)
	}
	if !agreed {
		return d.fail(Connect, Unchanged, fmt.Errorf("cancelled; nothing was changed"))
	}
	return nil
}
