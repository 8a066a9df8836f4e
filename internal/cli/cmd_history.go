package cli

import (
	"context"
	"fmt"
	"io"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/session"
	"ferry/internal/status"
	"ferry/internal/ui"

	"github.com/spf13/cobra"
)

// historyOptions are the flags of ferry history.
type historyOptions struct {
	nodeFlags
	json  bool
	limit int
}

func (a *app) historyCommand() *cobra.Command {
	var o historyOptions
	cmd := &cobra.Command{
		Use:   "history [NODE]",
		Short: "List what was deployed to a node, by whom, and how it ended",
		Long: `List the deployments in the journal of a node's target, newest last: when each ended (by the target's clock), the action,
the outcome, the generation that boots since then, the git revision ("+": with uncommitted changes), and who deployed. If a
deployment did not succeed, the reason is printed below it.

  committed    the system runs and is the boot default
  activated    it runs and is not the boot default: action test
  installed    it is the boot default and does not run yet: action boot
  rolled back  the system that ran before runs again
  unchanged    the deployment was refused before anything was changed
  failed       something else

The target keeps the newest one or two thousand entries, in /var/log/ferry/deployments.jsonl. Nothing is changed. If
ferry's agent is already on the target, no sudo is needed; otherwise it is needed once, to copy the agent there.

With --json the output is one object: node; older, whether the journal has older entries; and deployments, a list of
objects with the keys of that file: id, time (RFC 3339), who, from, action, node, bundle, toplevel, revision, dirty,
version, before and after (each with current, profile, generation and bundle), outcome and reason. A missing key means
unknown.`,
		Example: `  ferry history pi
  ferry history --limit 200 --json pi | jq -r '.deployments[] | select(.outcome == "rolled back") | .reason'`,
		ValidArgsFunction: a.completeNodes(&o.nodeFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runHistory(cmd.Context(), o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVarP(&o.limit, "limit", "n", 25, "list the newest `N` at most")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	o.nodeFlags.add(flags)
	a.addLogin(flags)
	return cmd
}

func (a *app) runHistory(ctx context.Context, o historyOptions, args []string) error {
	if o.limit < 1 || o.limit > agent.MaxHistory {
		return usagef("for example --limit 100", "--limit %d: expected a number from 1 to %d", o.limit, agent.MaxHistory)
	}
	_, node, err := a.openNode(ctx, a.newNix(nix.Options{}), o.nodeFlags, args)
	if err != nil {
		return err
	}
	result, err := status.History(ctx, a.asking(nil, session.Roots{}), node, o.limit)
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(a.Out, struct {
			Node        string               `json:"node"`
			Older       bool                 `json:"older"`
			Deployments []agent.JournalEntry `json:"deployments"`
		}{node.Name, result.Older, append([]agent.JournalEntry{}, result.Entries...)})
	}
	if len(result.Entries) == 0 {
		a.printer.Print("ferry: note: " + node.Name + ": the journal of its target is empty")
		return nil
	}
	if err := writeHistory(a.Out, result, ui.NewPaint(a.Out, a.Getenv)); err != nil {
		return err
	}
	if result.Older {
		a.printer.Print(fmt.Sprintf("ferry: note: %s: there are older ones: --limit %d", node.Name, agent.MaxHistory))
	}
	return nil
}

func writeHistory(w io.Writer, result agent.HistoryResult, paint ui.Paint) error {
	const action, generation, who = 1, 3, 5
	t := table{
		head: []string{"ENDED", "ACTION", "OUTCOME", "GENERATION", "REVISION", "WHO"}, right: map[int]bool{generation: true},
		shrink: []shrinking{{who, 10}, {action, 8}, {2, 11}},
	}
	for _, e := range result.Entries {
		number := "-"
		if e.After.Generation > 0 {
			number = fmt.Sprint(e.After.Generation)
		}
		row := tableRow{cells: []string{
			e.Time.Local().Format("2006-01-02 15:04"), orDash(e.Action), string(e.Outcome), number, orDash(shortRevision(e.Revision, e.Dirty)), orDash(e.Who),
		}}
		if e.Reason != "" {
			row.below = wrapBehind("  ", e.Reason)
		}
		switch e.Outcome {
		case agent.JournalFailed:
			row.paint = paint.Red
		case agent.JournalRolledBack:
			row.paint = paint.Yellow
		}
		t.rows = append(t.rows, row)
	}
	return t.write(w)
}
