package cli

import (
	"fmt"
	"runtime"
	"strings"

	"ferry/internal/agent"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, and the platforms that ferry has agents for",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			programs, err := agent.Programs()
			if err != nil {
				return err
			}
			machines := make([]string, len(programs))
			for i, p := range programs {
				machines[i] = p.Machine
			}
			_, err = fmt.Fprintf(a.Out, "ferry %s (%s)\nagents: %s\n", a.Version, runtime.Version(), strings.Join(machines, " "))
			return err
		},
	}
}

// unknownCommand is what ferry says to a first word that is no command; without any it shows help.
func (a *app) unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := "ferry help lists the commands"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean: ferry " + near[0]
	}
	return usagef(hint, "unknown command %q", args[0])
}
