package inventory

import (
	_ "embed" // the Nix files and scripts
	"strings"
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

// nixString is s as a Nix string. s must not contain a NUL byte, which no Nix string can hold.
func nixString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + `"`
}

// nixBool is b as Nix writes it.
func nixBool(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// call is the Nix function text applied to arguments, which are pairs of a name and an expression.
func call(text string, arguments [][2]string) string {
	var b strings.Builder
	b.WriteString("((" + text + ") {\n")
	for _, a := range arguments {
		b.WriteString("  " + a[0] + " = " + a[1] + ";\n")
	}
	b.WriteString("})")
	return b.String()
}

// treeExpression is a store path as a Nix string with context. Pure mode admits a path only together with its hash.
func treeExpression(s Source, pure bool) string {
	if !pure {
		return "(builtins.storePath " + nixString(string(s.Path)) + ")"
	}
	return `(builtins.fetchTree { type = "path"; path = ` + nixString(string(s.Path)) +
		"; narHash = " + nixString(s.NarHash) + "; }).outPath"
}

// nixSet is an attribute set of pairs of a name and an expression.
func nixSet(pairs [][2]string) string {
	var b strings.Builder
	b.WriteString("{ ")
	for _, p := range pairs {
		b.WriteString(p[0] + " = " + p[1] + "; ")
	}
	b.WriteString("}")
	return b.String()
}
