package preview

import (
	"context"
	"os"
	"slices"
	"strings"

	"ferry/internal/cause"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/session"
)

// BuildReasons is why a node's system has to be built.
type BuildReasons struct {
	Node string `json:"node"`
	// Deployed is the system that was deployed from here last, "" if none was; New is what the working tree evaluates to.
	Deployed nix.StorePath `json:"deployed"`
	New      nix.StorePath `json:"new"`
	Same     bool          `json:"same"`
	// Build are the derivations that would be built, and Fetch the paths that would be fetched.
	Build []nix.StorePath `json:"build"`
	Fetch []nix.StorePath `json:"fetch"`
	// Foreign are those of Build that are not built by this machine's own processor: under emulation, or by a builder.
	Foreign []Foreign `json:"foreign"`
	// Report says why the two systems differ; nil: they do not, or Unknown says why that is not known.
	Report  *cause.Report `json:"report"`
	Unknown string        `json:"unknown"`
}

// Foreign is a derivation that is built for another system than this machine's.
type Foreign struct {
	Derivation nix.StorePath `json:"derivation"`
	System     string        `json:"system"`
	// Emulated says that this machine would build it, by emulation; else a remote builder has to.
	Emulated bool `json:"emulated"`
}

// WhyBuild evaluates a node and says what would be built for it, and which inputs have changed since the system that was
// deployed from here last. The target is not asked, and nothing is built. A failure is an [*session.Error].
func WhyBuild(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node) (*BuildReasons, error) {
	visit, err := with.Visit(inv, node, session.Reading)
	if err != nil {
		return nil, err
	}
	defer visit.Close()
	evaluation, err := visit.Evaluate(ctx)
	if err != nil {
		return nil, err
	}
	b := &BuildReasons{Node: node.Name, New: evaluation.ToplevelOut, Build: []nix.StorePath{}, Fetch: []nix.StorePath{}, Foreign: []Foreign{}}
	if err := toBuild(ctx, visit, evaluation, b); err != nil {
		return nil, err
	}
	bundle, err := os.Readlink(with.Roots.Deployed(inv.File, node.Name))
	if err == nil {
		b.Deployed = session.BundleLink(nix.StorePath(bundle), "profile")
	}
	switch b.Same = b.Deployed == b.New; {
	case b.Deployed == "":
		b.Unknown = "nothing was deployed to this node from here, so there is nothing to compare with"
		return b, nil
	case b.Same:
		return b, nil
	}
	before, err := visit.DerivationOf(ctx, nix.StorePath(bundle), b.Deployed)
	if err != nil {
		return nil, err
	}
	if before == "" {
		b.Unknown = "the derivation of the deployed system is not in this machine's store any more"
		return b, nil
	}
	if b.Report, err = cause.Explain(ctx, before, evaluation.Toplevel, session.ReadDerivations, session.ReadDerivations, cause.Facts{}); err != nil {
		return nil, visit.Fail(session.Evaluate, session.Unchanged, err)
	}
	return b, nil
}

// toBuild asks Nix what would be built and fetched, and by whom.
func toBuild(ctx context.Context, visit *session.Visit, evaluation *inventory.Evaluation, b *BuildReasons) error {
	if _, err := os.Lstat(string(evaluation.BundleOut)); err == nil {
		return nil
	}
	plan, err := visit.Nix.Plan(ctx, evaluation.Bundle)
	if err != nil {
		return visit.Fail(session.Build, session.Unchanged, err)
	}
	b.Build, b.Fetch = append(b.Build, plan.Build...), append(b.Fetch, plan.Fetch...)
	settings, err := visit.Nix.Settings(ctx)
	if err != nil {
		return visit.Fail(session.Build, session.Unchanged, err)
	}
	for _, drv := range plan.Build {
		d, err := session.ReadDerivation(drv)
		if err != nil || native(settings.System, d.System) {
			continue
		}
		b.Foreign = append(b.Foreign, Foreign{drv, d.System, settings.Builds(d.System) && settings.MaxJobs > 0})
	}
	return nil
}

// native tells whether a machine of one system runs programs of another one by itself.
func native(machine, system string) bool {
	if machine == system || system == "builtin" {
		return true
	}
	also := map[string][]string{"x86_64-linux": {"i686-linux"}, "armv7l-linux": {"armv6l-linux"}, "aarch64-darwin": {"x86_64-darwin"}}
	return slices.Contains(also[machine], system)
}

// Name is the name of what the derivation makes.
func (f Foreign) Name() string { return strings.TrimSuffix(f.Derivation.Name(), ".drv") }
