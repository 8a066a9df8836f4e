package units

import (
	"context"
	"path"
	"strings"

	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// Standing names the units that run now and do not end by themselves: those that wait for something, and services with a process;
// also those that are about to. A switch-to-configuration stops some that it does not start again.
func Standing(ctx context.Context, runner *run.Runner, r machine.Root) []string {
	if !r.Exists(machine.SystemdRuns) {
		return nil
	}
	out, err := runner.Output(ctx, run.Command{Argv: []string{
		"systemctl", "list-units", "--type=service,socket,timer,path,automount", "--state=active,activating,reloading", "--plain", "--no-legend",
		"--no-pager", "--full",
	}})
	if err != nil {
		return nil
	}
	var units []string
	for line := range strings.Lines(string(out)) {
		// UNIT LOAD ACTIVE SUB DESCRIPTION
		f := strings.Fields(strings.TrimLeft(line, "●* "))
		if len(f) < 4 || len(f[0]) > 256 || len(units) == MaxUnits {
			continue
		}
		// One that has done its work is active, too.
		if path.Ext(f[0]) != ".service" || f[3] != "exited" {
			units = append(units, f[0])
		}
	}
	return units
}
