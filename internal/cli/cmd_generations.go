package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/session"
	"ferry/internal/status"

	"github.com/spf13/cobra"
)

// generationsOptions are the flags of ferry generations.
type generationsOptions struct {
	nodeFlags
	json bool
}

func (a *app) generationsCommand() *cobra.Command {
	var o generationsOptions
	cmd := &cobra.Command{
		Use:   "generations [NODE]",
		Short: "List the systems in a node's boot menu",
		Long: `List the generations of the system profile on a node's target, newest last: number, date, NixOS version, the git revision
that it was deployed from ("+": with uncommitted changes), the first characters of the toplevel's hash, and its role now:

  current   it runs
  booted    it was booted
  default   it boots next

Nothing is changed. If ferry's agent is already on the target, no sudo is needed; otherwise it is needed once, to copy the
agent there.

With --json the output is one object: node; current and booted, the toplevels that run and were booted, which may not be
among the generations; older, the number of older generations that are left out; and generations, a list of objects with
number, time (RFC 3339), toplevel, version, bundle, revision, dirty, current, booted and default. Unknown values are "".`,
		Example: `  ferry generations pi
  ferry generations --json pi | jq -r '.generations[] | select(.default) | .toplevel'`,
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runGenerations(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.add(flags)
	a.addLogin(flags)
	return cmd
}

func (a *app) runGenerations(ctx context.Context, o generationsOptions, args []string) error {
	_, node, err := a.openNode(ctx, a.newNix(nix.Options{}), o.nodeFlags, args)
	if err != nil {
		return err
	}
	result, err := status.Generations(ctx, a.asking(nil, session.Roots{}), node)
	if err != nil {
		return err
	}
	if o.json {
		return writeGenerationsJSON(a.Out, node.Name, result)
	}
	if err := writeGenerations(a.Out, result); err != nil {
		return err
	}
	for _, note := range generationNotes(node.Name, result) {
		a.printer.Print("ferry: note: " + note)
	}
	return nil
}

// writeGenerations writes a table. What is cut to make it narrow enough is the version, whose beginning says most.
func writeGenerations(w io.Writer, result agent.GenerationsResult) error {
	t := table{
		head: []string{"NUMBER", "DATE", "VERSION", "REVISION", "TOPLEVEL", ""}, right: map[int]bool{0: true},
		shrink: []shrinking{{2, len("VERSION")}},
	}
	for _, g := range result.Generations {
		t.rows = append(t.rows, tableRow{cells: []string{
			fmt.Sprint(g.Number), date(g.Time), orDash(g.Version), orDash(shortRevision(g.Revision, g.Dirty)), orDash(shortHash(g.Toplevel)), marks(g),
		}})
	}
	return t.write(w)
}

// generationNotes says what a table of generations does not show.
func generationNotes(node string, result agent.GenerationsResult) []string {
	var notes []string
	if result.Older > 0 {
		notes = append(notes, fmt.Sprintf("%s: there are %d older ones", node, result.Older))
	}
	seen := map[string]bool{"": true}
	for _, g := range result.Generations {
		seen[g.Toplevel] = true
	}
	if !seen[result.Current] {
		notes = append(notes, fmt.Sprintf("%s: the running system is none of them: %s", node, result.Current))
	}
	if !seen[result.Booted] && result.Booted != result.Current {
		notes = append(notes, fmt.Sprintf("%s: the booted system is none of them: %s", node, result.Booted))
	}
	return notes
}

func marks(g agent.Generation) string {
	var words []string
	for _, m := range []struct {
		is   bool
		word string
	}{{g.Current, "current"}, {g.Booted, "booted"}, {g.Default, "default"}} {
		if m.is {
			words = append(words, m.word)
		}
	}
	return strings.Join(words, " ")
}

func date(seconds int64) string {
	if seconds <= 0 {
		return "-"
	}
	return time.Unix(seconds, 0).Format("2006-01-02 15:04")
}

// shortRevision is a revision as git itself shortens it.
func shortRevision(revision string, dirty bool) string {
	short := revision[:min(len(revision), 7)]
	if dirty && short != "" {
		short += "+"
	}
	return short
}

func shortHash(toplevel string) string {
	p, err := nix.ParseStorePath(toplevel)
	if err != nil {
		return ""
	}
	return p.Hash()[:8]
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// timeJSON is a time in seconds since 1970 as --json prints it; "" if it is not known.
func timeJSON(seconds int64) string {
	if seconds <= 0 {
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}

// generationJSON is a generation as --json prints it.
type generationJSON struct {
	Number   int    `json:"number"`
	Time     string `json:"time"`
	Toplevel string `json:"toplevel"`
	Version  string `json:"version"`
	Bundle   string `json:"bundle"`
	Revision string `json:"revision"`
	Dirty    bool   `json:"dirty"`
	Current  bool   `json:"current"`
	Booted   bool   `json:"booted"`
	Default  bool   `json:"default"`
}

func writeGenerationsJSON(w io.Writer, node string, result agent.GenerationsResult) error {
	list := []generationJSON{}
	for _, g := range result.Generations {
		list = append(list, generationJSON{g.Number, timeJSON(g.Time), g.Toplevel, g.Version, g.Bundle, g.Revision, g.Dirty, g.Current, g.Booted, g.Default})
	}
	return writeJSON(w, struct {
		Node        string           `json:"node"`
		Current     string           `json:"current"`
		Booted      string           `json:"booted"`
		Older       int              `json:"older"`
		Generations []generationJSON `json:"generations"`
	}{node, result.Current, result.Booted, result.Older, list})
}
