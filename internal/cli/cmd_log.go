package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"ferry/internal/logs"
	"ferry/internal/prose"

	"github.com/spf13/cobra"
)

// logOptions are the flags of ferry log.
type logOptions struct {
	run  string
	json bool
}

func (a *app) logCommand() *cobra.Command {
	var o logOptions
	cmd := &cobra.Command{
		Use:   "log [NODE]",
		Short: "Show what happened to a node in an earlier run",
		Long: `Show the whole log of a node from the last run that included it, or from the run that --run names: each step with its
time, and every line that evaluation, build and activation wrote, including lines that were not shown. The log of an
interrupted run ends where it was interrupted.

Without NODE, list the runs, newest last. The logs are under $XDG_STATE_HOME/ferry/logs (~/.local/state), readable only by
you. The last 100 runs are kept, or fewer if they take more than 512 MB. The node's own journal has what happened there.

With --json the list is one object: runs, a list of objects with run, command, inventory, nodes, began and ended (RFC
3339; ended is "" if the run was broken off) and exit, the exit status.`,
		Example: `  ferry log web1
  ferry log
  ferry log --run 20260102T030405.000Z web1`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeLog,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.runLog(o, args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.run, "run", "", "the `RUN`, named as in the list")
	flags.BoolVar(&o.json, "json", false, "print the list of runs as JSON")
	return cmd
}

func (a *app) runLog(o logOptions, args []string) error {
	dir, err := a.logFolder()
	if err != nil {
		return err
	}
	entries, err := logs.List(dir)
	if err != nil {
		return err
	}
	if o.run != "" {
		entries = slices.DeleteFunc(entries, func(e logs.Entry) bool { return e.Name != o.run })
		if len(entries) == 0 {
			return usagef("ferry log lists them", "no run is called %q", o.run)
		}
	}
	if len(args) == 0 {
		return writeRuns(a.Out, entries, o.json)
	}
	if o.json {
		return usagef("", "--json is for the list of runs")
	}
	for _, e := range slices.Backward(entries) {
		if !slices.Contains(e.Nodes, args[0]) {
			continue
		}
		file, err := os.Open(e.Log(args[0]))
		if errors.Is(err, fs.ErrNotExist) {
			// Nothing had happened to it when the run ended.
			continue
		}
		if err != nil {
			return err
		}
		defer file.Close()
		if _, err := fmt.Fprintf(a.Out, "%s: ferry %s, run %s, %s\n", args[0], e.Command, e.Name, exitWords(e)); err != nil {
			return err
		}
		_, err = io.Copy(a.Out, file)
		return err
	}
	return usagef("ferry log lists the runs", "there is no log of a node called %q", args[0])
}

func exitWords(e logs.Entry) string {
	if e.Ended.IsZero() {
		return "not ended"
	}
	return fmt.Sprintf("exit status %d", e.Exit)
}

func writeRuns(out io.Writer, entries []logs.Entry, asJSON bool) error {
	if asJSON {
		return writeRunsJSON(out, entries)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "RUN\tCOMMAND\tENDED\tNODES")
	for _, e := range entries {
		names := strings.Join(e.Nodes, " ")
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Name, e.Command, exitWords(e), prose.Cut(names, tableWidth/2))
	}
	return w.Flush()
}

// runJSON is a run as --json prints it.
type runJSON struct {
	Run       string   `json:"run"`
	Command   string   `json:"command"`
	Inventory string   `json:"inventory"`
	Nodes     []string `json:"nodes"`
	Began     string   `json:"began"`
	Ended     string   `json:"ended"`
	Exit      int      `json:"exit"`
}

func writeRunsJSON(out io.Writer, entries []logs.Entry) error {
	list := []runJSON{}
	for _, e := range entries {
		ended := ""
		if !e.Ended.IsZero() {
			ended = e.Ended.Format(timeLayout)
		}
		list = append(list, runJSON{e.Name, e.Command, e.Inventory, append([]string{}, e.Nodes...), e.Began.Format(timeLayout), ended, e.Exit})
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		Runs []runJSON `json:"runs"`
	}{list})
}

// completeLog completes the names of nodes of which there are logs.
func (a *app) completeLog(_ *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	if dir, err := a.logFolder(); err == nil && len(args) == 0 {
		entries, _ := logs.List(dir)
		for _, e := range entries {
			for _, n := range e.Nodes {
				if strings.HasPrefix(n, toComplete) && !slices.Contains(names, n) {
					names = append(names, n)
				}
			}
		}
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}
