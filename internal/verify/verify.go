// Package verify proves that a node has what ferry says: [There] and [Here] that plain nixos-rebuild would build the very system
// that was deployed, [OnDisk] that the target's disk has it as its Nix has registered it. A difference is a result and no
// error; errors are [session.Error], and leave the node unchanged.
package verify

import (
	"context"

	"ferry/internal/agent"
	"ferry/internal/cause"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
)

// Verified is how what plain nixos-rebuild would build compares with what ferry has.
type Verified struct {
	Node string `json:"node"`
	Same bool   `json:"same"`
	// Deployed is the system that was deployed, or, on this machine, that would be. Rebuilt is what nixos-rebuild would build.
	Deployed nix.StorePath `json:"deployed"`
	Rebuilt  nix.StorePath `json:"rebuilt"`
	// NixHere and NixThere are the versions of Nix that have evaluated the two.
	NixHere  string `json:"nix_here"`
	NixThere string `json:"nix_there"`
	// Report says why they differ; nil where they do not, or where that cannot be found out: then Unknown says why.
	Report  *cause.Report `json:"report"`
	Unknown string        `json:"unknown"`
}

// There has a node's target evaluate what the last deployment left there, with its own Nix and in the way of plain
// nixos-rebuild, and compares that with what was deployed. Nothing is built, fetched or activated there; derivations are
// written to its store. A failure is an [*session.Error].
func There(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node) (*Verified, error) {
	visit, err := with.Visit(inv, node, session.Reading)
	if err != nil {
		return nil, err
	}
	defer visit.Close()
	facts, err := visit.Reach(ctx)
	if err != nil {
		return nil, err
	}
	v := &Verified{Node: node.Name, Deployed: nix.StorePath(facts.Committed)}
	if facts.Bundle == "" || v.Deployed == "" {
		return nil, visit.Fail(session.Connect, session.Unchanged, session.Hint("no deployment of ferry's has left its configuration on the target", "ferry verify --here "+node.Name+" evaluates on this machine"))
	}
	there, err := evaluateThere(ctx, visit)
	if err != nil {
		return nil, err
	}
	v.Rebuilt, v.NixThere, v.Same = there.Toplevel, there.Nix, there.Toplevel == v.Deployed
	if version, err := with.Nix.Version(ctx); err == nil {
		v.NixHere = version.Text
	}
	if v.Same {
		return v, nil
	}
	here, err := visit.DerivationOf(ctx, nix.StorePath(facts.Bundle), v.Deployed)
	if err != nil {
		return nil, err
	}
	if here == "" {
		v.Unknown = "this machine has neither the derivation of the deployed system nor its bundle: run this where it was deployed from"
		return v, nil
	}
	onTarget := func(ctx context.Context, drvs []nix.StorePath) (texts map[nix.StorePath]string, err error) {
		err = visit.Link.Do(ctx, func(conn *agent.Session) error {
			texts, err = conn.Derivations(ctx, drvs)
			return err
		})
		return texts, err
	}
	v.Report, err = cause.Explain(ctx, here, there.Derivation, session.ReadDerivations, onTarget, cause.Facts{NixBefore: v.NixHere, NixAfter: v.NixThere})
	if err != nil {
		return nil, visit.Fail(session.Evaluate, session.Unchanged, err)
	}
	// Half of it is from derivations as the target tells them.
	for i := range v.Report.Causes {
		c := &v.Report.Causes[i]
		for _, text := range []*string{&c.Name, &c.Text, &c.Before, &c.After} {
			*text = run.Clean(*text)
		}
		for j := range c.PartOf {
			c.PartOf[j] = run.Clean(c.PartOf[j])
		}
	}
	return v, nil
}

// evaluateThere evaluates on the target.
func evaluateThere(ctx context.Context, visit *session.Visit) (agent.EvaluateResult, error) {
	done := visit.Start(session.Evaluate)
	log := visit.Lines(session.Evaluate)
	var there agent.EvaluateResult
	err := visit.Link.Do(ctx, func(conn *agent.Session) error {
		var err error
		there, err = conn.Evaluate(ctx, log)
		return err
	})
	log.Flush()
	if err != nil {
		return there, visit.Fail(session.Evaluate, session.Unchanged, err)
	}
	done("on the target, by its Nix " + run.Clean(there.Nix))
	return there, nil
}

// plain is the derivation that plain nixos-rebuild would build of what was evaluated.
func plain(ctx context.Context, visit *session.Visit, evaluation *inventory.Evaluation) (nix.StorePath, error) {
	if visit.Inventory.Flake() {
		return visit.Inventory.ByNix(ctx, visit.Node)
	}
	bundle, err := session.ReadDerivation(evaluation.Bundle)
	if err != nil {
		return "", err
	}
	return visit.Instantiate(ctx, bundle.Env["nixpkgs"], bundle.Env["configuration"])
}

// Here compares what ferry evaluates the working tree to with what plain nixos-rebuild would, both on this machine. A
// failure is an [*session.Error].
func Here(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node) (*Verified, error) {
	visit, err := with.Visit(inv, node, session.Reading)
	if err != nil {
		return nil, err
	}
	defer visit.Close()
	evaluation, err := visit.Evaluate(ctx)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Verified, error) { return nil, visit.Fail(session.Evaluate, session.Unchanged, err) }
	plain, err := plain(ctx, visit, evaluation)
	if err != nil {
		return fail(err)
	}
	system, err := session.ReadDerivation(plain)
	if err != nil {
		return fail(err)
	}
	v := &Verified{Node: node.Name, Deployed: evaluation.ToplevelOut, Rebuilt: system.Outputs["out"].Path}
	v.Same = v.Deployed == v.Rebuilt
	if version, err := with.Nix.Version(ctx); err == nil {
		v.NixHere, v.NixThere = version.Text, version.Text
	}
	if !v.Same {
		if v.Report, err = cause.Explain(ctx, evaluation.Toplevel, plain, session.ReadDerivations, session.ReadDerivations, cause.Facts{}); err != nil {
			return fail(err)
		}
	}
	return v, nil
}
