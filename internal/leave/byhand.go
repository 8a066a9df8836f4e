package leave

import (
	"context"
	"fmt"
	"strings"

	"ferry/internal/action"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/target"
)

// ByHand evaluates a node and gives its deployment, with an action, as commands that work without ferry, ready to paste into sh, with
// comments. They need two logins, and a target that knows no user as trusted.
func ByHand(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, act action.Action) (string, error) {
	evaluation, err := with.At(inv, node).Evaluate(ctx)
	if err != nil {
		return "", err
	}
	bundle := evaluation.BundleOut
	address, err := target.ParseAddress(node.Target)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s by hand\n", node.Name, act)
	fmt.Fprintf(&b, "bundle=%s\n", run.Quote(string(bundle)))
	fmt.Fprintf(&b, "nix-store --realise %s  # builds it, where it is not there\n", run.Quote(string(evaluation.Bundle)))
	if address.Local() {
		fmt.Fprintf(&b, "%s \"$bundle\"%s %s\n", run.QuoteAll(session.Elevation(node)), session.SwitchScript, act)
		return b.String(), nil
	}
	var config, port []string
	if with.Dialer.SSHConfig != "" {
		config = []string{"-F", with.Dialer.SSHConfig}
	}
	if address.Port() != "" {
		port = []string{"-p", address.Port()}
	}
	ssh := run.QuoteAll(append([]string{"ssh"}, config...))
	nixCopy := "nix-copy-closure --to " + run.Quote(address.Login()) + " \"$bundle\""
	if options := append(config, port...); len(options) > 0 {
		nixCopy = "NIX_SSHOPTS=" + run.Quote(strings.Join(options, " ")) + " " + nixCopy
	}
	dest := run.Quote(address.String())
	if address.User() == "root" {
		fmt.Fprintf(&b, "%s\n%s -t -- %s \"$bundle\"%s %s\n", nixCopy, ssh, dest, session.SwitchScript, act)
		return b.String(), nil
	}
	fmt.Fprintf(&b, "# where this user is in the target's trusted-users, this copies as well:  %s\n", nixCopy)
	fmt.Fprintf(&b, "nix-store --export $(nix-store --query --requisites \"$bundle\") | gzip | %s -- %s 'cat > ferry-bundle.gz'\n", ssh, dest)
	fmt.Fprintf(&b, "%s -t -- %s %s\n", ssh, dest, elevatedImport(session.Elevation(node), bundle, act))
	return b.String(), nil
}

// elevatedImport is the remote half, quoted for the shell here: it imports what the step before has sent, and switches.
func elevatedImport(elevate []string, bundle nix.StorePath, act action.Action) string {
	script := fmt.Sprintf("gzip -dc ferry-bundle.gz | nix-store --import > /dev/null && rm ferry-bundle.gz && exec %s%s %s", bundle, session.SwitchScript, act)
	line := run.QuoteAll(append(elevate, "sh", "-c", script))
	if strings.ContainsAny(line, "\"$`\\!") {
		return run.Quote(line)
	}
	// Easier to read, where it means the same.
	return `"` + line + `"`
}
