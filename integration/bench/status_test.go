package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/lab"
)

// statusNodes are the nodes that are asked at once, and statusTitle is the section about them.
const (
	statusNodes = 20
	statusTitle = "Status of 20 nodes"
)

// statusFleet is how far away the nodes are that are asked at once.
type statusFleet struct {
	name string
	// most is the delay of all nodes but the first, and first that one's.
	most, first time.Duration
}

var statusFleets = []statusFleet{
	{"all of them near", 0, 0},
	{"all of them 50 ms away", 50 * time.Millisecond, 50 * time.Millisecond},
	{"one of them 300 ms away, the others 50 ms", 50 * time.Millisecond, 300 * time.Millisecond},
}

// TestStatusOfManyNodesIsMeasured asks a few once; with -write all of them, against each of them alone.
func TestStatusOfManyNodesIsMeasured(t *testing.T) {
	fleets, nodes, n := statusFleets[:1], 2, 1
	if *write != "" {
		if !wanted(statusTitle) {
			return
		}
		fleets, nodes, n = statusFleets, statusNodes, *rounds
	}
	s := &site{t: t}
	var err error
	s.builder, err = lab.OpenBuilder(t.Context(), lab.BuilderOptions{})
	s.ok(err)
	defer func() { s.ok(s.builder.Close()) }()
	s.prepare()
	targets := make([]*lab.Target, nodes)
	for i := range targets {
		targets[i] = lab.StartTarget(t, lab.Options{NoSystemd: true})
	}
	text := statusIntroduction()
	for _, f := range fleets {
		text += s.measureStatus(f, targets, n)
	}
	t.Log(text)
	if *write != "" {
		before, err := os.ReadFile(*write)
		if err == nil {
			err = os.WriteFile(*write, []byte(page(string(before), text)), 0o644)
		}
		s.ok(err)
	}
}

func statusIntroduction() string {
	return fmt.Sprintf("\n## %s\n\n%s", statusTitle, measuredOn()) + "`ferry status`" + ` of all of them at once, and of each alone, where ferry's agent is installed already. All of the machines share the
cores of this one: what work there is takes its turn, what is waited for does not. **Ratio** is all at once to the slowest alone.

| nodes | all at once | slowest alone | median alone | ratio | one after another |
|---|---:|---:|---:|---:|---:|
`
}

// measureStatus gives the row of a fleet.
func (s *site) measureStatus(f statusFleet, targets []*lab.Target, rounds int) string {
	s.t.Helper()
	s.ok(s.builder.Forget())
	var names []string
	inventory := strings.Builder{}
	for i, target := range targets {
		options := lab.RelayOptions{Delay: f.most}
		if i == 0 {
			options.Delay = f.first
		}
		relay := lab.StartRelay(s.t, addrPort(target), options)
		defer relay.Close()
		name := fmt.Sprintf("node%d", i)
		s.ok(s.builder.KnowThrough(name, relay, target))
		names = append(names, name)
		fmt.Fprintf(&inventory, "  nodes.%s = { configuration = ./node.nix; target = \"root@%s\"; };\n", name, name)
	}
	s.write("node.nix", "{ }\n")
	s.write("ferry.nix", fmt.Sprintf("{\n  nixpkgs = %q;\n%s}\n", s.nixpkgs, inventory.String()))
	// The first time it brings the agent.
	s.status(names...)
	var together []time.Duration
	alone := make([][]time.Duration, len(names))
	for range rounds {
		together = append(together, s.status(names...))
		for i, name := range names {
			alone[i] = append(alone[i], s.status(name))
		}
	}
	each, sum := make([]time.Duration, len(names)), time.Duration(0)
	for i := range alone {
		each[i] = middle(alone[i])
		sum += each[i]
	}
	all, slowest := middle(together), slices.Max(each)
	return fmt.Sprintf("| %s | %.2f s | %.2f s | %.2f s | **%.2f** | %.2f s |\n", f.name, all.Seconds(), slowest.Seconds(), middle(each).Seconds(),
		all.Seconds()/slowest.Seconds(), sum.Seconds())
}

// status asks some nodes, and gives the time that it took.
func (s *site) status(names ...string) time.Duration {
	s.t.Helper()
	begin := time.Now()
	out := s.output("sh", append([]string{"-c", `cd "$0" && exec ferry status --json "$@"`, s.path("project")}, names...)...)
	took := time.Since(begin)
	if n := strings.Count(out, `"reached": true`); n != len(names) {
		s.t.Fatalf("%d of %d nodes are reached:\n%s", n, len(names), out)
	}
	return took
}
