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
