package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/prose"
	"ferry/internal/run"
)

// BuildOnly evaluates and builds a node's bundle, and keeps it by a GC root: at link, or under opts.Roots if link is empty. A
// failure is an [*Error].
func BuildOnly(ctx context.Context, inv *inventory.Inventory, node inventory.Node, link string, opts Options) (nix.StorePath, error) {
	evaluation, err := evaluate(ctx, inv, node, opts.about(node))
	if err != nil {
		return "", err
	}
	bundle, err := build(ctx, inv, node, evaluation, opts, opts.about(node))
	if err != nil || link == "" {
		return bundle, err
	}
	if err := opts.Nix.Root(ctx, link, bundle); err != nil {
		return "", &Error{Node: node.Name, Step: Build, State: Unchanged, Err: err}
	}
	return bundle, nil
}

// about gives what tells of node's events.
func (o Options) about(node inventory.Node) func(Event) {
	return func(e Event) {
		e.Node = node.Name
		o.Observe(e)
	}
}

// evaluate tells that it has started when the node's evaluation begins: until then it waits for others.
func evaluate(ctx context.Context, inv *inventory.Inventory, node inventory.Node, emit func(Event)) (*inventory.Evaluation, error) {
	var begin time.Time
	started := sync.OnceFunc(func() {
		begin = time.Now()
		emit(Event{Kind: Started, Step: Evaluate})
	})
	log := &run.LineWriter{Emit: func(line string) { emit(Event{Kind: Line, Step: Evaluate, Text: line}) }}
	evaluation, err := inv.Evaluate(ctx, node, log, started)
	started()
	log.Flush()
	if err != nil {
		return nil, &Error{Node: node.Name, Step: Evaluate, State: Unchanged, Err: inventory.Unnamed(err, node.Name)}
	}
	text := ""
	if v := evaluation.NixpkgsVersion; v != "" {
		text = "NixOS " + run.Clean(v)
	}
	emit(Event{Kind: Finished, Step: Evaluate, Text: text, Duration: time.Since(begin)})
	return evaluation, nil
}

// build waits for the node's turn only to find out what can be built; the builds of several nodes go together.
func build(ctx context.Context, inv *inventory.Inventory, node inventory.Node, evaluation *inventory.Evaluation, opts Options, emit func(Event)) (nix.StorePath, error) {
	over, err := opts.turn(ctx, node.Name, Build)
	if err != nil {
		return "", err
	}
	begin := time.Now()
	emit(Event{Kind: Started, Step: Build})
	failed := func(err error) error {
		// The step and the node say already what was to be built.
		var build *nix.BuildError
		var platform *nix.PlatformError
		if errors.As(err, &platform) {
			err = platform
		} else if errors.As(err, &build) {
			err = build
		}
		return &Error{Node: node.Name, Step: Build, State: Unchanged, Err: err, hints: buildHints(err)}
	}
	err = canBuild(ctx, inv, evaluation, opts.Nix)
	over()
	if err != nil {
		return "", failed(err)
	}
	var plan nix.Plan
	err = opts.Nix.BuildTogether(ctx, evaluation.Bundle, evaluation.BundleOut, opts.Roots.Built(inv.File, node.Name), func(p nix.BuildProgress) {
		plan = p.Plan
		if p.Line != "" {
			emit(Event{Kind: Line, Step: Build, Text: p.Line})
		}
		emit(Event{Kind: Building, Step: Build, Build: p})
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
	emit(Event{Kind: Finished, Step: Build, Text: text, Duration: time.Since(begin)})
	return evaluation.BundleOut, nil
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
		if err := withProbe(system, func(probe string) error { return client.CanBuild(ctx, system, probe) }); err != nil {
			return err
		}
	}
	return nil
}

// withProbe lets f use a program for system that builds a tiny derivation: the agent.
func withProbe(system string, f func(probe string) error) error {
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
	s := platform.System
	return []string{
		fmt.Sprintf("on NixOS: boot.binfmt.emulatedSystems = [ %q ]; on Debian: apt install qemu-user-static, and extra-platforms = %s in /etc/nix/nix.conf", s, s),
		fmt.Sprintf("or use a machine that is %s as a remote builder: --builders 'ssh://user@host %s', or /etc/nix/machines", s, s),
	}
}
