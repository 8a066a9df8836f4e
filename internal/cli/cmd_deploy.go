package cli

import (
	"context"
	"fmt"

	"ferry/internal/action"
	"ferry/internal/deploy"
	"ferry/internal/fleet"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/session"
	"ferry/internal/ship"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// deployOptions are the flags of ferry deploy.
type deployOptions struct {
	nodeFlags
	nixFlags
	action             string
	method             string
	json               bool
	substituteOnTarget bool
	forceNotNixOS      bool
	noDelta            bool
	switchFlags
	rebootFlags
	fleetFlags
	elevateFlags
}

const deployHelp = `Build a node's system on this machine, ship what its target lacks, and switch the target to it.

` + chooseHelp + `

ferry connects at once, and asks for and checks the sudo password, while evaluation and build go on. If the target already
has the requested system, nothing is touched. On a terminal, ferry shows a summary of what "ferry plan" shows and asks once
for all nodes; --yes answers that question.

Before anything changes, the target arms a timer that rolls back to exactly the running system. It activates the new system
and waits until ferry has connected again and the node's checks have passed; only then does the new system become the boot
default. Otherwise the target rolls back by itself, and ferry exits with 4. After a lost connection or Ctrl-C, "ferry
attach" follows the deployment again and finishes it.

Actions:
  switch        run the new system now and make it the boot default (default)
  boot          make it the boot default; change nothing now
  test          run it now; the next boot returns to the old system
  dry-activate  show what would change; change nothing

With --reboot, the target reboots into the new system, which is committed when it has come up and passed its checks. If the
boot loader can boot an entry once (systemd-boot, GRUB), the old system stays the boot default until then: a power cycle
returns to it, and a new system that cannot be reached is rolled back. If the boot loader cannot, ferry asks first.

Several nodes are deployed at the same time: as many evaluations as cores and memory allow, then up to --parallel nodes.
With --parallel-activate, --parallel limits only connecting and shipping, and --parallel-activate limits activation. A
node that fails does not stop the others, unless --max-failures says so. With --batch, all nodes are connected, evaluated
and built before any is changed; then the batches are changed one after another, each when every node of the batch before
has been confirmed and is healthy. A node that fails, in whatever step, stops the remaining nodes, which stay unchanged;
--rollback-batch also rolls back the other nodes of its batch. --resume continues with the nodes that were left over. The
password is asked for once for all nodes with the same user.

--json prints events on standard output, one JSON object per line; the last one has the summary and the exit status.
doc/events.md describes them. ferry keeps the whole log of every node: ferry log NODE shows it.

Methods:
  agent         one login, one sudo, one compressed stream (default)
  plain         nix-copy-closure, and ssh with a terminal for sudo; no agent on the target. The target's Nix must
                trust the login user.`

func (a *app) deployCommand() *cobra.Command {
	var o deployOptions
	cmd := &cobra.Command{
		Use:   "deploy [NODES]",
		Short: "Build the nodes' systems here, ship them, and switch the nodes to them",
		Long:  deployHelp,
		Example: `  ferry deploy pi
  ferry deploy --action test pi
  ferry deploy --all
  ferry deploy @web '!web3' --batch 1,10%,rest --pause 5m
  ferry deploy --reboot pi
  ferry deploy --sudo-password-command 'pass show pi' pi
  ferry deploy --configuration ./configuration.nix --nixpkgs ./nixpkgs --system aarch64-linux alice@raspberry-pi.local`,
		ValidArgsFunction: a.completeMany(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !o.json {
				return a.runDeploy(cmd.Context(), o, cmd.Flags(), args)
			}
			return a.withEvents(cmd.Context(), func() error { return a.runDeploy(cmd.Context(), o, cmd.Flags(), args) })
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&o.action, "action", "a", "switch", "the `ACTION`: switch, boot, test or dry-activate")
	o.nodeFlags.addMany(flags)
	o.fleetFlags.add(flags)
	flags.BoolVar(&o.json, "json", false, "print events as JSON, one per line")
	a.addLogin(flags)
	o.nixFlags.add(flags)
	o.switchFlags.add(flags)
	o.rebootFlags.add(flags)
	o.elevateFlags.add(flags)
	flags.BoolVar(&o.substituteOnTarget, "substitute-on-target", false, "let the target fetch from its own caches first; ferry ships the rest")
	flags.BoolVar(&o.noDelta, "no-delta", false, "ship every store path whole, not as a difference from what the target has")
	flags.BoolVar(&o.forceNotNixOS, "force-not-nixos", false, "deploy to a machine that is not NixOS, and mark it as one with /etc/NIXOS")
	flags.StringVar(&o.method, "method", "agent", "the `METHOD`: agent or plain")
	complete(cmd, "action", "switch", "boot", "test", "dry-activate")
	complete(cmd, "method", "agent", "plain")
	complete(cmd, "unreachable", "fail", "skip")
	return cmd
}

func complete(cmd *cobra.Command, flag string, values ...cobra.Completion) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) runDeploy(ctx context.Context, o deployOptions, flags *pflag.FlagSet, args []string) error {
	act, err := action.Parse(o.action)
	if err != nil {
		return &usageError{err: err}
	}
	if o.method != "agent" && o.method != "plain" {
		return usagef("", "unknown method %q: expected agent or plain", o.method)
	}
	client, err := o.client(a)
	if err != nil {
		return err
	}
	if o.resume && (len(o.choice.words(args)) > 0 || o.all || o.configuration != "") {
		return usagef("", "--resume chooses the nodes itself: name none")
	}
	o.all = o.all || o.resume
	inv, nodes, err := a.openNodes(ctx, client, o.nodeFlags, args)
	if err != nil {
		return err
	}
	roots, err := a.roots()
	if err != nil {
		return err
	}
	with := a.session(client, roots)
	opts := deploy.Options{
		Memory: new(ship.Memory), SubstituteOnTarget: o.substituteOnTarget, ForceNotNixOS: o.forceNotNixOS, NoDelta: o.noDelta,
		ReplaceUnknown: o.replaceUnknown,
	}
	for _, node := range nodes {
		if opts.Action, err = o.rebootFlags.apply(flags, &o, act, node.Target, &opts); err != nil {
			return err
		}
	}
	if opts.Switching, err = o.switchFlags.switching(a); err != nil {
		return err
	}
	several := fleet.Options{Deploy: opts, Agree: a.agree(o.yes), Last: fleet.LastFile(roots.Dir, inv.File)}
	if o.resume {
		if nodes, err = a.rest(inv, several.Last, opts.Action); err != nil {
			return err
		}
		if len(nodes) == 0 {
			a.printer.Print("ferry: nothing to resume: the last deployment finished every node")
			return nil
		}
	}
	if err := o.elevateFlags.apply(nodes); err != nil {
		return err
	}
	if err := a.onePassword(ctx, nodes); err != nil {
		return err
	}
	if err := o.fleetFlags.apply(flags, opts.Action, &several); err != nil {
		return err
	}
	one := len(nodes) == 1 && !o.resume && !o.json
	if !one && o.method == "plain" {
		return usagef("deploy them one after another", "--method plain takes one node at a time, and has no --json")
	}
	a.beginLog("deploy", inv, nodes)
	if one {
		opts.Agree = agreeOne(several.Agree)
		return a.deployOne(ctx, with, inv, nodes[0], o, opts)
	}
	return a.deployFleet(ctx, with, inv, nodes, several)
}

func (a *app) deployOne(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, o deployOptions, opts deploy.Options) error {
	var result deploy.Result
	var err error
	if o.method == "plain" {
		result, err = deploy.RunPlain(ctx, with, inv, node, deploy.PlainOptions{Action: opts.Action, In: a.In, Out: a.Out, Err: a.Err})
	} else {
		result, err = deploy.Run(ctx, with, inv, node, opts)
	}
	return a.concludeOne(node, result, err)
}

// concludeOne tells how a command on one node went, and keeps it in its log.
func (a *app) concludeOne(node inventory.Node, result deploy.Result, err error) error {
	if err != nil {
		a.logLines(node.Name, explanation(err))
		return err
	}
	end := summary(node.Name, node.Target, result)
	a.logLines(node.Name, []string{end})
	a.printer.Print(end)
	return nil
}

// session is who works on a target and with what, for every command that does.
func (a *app) session(client *nix.Client, roots session.Roots) session.Session {
	return session.Session{Nix: client, Dialer: a.dialer(), Roots: roots, Password: a.ask, Who: a.who(), Observe: a.observe}
}

// question asks a person, where there is one.
func (a *app) question() func(context.Context, string) (bool, error) {
	if a.tty == nil {
		return nil
	}
	return func(ctx context.Context, question string) (bool, error) {
		a.terminal.Lock()
		defer a.terminal.Unlock()
		return a.printer.AskYesNo(ctx, a.tty, question)
	}
}

func summary(node, target string, r deploy.Result) string {
	system := r.Toplevel.Name()
	switch r.Outcome {
	case deploy.Nothing:
		if target == "local" {
			target = "this machine"
		}
		return fmt.Sprintf("%s: nothing to do: %s has %s", node, target, system)
	case deploy.RootMoved:
		return fmt.Sprintf("%s: same system, new configuration kept; nothing was activated", node)
	case deploy.Activated:
		return fmt.Sprintf("%s: runs %s until the next boot", node, system)
	case deploy.Described:
		return fmt.Sprintf("%s: nothing was changed", node)
	}
	done := node + ": done: "
	if r.Generation > 0 {
		done += fmt.Sprintf("generation %d, ", r.Generation)
	}
	done += system
	if r.Outcome == deploy.Installed {
		done += ", from the next boot on"
	}
	if r.NeedsReboot != "" {
		done += "; REBOOT IT to run it"
	}
	return done
}
