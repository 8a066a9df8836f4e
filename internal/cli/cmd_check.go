package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"ferry/internal/examine"
	"ferry/internal/inventory"
	"ferry/internal/status"
	"ferry/internal/ui"

	"github.com/spf13/cobra"
)

// checkOptions are the flags of ferry check.
type checkOptions struct {
	nodeFlags
	nixFlags
	json  bool
	quick bool
}

func (a *app) checkCommand() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check [NODES]",
		Short: "Find what would make a deployment fail, before there is one",
		Long: `Look for everything that would make a deployment fail, on this machine and on the targets, and say how to fix it. Without
NODES, all nodes are checked. Otherwise each of NODES is a name, a pattern ('web*'), or a tag (@web); prefix a word with
! to exclude the nodes it matches.

On this machine: Nix, the source (its size, private keys in it), space in the store, and for each system of a node a tiny
build, which shows whether the emulator or remote builder works. Each configuration is evaluated, but not built.

On each target, as root, as in a deployment: ssh and host key, sudo, locks, Nix, NixOS, the platform, systemd, the clock,
failed units, the garbage collector roots that keep systems, whether a deployment would replace someone else's system,
and the space in /nix/store and /boot, compared with what would be shipped if that is built already.

Nothing is changed, except that ferry's agent is copied to a target that lacks it. With several nodes, ferry first asks
all that need no password, then the others one after another.

The exit status is 0 if nothing would make a deployment fail, even if there are warnings, and 1 if something would.

With --json the output is one object: well, whether nothing would make a deployment fail; and findings, a list of objects
with node ("" is this machine), about, attention (error: a deployment would fail; warning; note; "": ok), text, and
fixes, any one of which is enough.`,
		Example: `  ferry check
  ferry check --quick @web
  ferry check --json | jq -r '.findings[] | select(.attention == "error") | .node + ": " + .text'`,
		ValidArgsFunction: a.completeMany(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runCheck(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.quick, "quick", false, "skip what takes time: test builds and evaluations")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.add(flags)
	a.addLogin(flags)
	o.nixFlags.add(flags)
	return cmd
}

func (a *app) runCheck(ctx context.Context, o checkOptions, args []string) error {
	findings, err := a.examine(ctx, o, args)
	if err != nil {
		return err
	}
	if o.json {
		err = writeCheckJSON(a.Out, findings)
	} else {
		err = writeCheck(a.Out, findings, ui.NewPaint(a.Out, a.Getenv))
	}
	if err != nil {
		return err
	}
	if wrong := serious(findings); len(wrong) > 0 {
		what := "1 thing"
		if len(wrong) > 1 {
			what = fmt.Sprintf("%d things", len(wrong))
		}
		return fmt.Errorf("%s would make a deployment fail: %s", what, strings.Join(wrong, "; "))
	}
	return nil
}

// examine finds what there is to say. An inventory that is wrong, or a Nix that does not work, ends it with that.
func (a *app) examine(ctx context.Context, o checkOptions, args []string) ([]examine.Finding, error) {
	client, err := o.client(a)
	if err != nil {
		return nil, err
	}
	roots, err := a.roots()
	if err != nil {
		return nil, err
	}
	if _, err := client.Version(ctx); err != nil && ctx.Err() == nil {
		return []examine.Finding{examine.Broken("nix", err)}, nil
	}
	c, err := o.nodeFlags.choose(args)
	if err != nil {
		return nil, err
	}
	flags := o.nodeFlags.orAll(c.words)
	inv, err := a.openInventory(ctx, client, flags, c)
	var wrong *inventory.Error
	if errors.As(err, &wrong) {
		return []examine.Finding{examine.Broken("inventory", err)}, nil
	}
	if err != nil {
		return nil, err
	}
	nodes, err := chooseNodes(inv, flags, c.words)
	if err != nil {
		return nil, err
	}
	if err := a.onePassword(ctx, nodes); err != nil {
		return nil, err
	}
	defer a.looking(nodes)()
	return examine.Nodes(ctx, a.asking(client, roots), inv, nodes, examine.Options{Quick: o.quick})
}

// serious are what makes a deployment fail: where, and what it is about.
func serious(findings []examine.Finding) []string {
	var list []string
	for _, f := range findings {
		if f.Attention == status.Serious {
			list = append(list, place(f)+": "+f.About)
		}
	}
	return list
}

// place is where a finding was made.
func place(f examine.Finding) string {
	if f.Node == "" {
		return "here"
	}
	return f.Node
}

// writeCheck writes the findings of each place: what is ok in a few words, everything else with what to do.
func writeCheck(w io.Writer, findings []examine.Finding, paint ui.Paint) error {
	var b strings.Builder
	for len(findings) > 0 {
		n := 1
		for n < len(findings) && findings[n].Node == findings[0].Node {
			n++
		}
		writePlace(&b, findings[:n], paint)
		findings = findings[n:]
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writePlace(b *strings.Builder, findings []examine.Finding, paint ui.Paint) {
	b.WriteString(place(findings[0]) + "\n")
	paints := map[status.Attention]func(string) string{status.Serious: paint.Red, status.Warning: paint.Yellow, status.Notice: paint.Yellow}
	var well []string
	for _, f := range findings {
		if f.Attention == status.Fine {
			well = append(well, fmt.Sprintf("%s (%s)", f.About, f.Text))
		}
	}
	for _, attention := range []status.Attention{status.Serious, status.Warning, status.Notice} {
		for _, f := range findings {
			if f.Attention != attention {
				continue
			}
			writeLines(b, "  "+attention.String()+": ", f.About+": "+f.Text, paints[attention])
			for _, fix := range f.Fixes {
				writeLines(b, "    fix: ", oneLine(fix), nil)
			}
		}
	}
	if len(well) > 0 {
		writeLines(b, "  ok: ", strings.Join(well, ", "), paint.Green)
	}
}

// writeLines writes text behind first, which is coloured by paint.
func writeLines(b *strings.Builder, first, text string, paint func(string) string) {
	for i, line := range wrapBehind(first, oneLine(text)) {
		if rest, is := strings.CutPrefix(line, first); i == 0 && is && paint != nil {
			line = paint(first) + rest
		}
		b.WriteString(line + "\n")
	}
}

// findingJSON is a finding as --json prints it.
type findingJSON struct {
	Node      string   `json:"node"`
	About     string   `json:"about"`
	Attention string   `json:"attention"`
	Text      string   `json:"text"`
	Fixes     []string `json:"fixes"`
}

func writeCheckJSON(w io.Writer, findings []examine.Finding) error {
	list := []findingJSON{}
	for _, f := range findings {
		list = append(list, findingJSON{f.Node, f.About, f.Attention.String(), oneLine(f.Text), append([]string{}, f.Fixes...)})
	}
	return writeJSON(w, struct {
		Well     bool          `json:"well"`
		Findings []findingJSON `json:"findings"`
	}{len(serious(findings)) == 0, list})
}
