package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"ferry/internal/cause"
	"ferry/internal/deploy"

	"github.com/spf13/cobra"
)

// verifyOptions are the flags of ferry verify.
type verifyOptions struct {
	nodeFlags
	nixFlags
	here bool
	json bool
}

func (a *app) verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [NODE]",
		Short: "Prove that plain nixos-rebuild on a node would build nothing",
		Long: `Have a node's target evaluate what the last deployment left there, with its own Nix, in the way that plain nixos-rebuild
would ("ferry abandon" prints the line), and compare that with the deployed system. If both are the same, nixos-rebuild on
the target goes on from there and builds nothing. If not, the smallest set of differences is shown that all others follow
from, and ferry ends with 1.

Nothing is built, fetched or activated. Derivations are written to the target's store, and evaluation takes there the
memory and time that nixos-rebuild takes. If ferry's agent is on the target already, the login is enough; else sudo is
needed once, to put it there.

With --here both evaluations are made on this machine, of the working tree: ferry's own, and that of plain nixos-rebuild.

With --json it is one object: node; same; deployed and rebuilt, the two toplevels; nix_here and nix_there, versions of
Nix; report, null or causes (kind, name of the derivation, part_of, text, before, after) and differing, how many
derivations differ; and unknown, why there is no report.`,
		Example: `  ferry verify pi
  ferry verify --here pi`,
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runVerify(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.here, "here", false, "make both evaluations on this machine")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.add(flags)
	a.addLogin(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runVerify(ctx context.Context, o verifyOptions, args []string) error {
	inv, node, opts, err := a.openOne(ctx, o.nixFlags, o.nodeFlags, args)
	if err != nil {
		return err
	}
	verify := deploy.Verify
	if o.here {
		verify = deploy.VerifyHere
	}
	v, err := verify(ctx, inv, node, opts)
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

func writeVerified(w io.Writer, v *deploy.Verified, here bool) error {
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
	field(b, "in all", deploy.Count(r.Differing, "derivation")+" differ")
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
