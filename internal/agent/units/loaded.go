package units

import (
	"context"
	"path"
	"strings"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

const (
	// MaxUnits is how many units are told at most.
	MaxUnits = 4000
	// unitFolder is where NixOS has its units.
	unitFolder = "/etc/systemd/system"
	// switchLists is where switch-to-configuration says what is left to do, for the next one after an interruption.
	switchLists = "/run/nixos"
)

// Loaded tells which units systemd has loaded, and what an interrupted switch has left to do; nil where that is not known.
func Loaded(ctx context.Context, runner *run.Runner, r machine.Root) *agent.UnitsResult {
	if !r.Exists(machine.SystemdRuns) {
		return nil
	}
	out, err := runner.Output(ctx, run.Command{Argv: []string{"systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager", "--full"}})
	if err != nil {
		return nil
	}
	result := &agent.UnitsResult{Units: []agent.LoadedUnit{}}
	var running []string
	for line := range strings.Lines(string(out)) {
		// UNIT LOAD ACTIVE SUB DESCRIPTION
		f := strings.Fields(strings.TrimLeft(line, "●* "))
		if len(f) < 4 || len(f[0]) > 256 || len(result.Units) == MaxUnits || f[1] == "not-found" {
			continue
		}
		// No system has units of these kinds.
		if kind := path.Ext(f[0]); kind == ".device" || kind == ".scope" {
			continue
		}
		result.Units = append(result.Units, agent.LoadedUnit{Name: f[0], State: f[2]})
		if f[2] != "inactive" {
			running = append(running, f[0])
		}
	}
	from := unitFiles(ctx, runner, running)
	for n, unit := range result.Units {
		if file, known := from[unit.Name]; known && file != unitFolder+"/"+unit.Name {
			result.Units[n].From = file
			if file == "" {
				result.Units[n].From = "-"
			}
		}
	}
	for name, into := range map[string]*[]string{"start": &result.Start, "restart": &result.Restart, "reload": &result.Reload} {
		*into = switchList(r, name)
	}
	return result
}

// unitFiles are the files that units were loaded from, "" for none, as far as systemd tells.
func unitFiles(ctx context.Context, runner *run.Runner, units []string) map[string]string {
	files := map[string]string{}
	if len(units) == 0 {
		return files
	}
	argv := append([]string{"systemctl", "show", "--property=Id,FragmentPath", "--no-pager", "--"}, units...)
	// One that is gone by now makes it fail after all the others are told.
	out, _ := runner.Output(ctx, run.Command{Argv: argv})
	for block := range strings.SplitSeq(string(out), "\n\n") {
		unit, file := "", ""
		for line := range strings.Lines(block) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
			case "Id":
				unit = value
			case "FragmentPath":
				file = value
			}
		}
		if unit != "" {
			files[unit] = file
		}
	}
	return files
}

// switchList reads what an interrupted switch has left to do of one kind.
func switchList(r machine.Root, name string) []string {
	text, _ := machine.NewFiles(r).Read(switchLists+"/"+name+"-list", switchLists)
	units := strings.Fields(text)
	return units[:min(len(units), MaxUnits)]
}
