package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"ferry/internal/inventory"
	"ferry/internal/run"
	"ferry/internal/target"
)

// switchScript is the bundle's own way to switch.
const switchScript = "/nixos-rebuild-switch"

// ByHand evaluates a node and gives its deployment as commands that work without ferry, ready to paste into sh, with
// comments. They need two logins, and a target that knows no user as trusted.
func ByHand(ctx context.Context, inv *inventory.Inventory, node inventory.Node, dialer *target.Dialer, action Action, observe func(Event)) (string, error) {
	evaluation, err := evaluate(ctx, inv, node, func(e Event) {
		e.Node = node.Name
		observe(e)
	})
	if err != nil {
		return "", err
	}
	bundle := evaluation.BundleOut
	address, err := target.ParseAddress(node.Target)
	if err != nil {
		return "", err
	}
	elevate := run.QuoteAll(elevation(node))
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s by hand\n", node.Name, action)
	fmt.Fprintf(&b, "bundle=%s\n", run.Quote(string(bundle)))
	fmt.Fprintf(&b, "nix-store --realise %s  # builds it, where it is not there\n", run.Quote(string(evaluation.Bundle)))
	if address.Local() {
		fmt.Fprintf(&b, "%s \"$bundle\"%s %s\n", elevate, switchScript, action)
		return b.String(), nil
	}
	ssh := "ssh"
	if dialer.SSHConfig != "" {
		ssh += " -F " + run.Quote(dialer.SSHConfig)
	}
	dest := run.Quote(address.String())
	if isRoot(address) {
		if dialer.SSHConfig != "" {
			fmt.Fprintf(&b, "NIX_SSHOPTS=%s ", run.Quote("-F "+dialer.SSHConfig))
		}
		fmt.Fprintf(&b, "nix-copy-closure --to %s \"$bundle\"\n", dest)
		fmt.Fprintf(&b, "%s -t -- %s \"$bundle\"%s %s\n", ssh, dest, switchScript, action)
		return b.String(), nil
	}
	fmt.Fprintf(&b, "# where this user is in the target's trusted-users, this copies as well:  nix-copy-closure --to %s \"$bundle\"\n", dest)
	fmt.Fprintf(&b, "nix-store --export $(nix-store --query --requisites \"$bundle\") | gzip | %s -- %s 'cat > ferry-bundle.gz'\n", ssh, dest)
	fmt.Fprintf(&b, "%s -t -- %s \"%s sh -c 'gzip -dc ferry-bundle.gz | nix-store --import > /dev/null && rm ferry-bundle.gz && exec $bundle%s %s'\"\n",
		ssh, dest, elevate, switchScript, action)
	return b.String(), nil
}

// elevation is the command that makes root on a node: what the inventory says, else sudo.
func elevation(node inventory.Node) []string {
	if len(node.Elevate) > 0 {
		return slices.Clone(node.Elevate)
	}
	return []string{"sudo"}
}

// isRoot tells whether the login itself is root's, as far as the target's name says it.
func isRoot(a target.Address) bool {
	return strings.HasPrefix(strings.TrimPrefix(a.String(), "ssh://"), "root@")
}

// RunPlain deploys without the agent, by the classic commands: nix-copy-closure, and ssh with a terminal for sudo, over one
// login. The streams are the user's. A failure is an [*Error].
func RunPlain(ctx context.Context, inv *inventory.Inventory, node inventory.Node, opts Options, in io.Reader, out, errw io.Writer) (Result, error) {
	fail := func(step Step, state State, err error) error {
		return &Error{Node: node.Name, Step: step, State: state, Err: err}
	}
	address, err := target.ParseAddress(node.Target)
	if err != nil {
		return Result{}, fail(Connect, Unchanged, err)
	}
	emit := func(e Event) {
		e.Node = node.Name
		opts.Observe(e)
	}
	evaluation, err := evaluate(ctx, inv, node, emit)
	if err != nil {
		return Result{}, err
	}
	bundle, err := build(ctx, inv, node, evaluation, opts.Nix, opts.Roots, emit)
	if err != nil {
		return Result{}, err
	}
	result := Result{Bundle: bundle, Toplevel: evaluation.ToplevelOut, Outcome: plainOutcome(opts.Action)}
	script := []string{string(bundle) + switchScript, string(opts.Action)}
	elevated := append(elevation(node), script...)
	if address.Local() {
		emit(Event{Kind: Started, Step: Activate})
		if os.Geteuid() == 0 {
			elevated = script
		}
		err := opts.Dialer.Runner.Run(ctx, run.Command{Argv: elevated, In: in, Out: out, Err: errw})
		return result, plainError(err, fail)
	}
	emit(Event{Kind: Started, Step: Connect})
	master, err := opts.Dialer.Master(ctx, address, errw)
	if err != nil {
		return result, fail(Connect, Unchanged, err)
	}
	defer master.Close()
	emit(Event{Kind: Started, Step: Ship})
	err = opts.Dialer.Runner.Run(ctx, run.Command{
		Argv: []string{"nix-copy-closure", "--to", address.String(), string(bundle)}, Err: errw,
		Env: []string{"NIX_SSHOPTS=" + strings.Join(master.Args, " ")},
	})
	if err != nil {
		return result, fail(Ship, Unchanged, copyError(err))
	}
	emit(Event{Kind: Started, Step: Activate})
	if isRoot(address) {
		elevated = script
	}
	argv := append(append([]string{"ssh"}, master.Args...), "-t", "--", address.String(), run.QuoteAll(elevated))
	return result, plainError(opts.Dialer.Runner.Run(ctx, run.Command{Argv: argv, In: in, Out: out, Err: errw}), fail)
}

func plainOutcome(a Action) Outcome {
	switch a {
	case DryActivate:
		return Described
	case Test:
		return Activated
	case Boot:
		return Installed
	}
	return Committed
}

func copyError(err error) error {
	var failed *run.Error
	if errors.As(err, &failed) && strings.Contains(failed.Stderr, "lacks a ") && strings.Contains(failed.Stderr, "signature") {
		return &hinted{text: err.Error(), err: err, hints: []string{
			"the target's Nix takes unsigned paths only from root and trusted-users: leave out --method plain, or log in as root",
		}}
	}
	return err
}

// plainError tells the exit status of the bundle's script, which is switch-to-configuration's, from what ssh and sudo say.
func plainError(err error, fail func(Step, State, error) error) error {
	var failed *run.Error
	if err == nil {
		return nil
	}
	if errors.As(err, &failed) && (failed.Status == 1 || failed.Status == 100) {
		return fail(Activate, Unchanged, err)
	}
	return fail(Activate, Unknown, err)
}
