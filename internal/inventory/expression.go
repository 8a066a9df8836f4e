package inventory

import (
	_ "embed" // the Nix files and scripts

	"ferry/internal/nix"
)

// The Nix files and scripts that Go completes.
var (
	//go:embed inventory.nix
	inventoryNix string
	//go:embed evaluate.nix
	evaluateNix string
	//go:embed build-bundle.sh
	buildBundle string
	//go:embed nixos-rebuild-switch.sh
	switchScript string
)

// asksForNodes is how evaluate.nix begins to refuse a narrowed configuration that asks for `nodes`.
const asksForNodes = "the configuration asks for `nodes`"

// treeExpression is a source as a Nix string with context.
func treeExpression(s Source, pure bool) string { return nix.Tree(s.Path, s.NarHash, pure) }
