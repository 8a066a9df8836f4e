package session

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/prose"
	"ferry/internal/run"
)

// Evaluate evaluates the node. It tells that it has started when the node's evaluation begins: until then it waits for others. A
// failure is an [*Error].
func (v *Visit) Evaluate(ctx context.Context) (*inventory.Evaluation, error) {
	var begin time.Time
	started := sync.OnceFunc(func() {
		begin = time.Now()
		v.Emit(Event{Kind: Started, Step: Evaluate})
	})
	log := v.Lines(Evaluate)
	evaluation, err := v.Inventory.Evaluate(ctx, v.Node, log, started)
	started()
	log.Flush()
	if err != nil {
		return nil, v.Fail(Evaluate, Unchanged, inventory.Unnamed(err, v.Node.Name))
	}
	text := ""
	if evaluation.NixpkgsVersion != "" {
		text = "NixOS " + run.Clean(evaluation.NixpkgsVersion)
	}
	v.Emit(Event{Kind: Finished, Step: Evaluate, Text: text, Duration: time.Since(begin)})
	return evaluation, nil
}

// Build builds the bundle that the node was evaluated to, and keeps it by a GC root of this machine. It waits for the node's turn only
// to find out what can be built; the builds of several nodes go together. A failure is an [*Error].
func (v *Visit) Build(ctx context.Context, evaluation *inventory.Evaluation) (nix.StorePath, error) {
	over, err := v.WaitTurn(ctx, Build)
	if err != nil {
		return "", err
	}
	begin := time.Now()
	v.Emit(Event{Kind: Started, Step: Build})
	failed := func(err error) error {
		// The step and the node say already what was to be built.
		var build *nix.BuildError
		var platform *nix.PlatformError
		if errors.As(err, &platform) {
			err = platform
		} else if errors.As(err, &build) {
			err = build
		}
		e := v.Fail(Build, Unchanged, err)
		e.Advice = buildHints(err)
		return e
	}
	err = canBuild(ctx, v.Inventory, evaluation, v.Nix)
	over()
	if err != nil {
		return "", failed(err)
	}
	var plan nix.Plan
	err = v.Nix.BuildTogether(ctx, evaluation.Bundle, evaluation.BundleOut, v.Roots.Built(v.Inventory.File, v.Node.Name), func(p nix.BuildProgress) {
		plan = p.Plan
		if p.Line != "" {
			v.Emit(Event{Kind: Line, Step: Build, Text: p.Line})
		}
		v.Emit(Event{Kind: Building, Step: Build, Build: p})
	})
	if err != nil {
		return "", failed(err)
	}
	text := "built already"
	if n := len(plan.Build); n > 0 {
		text = prose.Count(n, "derivation")
	}
	if n := len(plan.Fetch); n > 0 {
		text += ", " + prose.Count(n, "path") + " fetched"
	}
	v.Emit(Event{Kind: Finished, Step: Build, Text: text, Duration: time.Since(begin)})
	return evaluation.BundleOut, nil
}

// EvaluateAndBuild is [Visit.Evaluate] and then [Visit.Build].
func (v *Visit) EvaluateAndBuild(ctx context.Context) (Built, error) {
	evaluation, err := v.Evaluate(ctx)
	if err != nil {
		return Built{}, err
	}
	bundle, err := v.Build(ctx, evaluation)
	return Built{Bundle: bundle, Toplevel: evaluation.ToplevelOut}, err
}

// Keep keeps a bundle of the node by a GC root at link, besides ferry's own. A failure is an [*Error].
func (v *Visit) Keep(ctx context.Context, link string, bundle nix.StorePath) error {
	if err := v.Nix.Root(ctx, link, bundle); err != nil {
		return v.Fail(Build, Unchanged, err)
	}
	return nil
}

// canBuild finds out whether this machine, or a builder of the user's, builds for the systems that the evaluation asks for,
// before hours are spent on the part that it can build.
func canBuild(ctx context.Context, inv *inventory.Inventory, evaluation *inventory.Evaluation, client *nix.Client) error {
	var foreign []string
	for _, system := range []string{evaluation.ToplevelSystem, evaluation.BundleSystem} {
		if system != inv.System && !client.HasBuilt(system) && !slices.Contains(foreign, system) {
			foreign = append(foreign, system)
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	if _, err := os.Lstat(string(evaluation.BundleOut)); err == nil {
		return nil
	}
	if plan, err := client.Plan(ctx, evaluation.Bundle); err != nil || len(plan.Build) == 0 {
		return err
	}
	for _, system := range foreign {
		if err := WithProbe(system, func(probe string) error { return client.CanBuild(ctx, system, probe) }); err != nil {
			return err
		}
	}
	return nil
}

// WithProbe lets f use a program for system that builds a tiny derivation: the agent.
func WithProbe(system string, f func(probe string) error) error {
	program, err := agent.ProgramFor(system)
	if err != nil {
		return &nix.PlatformError{System: system, Reason: err.Error()}
	}
	dir, err := os.MkdirTemp("", "ferry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	text, err := program.Bytes()
	if err != nil {
		return err
	}
	probe := filepath.Join(dir, "ferry-probe")
	if err := os.WriteFile(probe, text, 0o755); err != nil {
		return err
	}
	return f(probe)
}

// buildHints says how to make this machine build for another system.
func buildHints(err error) []string {
	var platform *nix.PlatformError
	if !errors.As(err, &platform) {
		return nil
	}
	// Two hints are shown.
	ways := platform.Remedies()
	last := len(ways) - 1
	return []string{strings.Join(ways[:last], " "), ways[last]}
}
