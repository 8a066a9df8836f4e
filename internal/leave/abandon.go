// Package leave is the way on without ferry: [ByHand] gives a deployment as commands of ssh and Nix, [Write] a folder that builds
// a node's bundle with nix-build alone, and proves it. Targets are not connected to.
package leave

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"ferry/internal/cause"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/session"
)

// Write writes to the folder dir what makes a node's bundle without ferry, and proves it: nix-build has to make the same
// store path of it that ferry makes. A failure is an [*session.Error].
func Write(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, dir string) (nix.StorePath, error) {
	visit, err := with.Visit(inv, node, session.Reading)
	if err != nil {
		return "", err
	}
	defer visit.Close()
	if inv.Flake() {
		return "", visit.Fail(session.Build, session.Unchanged, session.Hint("a flake needs no folder that builds it without ferry: nix build does",
			"its bundle is a flake, too: ferry build -o result "+node.Name+", then nix build in result/ builds nothing"))
	}
	evaluation, err := visit.Evaluate(ctx)
	if err != nil {
		return "", err
	}
	if _, err := visit.Build(ctx, evaluation); err != nil {
		return "", err
	}
	fail := func(err error) (nix.StorePath, error) { return "", visit.Fail(session.Build, session.Unchanged, err) }
	bundle, err := session.ReadDerivation(evaluation.Bundle)
	if err != nil {
		return fail(err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return fail(err)
	}
	if err := inv.WriteByHand(ctx, dir, node, bundle.Env["nixpkgs"]); err != nil {
		return fail(err)
	}
	log := visit.Lines(session.Build)
	made, err := with.Nix.BuildFile(ctx, filepath.Join(dir, "default.nix"), filepath.Join(dir, "result"), log)
	log.Flush()
	if err != nil {
		return fail(err)
	}
	if made == evaluation.BundleOut {
		return made, nil
	}
	return fail(notTheSame(ctx, visit, evaluation, made))
}

// notTheSame says why what was made by hand is another bundle than ferry's.
func notTheSame(ctx context.Context, visit *session.Visit, evaluation *inventory.Evaluation, made nix.StorePath) error {
	text := fmt.Sprintf("by hand it is another bundle than ferry's: %s, not %s", made, evaluation.BundleOut)
	drv, err := visit.Deriver(ctx, made)
	if err != nil || drv == "" {
		return errors.New(text)
	}
	report, err := cause.Explain(ctx, evaluation.Bundle, drv, session.ReadDerivations, session.ReadDerivations, cause.Facts{})
	if err != nil {
		return errors.New(text)
	}
	var because []string
	for _, c := range report.Causes[:min(len(report.Causes), 2)] {
		because = append(because, c.Name+": "+c.Text)
	}
	if len(because) > 0 {
		text += ": " + strings.Join(because, "; ")
	}
	return session.Hint(text, "ferry verify --here "+visit.Node.Name+" compares the systems without the bundle around them")
}
