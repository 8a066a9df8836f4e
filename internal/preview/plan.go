package preview

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/compare"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
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

// Options says which deployment is foreseen.
type Options struct {
	Action action.Action
	// Reboot says that the system is to come by a reboot.
	Reboot bool
	// NoDelta ships every path as a whole.
	NoDelta bool
	// Memory, if set, has differences that were made for other nodes.
	Memory *ship.Memory
	// ReplaceUnknown, AllowLockout and Unsafe are what the user does not want to be warned of.
	ReplaceUnknown, AllowLockout, Unsafe bool
	// Measure says that what would be sent is worth knowing exactly.
	Measure bool
}

// Plan evaluates and builds a node's bundle, and says what its deployment would do. Nothing is changed on the target, and root is
// needed only where the agent has to be installed. A failure is an [*session.Error].
func Plan(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, opts Options) (*Planned, error) {
	v, err := with.Visit(inv, node, session.Reading)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	ready, facts, err := v.Prepare(ctx, false, func(ready session.Built, facts agent.Facts) bool {
		return opts.Action.IsDone(facts, ready.Bundle, ready.Toplevel, opts.Reboot)
	})
	if err != nil {
		return nil, err
	}
	return PlanOn(ctx, v, ready, facts, opts)
}

// PlanOn says what a deployment of what is built would do to the target that v is connected to, when its turn has come. A failure is
// an [*session.Error].
func PlanOn(ctx context.Context, v *session.Visit, ready session.Built, facts agent.Facts, opts Options) (*Planned, error) {
	over, err := v.WaitTurn(ctx, session.Compare)
	if err != nil {
		return nil, err
	}
	defer over()
	r := &reader{Visit: v, opts: opts, facts: facts, open: true}
	// The connection goes on. A person may take their time to read this, and there may be many nodes.
	defer r.release()
	return r.plan(ctx, ready)
}

func (r *reader) plan(ctx context.Context, ready session.Built) (*Planned, error) {
	source, err := r.Inventory.SourceOf(ctx, r.Node)
	if err != nil {
		return nil, r.Fail(session.Evaluate, session.Unchanged, err)
	}
	after := Side{Name: "the working tree", Toplevel: ready.Toplevel, Bundle: ready.Bundle, Source: source.Path, Here: true}
	p := &Planned{
		Comparison: Comparison{Node: r.Node.Name, After: after, Unknown: []string{}}, Nothing: r.opts.Action.IsDone(r.facts, ready.Bundle, ready.Toplevel, r.opts.Reboot),
		SameSystem: r.opts.Action.HasSystem(r.facts, ready.Toplevel, r.opts.Reboot), Ship: ToShip{Paths: []nix.StorePath{}}, Lockout: []agent.Risk{}, Warnings: []string{},
	}
	if p.Nothing {
		p.Before = after
		return p, nil
	}
	if r.facts.Current != "" {
		before, err := r.there(ctx, SideRunning)
		if err != nil {
			return nil, err
		}
		c, err := r.compare(ctx, before, after)
		if err != nil {
			return nil, err
		}
		p.Comparison = *c
	} else if err := r.first(ctx, p); err != nil {
		return nil, err
	}
	if err := r.toShip(ctx, ready.Bundle, p); err != nil {
		return nil, err
	}
	if p.SameSystem {
		return p, nil
	}
	if r.facts.Current != "" {
		if err := r.lockout(ctx, p); err != nil {
			return nil, err
		}
	}
	r.warn(ctx, ready, p)
	return p, nil
}

// first is the comparison with a target that runs no system yet.
func (r *reader) first(ctx context.Context, p *Planned) error {
	if _, err := r.valid(ctx, p.After.Toplevel); err != nil {
		return r.Fail(session.Build, session.Unchanged, err)
	}
	is, err := r.closure(ctx, p.After)
	if err != nil {
		return err
	}
	closure := compare.Closures(nil, is)
	p.Closure = &closure
	p.Before.Name = "a machine without a NixOS system"
	return nil
}

// toShip asks what the target lacks.
func (r *reader) toShip(ctx context.Context, bundle nix.StorePath, p *Planned) error {
	err := r.Link.Do(ctx, func(conn *agent.Session) error {
		plan, err := ship.MakePlan(ctx, r.local.Serve, conn, bundle, ship.Options{Known: session.KeptBy(r.facts), NoDelta: r.opts.NoDelta, Memory: r.opts.Memory})
		if err != nil {
			return err
		}
		p.Ship = ToShip{Paths: []nix.StorePath{}, Bytes: plan.Bytes}
		for _, info := range plan.Missing {
			p.Ship.Paths = append(p.Ship.Paths, info.Path)
		}
		if r.opts.Measure && len(plan.Missing) > 0 && plan.Bytes <= maxMeasured {
			measured, err := plan.Measure(ctx)
			if err != nil {
				return err
			}
			p.Ship.Wire, p.Ship.Differences = measured.Wire, measured.Differences
			p.Ship.estimate(measured, ship.LastSpeed(r.Roots.Speed(r.Inventory.File, r.Node.Name)))
		}
		return nil
	})
	if err != nil {
		return r.Fail(session.Ship, session.Unchanged, err)
	}
	return nil
}

// longestShip is the limit of what is believed.
const longestShip = 100 * time.Hour

// estimate says how long it takes to send what was measured, at the speed of the last time; what took longer to make here takes at
// least as long.
func (s *ToShip) estimate(measured ship.Result, perSecond uint64) {
	if perSecond == 0 || measured.Wire == 0 {
		return
	}
	took := max(float64(measured.Wire)/float64(perSecond), measured.Duration.Seconds())
	if took <= longestShip.Seconds() {
		s.PerSecond, s.Seconds = perSecond, took
	}
}

// warn finds what would stop the deployment, or be done otherwise than asked, as far as that is known before anything is
// shipped.
func (r *reader) warn(ctx context.Context, ready session.Built, p *Planned) {
	// What the target itself says it runs counts, also where that is not here.
	p.NeedsReboot = NeedsReboot(r.facts, ready.Toplevel)
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
	if !r.opts.ReplaceUnknown {
		stop(session.Surprise(r.facts, r.Known(ctx, ready.Toplevel)))
	}
	for _, risk := range p.lockoutWarnings() {
		stop(risk)
	}
	stop(session.Fits(r.facts, p.Ship.Bytes))
	if p.System != nil && p.System.Refused != "" && p.NeedsReboot == "" {
		stop(fmt.Errorf("the system's switch-to-configuration would do nothing: %s", p.System.Refused))
	}
	if p.NeedsReboot == "" && !r.opts.Unsafe && r.opts.Action.Activates() == "test" {
		stop(session.RollsBack(r.facts))
	}
	if r.facts.Booted != "" && r.facts.Booted != r.facts.Current && r.facts.Profile != r.facts.Current {
		p.Warnings = append(p.Warnings, "the running system is not the boot default (started with --action test)")
	}
}
