package nix

import "strings"

// Quote is s as a Nix string. s must not contain a NUL byte, which no Nix string can hold.
func Quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + `"`
}

// Bool is b as Nix writes it.
func Bool(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// Call is the Nix function text applied to arguments, which are pairs of a name and an expression.
func Call(text string, arguments [][2]string) string {
	var b strings.Builder
	b.WriteString("((" + text + ") {\n")
	for _, a := range arguments {
		b.WriteString("  " + a[0] + " = " + a[1] + ";\n")
	}
	b.WriteString("})")
	return b.String()
}

// Set is an attribute set of pairs of a name and an expression.
func Set(pairs [][2]string) string {
	var b strings.Builder
	b.WriteString("{ ")
	for _, p := range pairs {
		b.WriteString(p[0] + " = " + p[1] + "; ")
	}
	b.WriteString("}")
	return b.String()
}

// Tree is a store path as a Nix string with context. Pure mode admits a path only together with its hash; without pure the hash is not
// needed.
func Tree(p StorePath, narHash string, pure bool) string {
	if !pure {
		return "(builtins.storePath " + Quote(string(p)) + ")"
	}
	return `(builtins.fetchTree { type = "path"; path = ` + Quote(string(p)) + "; narHash = " + Quote(narHash) + "; }).outPath"
}
