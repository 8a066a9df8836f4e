package bench

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"ferry/internal/lab"
	"ferry/internal/prose"

	"golang.org/x/sys/unix"
)

// result is one scenario of a measurement, with each tool's figures.
type result struct {
	measurement
	scenario scenario
	figures  map[string]figures
}

// page is doc/bench.md: what was measured, and the sections of the page before that were not.
func page(before, measured string) string {
	sections := map[string]string{}
	for _, text := range []string{before, measured} {
		for _, section := range strings.Split(text, "\n## ")[1:] {
			title, _, _ := strings.Cut(section, "\n")
			sections[title] = "\n## " + strings.TrimRight(section, "\n") + "\n"
		}
	}
	text := introduction()
	for _, c := range closures {
		text += sections[c.name]
	}
	return text + sections[shipTitle] + sections[fleetTitle] + sections[statusTitle] + sections[safetyTitle]
}

// measuredOn says when and how a section was measured.
func measuredOn() string {
	return fmt.Sprintf("Measured on %s, the machines' disks %s.\n\n", time.Now().Format(time.DateOnly), disks())
}

// introduction is how the page begins.
func introduction() string {
	var b strings.Builder
	version, _ := exec.Command("nix-store", "--version").Output()
	fmt.Fprintf(&b, `# Bench

Made by `+"`make bench`"+`: ferry against the commands by hand, on one lab target, side by side in one run, as root on both ends,
%d cores, %s on both ends. Machines like this one are noisy: the ratios say something, the seconds little.

By hand means: nix-build of the same bundle, from what `+"`ferry abandon --write`"+` writes, then nix-copy-closure (or nix copy to
ssh-ng), then ssh with the bundle's nixos-rebuild-switch. "System alone" keeps the configuration and its nixpkgs, 4 MB in about
600 files, on the building machine: ssh with nix-env and switch-to-configuration. **Ratio** is ferry's wall time divided by the time
by hand with nix-copy-closure, with nix copy, and with the system alone: below 1 ferry is faster. The first deployment with ferry
includes sending the agent; every one of a changed system includes arming a way back and confirming over a second connection, which by
hand nobody does. "one file changed" is one file in /etc and one service's environment. CPU is of all processes; memory is the largest resident size of a process on the target that receives paths; turns is how
often the talk on the wire changed direction, a measure of round trips.
`, runtime.NumCPU(), strings.TrimSpace(string(version)))
	return b.String()
}

// report renders results as sections of the page.
func report(results []result) string {
	var b strings.Builder
	last := ""
	for _, r := range results {
		if r.closure.name != last {
			last = r.closure.name
			fmt.Fprintf(&b, "\n## %s\n\n%s", last, measuredOn())
			b.WriteString("| link | deployment | tool | wall | ratio | CPU here | CPU target | memory target | up | down | connections | turns |\n")
			b.WriteString("|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
		}
		for _, tool := range tools {
			f := r.figures[tool.name]
			ratio := "1"
			if tool.name == byFerry {
				ratio = fmt.Sprintf("**%.2f**, %.2f, %.2f", r.ratio(byClosure), r.ratio(byNixCopy), r.ratio(systemOnly))
			} else if tool.name != byClosure {
				ratio = fmt.Sprintf("%.2f", f.wall.Seconds()/r.figures[byClosure].wall.Seconds())
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %.2f s | %s | %.2f s | %.2f s | %s | %s | %s | %d | %d |\n", r.link, r.scenario, tool.name,
				f.wall.Seconds(), ratio, f.near.Seconds(), f.far.Seconds(), prose.Size(uint64(f.memory)),
				prose.Size(uint64(f.up)), prose.Size(uint64(f.down)), f.connections, f.turns)
		}
	}
	return b.String()
}

// disks is where the machines have theirs.
func disks() string {
	var fs unix.Statfs_t
	scratch, err := lab.Scratch()
	if err == nil && unix.Statfs(scratch, &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
		return "in memory"
	}
	return "on a disk"
}

func (r result) ratio(other string) float64 {
	return r.figures[byFerry].wall.Seconds() / r.figures[other].wall.Seconds()
}

// TestASectionThatWasNotMeasuredStays locks that a part of the bench does not cost the rest of the page.
func TestASectionThatWasNotMeasuredStays(t *testing.T) {
	before := introduction() + "\n## " + closures[0].name + "\n\nold small\n\n## " + closures[2].name + "\n\nold large\n"
	got := page(before, "\n## "+closures[0].name+"\n\nnew small\n\n## "+safetyTitle+"\n\nnew\n")
	want := introduction() + "\n## " + closures[0].name + "\n\nnew small\n\n## " + closures[2].name + "\n\nold large\n\n## " + safetyTitle + "\n\nnew\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
