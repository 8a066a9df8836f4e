// Package examine finds what would make a deployment fail before there is one: on this machine, and on the targets as root, as a
// deployment would meet them. It makes the rules that a deployment is stopped by into findings, each with what to do about it.
// Nothing is changed, but the agent is put on a target where it is missing. What is wrong is a [Finding] and no error.
package examine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/prose"
	"ferry/internal/session"
	"ferry/internal/status"

	"golang.org/x/sys/unix"
)

// Finding is one thing that was looked at before a deployment.
type Finding struct {
	Node      string           // "": it is about this machine
	About     string           // what was looked at: nix, ssh, …
	Attention status.Attention // Fine: it is well; Serious: a deployment would fail
	Text      string
	Fixes     []string // what to do about it; where there are several, one is enough
}

// Options says how nodes are examined.
type Options struct {
	// Quick leaves out what takes time here: test builds and evaluations.
	Quick bool
}

// Nodes finds out what would go wrong with a deployment of nodes before there is one, on this machine and on theirs. Nothing is
// changed, but the agent is put on a target where it is missing. All there is to say is in the findings, sorted: this machine's
// first, then the nodes', those that ask for most attention first. The error is that of a context that ended.
func Nodes(ctx context.Context, with session.Session, inv *inventory.Inventory, nodes []inventory.Node, opts Options) ([]Finding, error) {
	findings := examineHere(ctx, with, inv)
	evaluations := make([]evaluated, len(nodes))
	if !opts.Quick {
		evaluateEach(ctx, with, inv, nodes, evaluations)
		for _, system := range systemsOf(nodes, evaluations) {
			findings = append(findings, testBuild(ctx, with.Nix, system))
		}
	}
	found := make([][]Finding, len(nodes))
	errs := with.Each(ctx, nodes, func(ctx context.Context, s session.Session, i int) error {
		x := examined{Visit: s.At(inv, nodes[i]), evaluated: evaluations[i]}
		err := x.target(ctx)
		found[i] = x.findings
		return err
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i := range nodes {
		if errs[i] != nil && len(found[i]) == 0 {
			found[i] = []Finding{broken("ssh", errs[i])}
		}
		if f := evaluations[i].finding; f.About != "" {
			found[i] = append(found[i], f)
		}
		for j := range found[i] {
			found[i][j].Node = nodes[i].Name
		}
	}
	worst := func(list []Finding) status.Attention {
		worst := status.Fine
		for _, f := range list {
			worst = max(worst, f.Attention)
		}
		return worst
	}
	slices.SortStableFunc(found, func(a, b []Finding) int {
		return cmp.Or(cmp.Compare(worst(b), worst(a)), strings.Compare(a[0].Node, b[0].Node))
	})
	return append(findings, slices.Concat(found...)...), nil
}

// well is a finding of something that is as it should be.
func well(about, format string, args ...any) Finding {
	return Finding{About: about, Text: fmt.Sprintf(format, args...)}
}

// broken is a finding of something that would make a deployment fail.
func broken(about string, err error) Finding {
	return Finding{About: about, Attention: status.Serious, Text: err.Error(), Fixes: session.HintsOf(err)}
}

// Broken is what a check finds that cannot go on: an inventory that cannot be opened, a Nix that does not work.
func Broken(about string, err error) Finding { return broken(about, err) }

// examineHere examines this machine.
func examineHere(ctx context.Context, with session.Session, inv *inventory.Inventory) []Finding {
	var findings []Finding
	if v, err := with.Nix.Version(ctx); err != nil {
		findings = append(findings, broken("nix", err))
	} else {
		findings = append(findings, well("nix", "%s", v))
	}
	findings = append(findings, sourceFinding(inv.Source))
	if f, known := storeHere(); known {
		findings = append(findings, f)
	}
	return findings
}

func sourceFinding(s inventory.Source) Finding {
	f := well("source", "%s", prose.Size(uint64(s.Size)))
	if s.Big() {
		f.Attention, f.Text = status.Warning, f.Text+" go to the store, here and on every target"
		f.Fixes = []string{"in a git work tree: git rm -r --cached what no configuration needs, and name it in .gitignore",
			"elsewhere: move it out of the inventory's folder"}
	}
	return f
}

// storeHere looks at the room in this machine's store.
func storeHere() (f Finding, known bool) {
	var st unix.Statfs_t
	if unix.Statfs("/nix/store", &st) != nil {
		return Finding{}, false
	}
	free := st.Bavail * uint64(st.Bsize)
	f = well("store", "%s free for /nix/store", prose.Size(free))
	switch {
	case free < session.MinimumFree:
		f.Attention = status.Serious
	case free < status.Scarce:
		f.Attention = status.Warning
	}
	if f.Attention > status.Fine {
		f.Fixes = []string{"nix-collect-garbage --delete-older-than 30d"}
	}
	return f, true
}

// systemsOf are the systems that something is built for, each once: that of a node's programs, unless its evaluation says that
// they are cross compiled.
func systemsOf(nodes []inventory.Node, evaluations []evaluated) []string {
	var systems []string
	for i, n := range nodes {
		if list := evaluations[i].systems; len(list) > 0 {
			systems = append(systems, list...)
		} else if n.System != "" {
			systems = append(systems, n.System)
		}
	}
	slices.Sort(systems)
	return slices.Compact(systems)
}

// testBuild finds out whether this machine builds for system, by doing it.
func testBuild(ctx context.Context, client *nix.Client, system string) Finding {
	about := "builds for " + system
	err := session.WithProbe(system, func(probe string) error { return client.TestBuild(ctx, system, probe) })
	if err == nil {
		return well(about, "a test build works")
	}
	f := broken(about, err)
	var platform *nix.PlatformError
	var failed *nix.BuildError
	if errors.As(err, &platform) {
		f.Text, f.Fixes = platform.Error(), platform.Remedies()
	} else if errors.As(err, &failed) {
		f.Text = failed.Error()
	}
	return f
}

// evaluated is what an evaluation of a node has found.
type evaluated struct {
	finding  Finding
	bundle   nix.StorePath // "": it is not known
	toplevel nix.StorePath
	built    bool     // the bundle is in this machine's store
	systems  []string // that it is built for
}

// evaluationsAtOnce is how many nodes are evaluated at the same time: each takes a processor and a lot of memory.
const evaluationsAtOnce = 2

// evaluateEach evaluates nodes, and builds nothing.
func evaluateEach(ctx context.Context, with session.Session, inv *inventory.Inventory, nodes []inventory.Node, to []evaluated) {
	var group sync.WaitGroup
	var mu sync.Mutex
	oneAtATime := with
	oneAtATime.Observe = func(event session.Event) {
		mu.Lock()
		defer mu.Unlock()
		with.Observe(event)
	}
	slots := make(chan struct{}, evaluationsAtOnce)
	for i := range nodes {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			evaluation, err := oneAtATime.At(inv, nodes[i]).Evaluate(ctx)
			if err != nil {
				var failed *session.Error
				if errors.As(err, &failed) {
					err = failed.Err
				}
				to[i].finding = broken("evaluation", err)
				return
			}
			_, missing := os.Lstat(string(evaluation.BundleOut))
			to[i] = evaluated{bundle: evaluation.BundleOut, toplevel: evaluation.ToplevelOut, built: missing == nil,
				systems: []string{evaluation.ToplevelSystem, evaluation.BundleSystem}}
			to[i].finding = well("evaluation", "%s", cmp.Or(evaluation.NixpkgsVersion, "it evaluates"))
			if evaluation.Impure != "" && !nodes[i].Impure {
				to[i].finding.Attention, to[i].finding.Text = status.Notice, "not pure: "+evaluation.Impure
				to[i].finding.Fixes = []string{"if that is meant: impure = true; for this node"}
			}
		})
	}
	group.Wait()
}
