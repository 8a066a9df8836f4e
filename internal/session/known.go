package session

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
)

// Known is what this machine knows of what it deploys to a node and has deployed there.
type Known struct {
	node     string
	toplevel string // what is to be deployed
	source   string // the snapshot that it is from
	// deployed are the bundles that were deployed last from here: what boots, and what was only tried since.
	deployed []string
	// lineage tells how a git revision stands to what is checked out here.
	lineage func(revision string) (inventory.Lineage, error)
}

// Known is what is known of the node here; toplevel is "" if it is not known yet what is to be deployed.
func (v *Visit) Known(ctx context.Context, toplevel nix.StorePath) Known {
	inv, node, roots := v.Inventory, v.Node, v.Roots
	var deployed []string
	for _, link := range []string{roots.Deployed(inv.File, node.Name), roots.Tried(inv.File, node.Name)} {
		// Without the link, nothing was deployed from here.
		if bundle, err := os.Readlink(link); err == nil {
			deployed = append(deployed, bundle)
		}
	}
	// Without it, what is on the target is only less likely to be known.
	source, _ := inv.SourceOf(ctx, node)
	return Known{
		node: node.Name, toplevel: string(toplevel), source: string(source.Path), deployed: deployed,
		lineage: func(revision string) (inventory.Lineage, error) { return inv.Lineage(ctx, revision) },
	}
}

// Surprise tells whether the deployment would replace a system that nobody here knows of: one that no deployment of ferry's
// left on the target, or one that was deployed from a revision which this checkout does not build on. It is asked with the
// facts from before anything was shipped. A target that ferry has never deployed to is none.
func Surprise(facts agent.Facts, p Known) error {
	if facts.Last == nil && facts.Bundle == "" {
		return nil
	}
	systems := [][2]string{{"boots", facts.Profile}}
	switch {
	case facts.Specialisation != "":
		// It came with the profile's system.
	case facts.Current == facts.Profile:
		systems = [][2]string{{"runs", facts.Current}}
	default:
		systems = append([][2]string{{"runs", facts.Current}}, systems...)
	}
	for _, s := range systems {
		does, toplevel := s[0], s[1]
		if toplevel == "" || toplevel == p.toplevel {
			continue
		}
		left, known := WhatLeft(facts, toplevel)
		if !known {
			return unknownSystem(facts, p, does, toplevel)
		}
		if err := p.replaces(left, does, toplevel); err != nil {
			return err
		}
	}
	return nil
}

// Origin is a deployment that left a system on a target. What is not known of it is empty.
type Origin struct {
	bundle, source, Revision string
	Dirty                    bool
	Entry                    *agent.JournalEntry
}

// WhatLeft finds the deployment that left a system on a target; known is false if none did.
func WhatLeft(facts agent.Facts, toplevel string) (left Origin, known bool) {
	last := facts.Last
	switch {
	case toplevel == facts.Committed:
		m := facts.Deployed
		return Origin{facts.Bundle, m.Source, m.Revision, m.Dirty, facts.LastCommit}, true
	case last != nil && (toplevel == last.After.Current || toplevel == last.After.Profile):
		if toplevel != last.Toplevel {
			// It was there before, and whoever deployed last has seen it.
			return Origin{}, true
		}
		return Origin{last.Bundle, "", last.Revision, last.Dirty, last}, true
	case toplevel == facts.Pending:
		// A power cut took the deployment away before it was written down.
		return Origin{}, true
	case last == nil && toplevel == facts.Current && toplevel == facts.Booted && facts.Profile == facts.Committed:
		// A deployment without the agent, which writes no journal, waits for the next boot.
		return Origin{}, true
	}
	return Origin{}, false
}

// replaces refuses to replace what is not known here.
func (p Known) replaces(left Origin, does, toplevel string) error {
	if left.Revision == "" || slices.Contains(p.deployed, left.bundle) || left.source != "" && left.source == p.source {
		return nil
	}
	lineage, err := p.lineage(left.Revision)
	if err != nil {
		return err
	}
	short := shortRevision(left.Revision)
	var advice string
	switch lineage {
	case inventory.NotComparable, inventory.Ancestor:
		return nil
	case inventory.Divergent:
		advice = fmt.Sprintf("git log HEAD..%s shows what it has that this checkout lacks; git merge %s takes it in", short, short)
	case inventory.Shallow:
		advice = "this checkout has only a part of its history: git fetch --unshallow"
	default:
		advice = "git pull, then run this again"
	}
	text := fmt.Sprintf("the target %s %s, deployed%s from revision %s", does, SystemName(toplevel), ByWhom(left.Entry), short)
	if left.Dirty {
		text += " with uncommitted changes"
	}
	return Hint(text+", which is not in this checkout's history", advice, goOn)
}

const goOn = "to replace it all the same: --replace-unknown"

// unknownSystem says that someone else than ferry was at the target.
func unknownSystem(facts agent.Facts, p Known, does, toplevel string) error {
	text := fmt.Sprintf("the target %s %s, which no deployment of ferry's left there", does, SystemName(toplevel))
	switch {
	case toplevel == facts.Profile && facts.Generation > 0:
		text += fmt.Sprintf(": generation %d of %s", facts.Generation, day(time.Unix(facts.ProfileTime, 0)))
	case toplevel == facts.Profile:
	case facts.CurrentGeneration > 0:
		text += fmt.Sprintf(": generation %d, while generation %d is what boots", facts.CurrentGeneration, facts.Generation)
	default:
		text += ", and which is none of its generations"
	}
	if last := facts.Last; last != nil {
		text += fmt.Sprintf("; the last deployment was%s, of %s", ByWhom(last), cmp.Or(SystemName(last.Toplevel), "another system"))
	}
	return Hint(text, "ferry generations "+p.node+" shows what it has", goOn)
}

// KeptBy are the paths that a target keeps, by what it says of itself: nobody collects them while it is deployed to.
func KeptBy(facts agent.Facts) []nix.StorePath {
	var kept []nix.StorePath
	seen := map[nix.StorePath]bool{}
	for _, text := range []string{facts.Current, facts.Bundle, facts.Profile, facts.Booted} {
		if p, err := nix.ParseStorePath(text); err == nil && !seen[p] {
			seen[p] = true
			kept = append(kept, p)
		}
	}
	return kept
}
