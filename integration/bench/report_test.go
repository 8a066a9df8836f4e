package bench

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"

	"ferry/internal/deploy"
)

// result is one scenario of a measurement, with each tool's figures.
type result struct {
	measurement
	scenario scenario
	figures  map[string]figures
}

// report renders results as doc/bench.md.
func report(results []result) string {
	var b strings.Builder
	version, _ := exec.Command("nix-store", "--version").Output()
	fmt.Fprintf(&b, `# Bench

Made by `+"`make bench`"+`: ferry against the commands by hand, on one lab target, side by side in one run, as root on both ends,
%d cores, %s on both ends. Machines like this one are noisy: the ratios say something, the seconds little.

By hand means: nix-build, then nix-copy-closure (or nix copy to ssh-ng), then ssh with nix-env and
switch-to-configuration. **Ratio** is ferry's wall time divided by the time by hand with nix-copy-closure, and with nix copy: below 1
ferry is faster. The first deployment with ferry includes sending the agent. "one file changed" is one file in /etc and one service's
environment. CPU is of all processes; memory is the largest resident size of a process on the target that receives paths; turns is how
often the talk on the wire changed direction, a measure of round trips.
`, runtime.NumCPU(), strings.TrimSpace(string(version)))
	last := ""
	for _, r := range results {
		if r.closure.name != last {
			last = r.closure.name
			fmt.Fprintf(&b, "\n## %s\n\n", last)
			b.WriteString("| link | deployment | tool | wall | ratio | CPU here | CPU target | memory target | up | down | connections | turns |\n")
			b.WriteString("|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
		}
		for _, tool := range tools {
			f := r.figures[tool.name]
			ratio := "1"
			if tool.name == "ferry" {
				ratio = fmt.Sprintf("**%.2f**, %.2f", r.ratio("nix-copy-closure"), r.ratio("nix copy"))
			} else if tool.name != "nix-copy-closure" {
				ratio = fmt.Sprintf("%.2f", f.wall.Seconds()/r.figures["nix-copy-closure"].wall.Seconds())
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %.2f s | %s | %.2f s | %.2f s | %s | %s | %s | %d | %d |\n", r.link, r.scenario, tool.name,
				f.wall.Seconds(), ratio, f.near.Seconds(), f.far.Seconds(), deploy.Size(uint64(f.memory)),
				deploy.Size(uint64(f.up)), deploy.Size(uint64(f.down)), f.connections, f.turns)
		}
	}
	return b.String()
}

func (r result) ratio(other string) float64 {
	return r.figures["ferry"].wall.Seconds() / r.figures[other].wall.Seconds()
}
