package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"ferry/internal/cause"
	"ferry/internal/inventory"
	"ferry/internal/prose"
	"ferry/internal/session"
	"ferry/internal/verify"

	"github.com/spf13/cobra"
)

// verifyOptions are the flags of ferry verify.
type verifyOptions struct {
	nodeFlags
	nixFlags
	here     bool
	contents bool
	json     bool
}

func (a *app) verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [NODE]",
		Short: "Prove that plain nixos-rebuild on a node would build nothing",
		Long: `Let a node's target evaluate, with its own Nix, what the last deployment left there, as plain nixos-rebuild would ("ferry
abandon" prints the command), and compare the result with the deployed system. If both are the same, nixos-rebuild on the
target continues from there and builds nothing. If not, the smallest set of differences that explains all others is shown,
and ferry exits with 1.

Nothing is built, fetched or activated. Derivations are written to the target's store, and the evaluation there takes as
much memory and time as nixos-rebuild does. If ferry's agent is already on the target, no sudo is needed; otherwise it is
needed once, to copy the agent there.

With --here, both evaluations are made on this machine, of the working tree: ferry's own, and that of plain nixos-rebuild.

With --contents, the target reads every file in the closure of the deployed system, and compares each store path with the
hash that its Nix has registered: Nix trusts its database, and does not notice what a disk has lost. Damaged and missing
paths are named, and ferry exits with 1. Nothing is evaluated. With --json the output is then one object: node; root, the
path whose closure was read; paths, how many; wrong, the damaged ones (path, gone, reason); and more, how many besides.

With --json and without --contents the output is one object: node; same; deployed and rebuilt, the two toplevels;
nix_here and nix_there, versions of Nix; report, null or causes (kind, name of the derivation, part_of, text, before,
after) and differing, how many derivations differ; and unknown, why there is no report.`,
		Example: `  ferry verify pi
  ferry verify --here pi
  ferry verify --contents pi`,
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runVerify(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.here, "here", false, "make both evaluations on this machine")
	flags.BoolVar(&o.contents, "contents", false, "compare what is on the target's disk with what its Nix has registered")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.add(flags)
	a.addLogin(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runVerify(ctx context.Context, o verifyOptions, args []string) error {
	if o.here && o.contents {
		return &usageError{err: errors.New("--contents looks at the target, and --here at this machine: use one of them")}
	}
	inv, node, with, err := a.openOne(ctx, o.nixFlags, o.nodeFlags, args)
	if err != nil {
		return err
	}
	if o.contents {
		return a.verifyContents(ctx, with, inv, node, o.json)
	}
	compare := verify.There
	if o.here {
		compare = verify.Here
	}
	v, err := compare(ctx, with, inv, node)
	if err != nil {
		return err
	}
	if o.json {
		err = writeJSON(a.Out, v)
	} else {
		err = writeVerified(a.Out, v, o.here)
	}
	if err != nil || v.Same {
		return err
	}
	return errors.New(v.Node + ": verify: plain nixos-rebuild would build another system than ferry's")
}

// verifyContents is verify with --contents.
func (a *app) verifyContents(ctx context.Context, with session.Session, inv *inventory.Inventory, node inventory.Node, asJSON bool) error {
	c, err := verify.OnDisk(ctx, with, inv, node)
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(a.Out, c)
	} else {
		err = writeContents(a.Out, c)
	}
	if err != nil || c.Whole() {
		return err
	}
	return &verify.DamagedError{Contents: c}
}

func writeContents(w io.Writer, c *verify.Contents) error {
	var b strings.Builder
	if c.Whole() {
		fmt.Fprintf(&b, "%s: whole: %s on the target's disk as its Nix has registered\n", c.Node, prose.Count(c.Paths, "path"))
	} else {
		fmt.Fprintf(&b, "%s: DAMAGED: what is on the target's disk is not what its Nix has registered\n", c.Node)
	}
	for _, p := range c.Wrong {
		field(&b, "damaged", string(p.Path)+": "+p.Reason)
	}
	if c.More > 0 {
		field(&b, "and", prose.Count(c.More, "path")+" more")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeVerified(w io.Writer, v *verify.Verified, here bool) error {
	var b strings.Builder
	where := "on the target"
	if here {
		where = "here"
	}
	if v.Same {
		fmt.Fprintf(&b, "%s: the same: nixos-rebuild %s evaluates to %s and builds nothing\n", v.Node, where, v.Rebuilt)
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "%s: DIFFERENT: nixos-rebuild %s would build another system\n", v.Node, where)
	field(&b, "ferry's", string(v.Deployed))
	field(&b, "nixos-rebuild's", string(v.Rebuilt))
	if v.NixHere != v.NixThere {
		field(&b, "Nix", fmt.Sprintf("%s here, %s there", v.NixHere, v.NixThere))
	}
	if v.Report != nil {
		writeReport(&b, v.Report)
	}
	field(&b, "not known", v.Unknown)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeReport writes why two systems differ.
func writeReport(b *strings.Builder, r *cause.Report) {
	for _, c := range r.Causes {
		field(b, "because", inWords(c))
	}
	if len(r.Causes) == 0 {
		field(b, "because", "no difference was found that all others follow from")
	}
	field(b, "in all", prose.Count(r.Differing, "derivation")+" differ")
}

// inWords is a cause in one sentence, with what it is a part of.
func inWords(c cause.Cause) string {
	text := c.Text
	if c.Name != "" {
		text = c.Name + ": " + text
	}
	if len(c.PartOf) > 0 {
		text += " (it is part of " + strings.Join(c.PartOf, ", ") + ")"
	}
	return text
}
