package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/target"
)

// switchScript is the bundle's own way to switch.
const switchScript = "/nixos-rebuild-switch"

// ByHand evaluates a node and gives its deployment, with opts.Action, as commands that work without ferry, ready to paste into sh, with
// comments. They need two logins, and a target that knows no user as trusted.
func ByHand(ctx context.Context, inv *inventory.Inventory, node inventory.Node, opts Options) (string, error) {
	dialer, action := opts.Dialer, opts.Action
	evaluation, err := evaluate(ctx, inv, node, opts.about(node))
	if err != nil {
		return "", err
	}
	bundle := evaluation.BundleOut
	address, err := target.ParseAddress(node.Target)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s by hand\n", node.Name, action)
	fmt.Fprintf(&b, "bundle=%s\n", run.Quote(string(bundle)))
	fmt.Fprintf(&b, "nix-store --realise %s  # builds it, where it is not there\n", run.Quote(string(evaluation.Bundle)))
	if address.Local() {
		fmt.Fprintf(&b, "%s \"$bundle\"%s %s\n", run.QuoteAll(elevation(node)), switchScript, action)
		return b.String(), nil
	}
	var config, port []string
	if dialer.SSHConfig != "" {
		config = []string{"-F", dialer.SSHConfig}
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
		fmt.Fprintf(&b, "%s\n%s -t -- %s \"$bundle\"%s %s\n", nixCopy, ssh, dest, switchScript, action)
		return b.String(), nil
	}
	fmt.Fprintf(&b, "# where this user is in the target's trusted-users, this copies as well:  %s\n", nixCopy)
	fmt.Fprintf(&b, "nix-store --export $(nix-store --query --requisites \"$bundle\") | gzip | %s -- %s 'cat > ferry-bundle.gz'\n", ssh, dest)
	fmt.Fprintf(&b, "%s -t -- %s %s\n", ssh, dest, elevatedImport(elevation(node), bundle, action))
	return b.String(), nil
}

// elevatedImport is the remote half, quoted for the shell here: it imports what the step before has sent, and switches.
func elevatedImport(elevate []string, bundle nix.StorePath, action Action) string {
	script := fmt.Sprintf("gzip -dc ferry-bundle.gz | nix-store --import > /dev/null && rm ferry-bundle.gz && exec %s%s %s", bundle, switchScript, action)
	line := run.QuoteAll(append(elevate, "sh", "-c", script))
	if strings.ContainsAny(line, "\"$`\\!") {
		return run.Quote(line)
	}
	// Easier to read, where it means the same.
	return `"` + line + `"`
}

// elevation is the command that makes root on a node: what the inventory says, else sudo.
func elevation(node inventory.Node) []string {
	if len(node.Elevate) > 0 {
		return slices.Clone(node.Elevate)
	}
	return []string{"sudo"}
}

// RunPlain deploys without the agent, by the classic commands: nix-copy-closure, and ssh with a terminal for sudo, over one
// login. The streams are the user's, and what the commands say goes there. A failure is an [*Error].
func RunPlain(ctx context.Context, inv *inventory.Inventory, node inventory.Node, opts Options, in io.Reader, out, errw io.Writer) (Result, error) {
	p := plain{node: node, opts: opts, in: in, out: out, errw: errw, emit: opts.about(node)}
	address, err := target.ParseAddress(node.Target)
	if err != nil {
		return Result{}, p.fail(Connect, Unchanged, err)
	}
	evaluation, err := evaluate(ctx, inv, node, p.emit)
	if err != nil {
		return Result{}, err
	}
	bundle, err := build(ctx, inv, node, evaluation, opts, p.emit)
	if err != nil {
		return Result{}, err
	}
	result := Result{Bundle: bundle, Toplevel: evaluation.ToplevelOut, Outcome: plainOutcome(opts.Action)}
	script := []string{string(bundle) + switchScript, string(opts.Action)}
	if address.Local() {
		if os.Geteuid() != 0 {
			script = append(elevation(node), script...)
		}
		return result, p.activate(ctx, script)
	}
	var master *target.Master
	err = p.timed(Connect, func() error {
		master, err = opts.Dialer.Master(ctx, address, errw)
		return err
	})
	if err != nil {
		return result, p.fail(Connect, Unchanged, err)
	}
	defer master.Close()
	if err := p.copy(ctx, master, address, bundle); err != nil {
		return result, err
	}
	if address.User() != "root" {
		script = append(elevation(node), script...)
	}
	terminal := "-T"
	if opts.Dialer.Terminal != nil {
		terminal = "-t"
	}
	return result, p.activate(ctx, append(append([]string{"ssh"}, master.Args...), terminal, "--", address.String(), run.QuoteAll(script)))
}

// plain is a deployment by the classic commands. They write to the user's terminal, so no step is announced, only its end.
type plain struct {
	node      inventory.Node
	opts      Options
	in        io.Reader
	out, errw io.Writer
	emit      func(Event)
}

func (p plain) fail(step Step, state State, err error) error {
	return &Error{Node: p.node.Name, Step: step, State: state, Err: err}
}

// timed does a step and tells its end.
func (p plain) timed(step Step, do func() error) error {
	begin := time.Now()
	if err := do(); err != nil {
		return err
	}
	p.emit(Event{Kind: Finished, Step: step, Duration: time.Since(begin)})
	return nil
}

func (p plain) copy(ctx context.Context, master *target.Master, address target.Address, bundle nix.StorePath) error {
	err := p.timed(Ship, func() error {
		return p.opts.Dialer.Runner.Run(ctx, run.Command{
			Argv: []string{"nix-copy-closure", "--to", address.Login(), string(bundle)}, Err: p.errw,
			Env: []string{"NIX_SSHOPTS=" + strings.Join(master.Args, " ")},
		})
	})
	var failed *run.Error
	if errors.As(err, &failed) && strings.Contains(failed.Stderr, "lacks a ") && strings.Contains(failed.Stderr, "signature") {
		return p.fail(Ship, Unchanged, hint("the target's Nix takes unsigned paths only from root and trusted-users",
			"leave out --method plain, or log in as root"))
	}
	if err != nil {
		return p.fail(Ship, Unchanged, shown(err))
	}
	return nil
}

// activate runs the bundle's script. Its exit status is switch-to-configuration's, or says what ssh and sudo met.
func (p plain) activate(ctx context.Context, argv []string) error {
	err := p.timed(Activate, func() error {
		return p.opts.Dialer.Runner.Run(ctx, run.Command{Argv: argv, In: p.in, Out: p.out, Err: p.errw})
	})
	if err == nil {
		return nil
	}
	state := Unknown
	var failed *run.Error
	if errors.As(err, &failed) && (failed.Status == 1 || failed.Status == 100) {
		state = Unchanged
	}
	return p.fail(Activate, state, shown(err))
}

// shown is the error of a command whose messages the user has seen already.
func shown(err error) error {
	var failed *run.Error
	if errors.As(err, &failed) && failed.Status >= 0 {
		return hint(fmt.Sprintf("%s: exit status %d", failed.Argv[0], failed.Status))
	}
	return err
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
