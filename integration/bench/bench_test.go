package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"
)

// TestEveryToolDeploysWhatIsMeasured runs every measurement once on the smallest closure: it keeps the bench itself working.
// With -write it measures everything. It asserts what was deployed, never a time.
func TestEveryToolDeploysWhatIsMeasured(t *testing.T) {
	plan := []measurement{{closure: closures[0], link: links[0], rounds: 1}}
	safe := []safety{measureSafety(t, safetyLinks[0], 1)}
	before := ""
	if *write != "" {
		text, err := os.ReadFile(*write)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		before = string(text)
		plan = slices.DeleteFunc(everything(), func(m measurement) bool { return !wanted(m.closure.name) })
		safe = nil
		for _, l := range safetyLinks {
			if wanted(safetyTitle) {
				safe = append(safe, measureSafety(t, l, *rounds))
			}
		}
		if err := os.WriteFile(*write, []byte(page(before, safetyReport(safe))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var results []result
	for i, m := range plan {
		t.Logf("%d of %d: %s, %s", i+1, len(plan), m.closure.name, m.link)
		results = append(results, m.run(t)...)
		if *write == "" {
			continue
		}
		// After each one: a run that is ended early has not been for nothing.
		if err := os.WriteFile(*write, []byte(page(before, report(results)+safetyReport(safe))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Log("\n" + introduction() + report(results) + safetyReport(safe))
}

// wanted tells whether a section of the page is to be measured.
func wanted(title string) bool { return regexp.MustCompile(*only).MatchString(title) }

// everything is what the tables of doc/bench.md hold, in their order: a run that is ended early has whole tables.
func everything() []measurement {
	var plan []measurement
	for _, c := range closures {
		if c.large && !*large {
			continue
		}
		for _, l := range links {
			m := measurement{closure: c, link: l, rounds: *rounds}
			// A slow link is what takes the time there, and it is not noisy: once is enough to see the ratio.
			if c.bytes > 10<<20 && l.bits > 0 || c.large {
				m.rounds = 1
			}
			if c.large && l.bits > 0 && l.delay == 0 {
				continue
			}
			plan = append(plan, m)
		}
	}
	return plan
}

// closure is a system's size.
type closure struct {
	name  string
	paths int
	bytes int64
	large bool
}

var closures = []closure{
	{name: "10 MB, 10 paths", paths: 10, bytes: 10 << 20},
	{name: "80 MB, 100 paths", paths: 100, bytes: 80 << 20},
	{name: "1 GB, 1000 paths", paths: 1000, bytes: 1 << 30, large: true},
}

// link is a network between the two machines.
type link struct {
	delay time.Duration // added to each round trip
	bits  int64         // per second in each direction; 0: as fast as it goes
}

func (l link) String() string {
	speed := "unlimited"
	if l.bits > 0 {
		speed = fmt.Sprintf("%d Mbit/s", l.bits/1_000_000)
	}
	return fmt.Sprintf("%d ms, %s", l.delay.Milliseconds(), speed)
}

var links = []link{
	{},
	{delay: 50 * time.Millisecond},
	{bits: 20_000_000},
	{delay: 50 * time.Millisecond, bits: 20_000_000},
}

// scenario is what has happened before a deployment.
type scenario string

const (
	first   scenario = "first deployment"
	changed scenario = "one file changed"
	nothing scenario = "nothing changed"
)

var scenarios = []scenario{first, changed, nothing}

// measurement is one closure over one link.
type measurement struct {
	closure closure
	link    link
	rounds  int
}

// run measures every scenario with every tool, the tools in turn, so that a machine that gets slower does so for all.
func (m measurement) run(t *testing.T) []result {
	collected := map[scenario]map[string][]figures{}
	for _, s := range scenarios {
		collected[s] = map[string][]figures{}
	}
	for range m.rounds {
		for _, tool := range tools {
			site := newSite(t, m.closure, m.link)
			for i, s := range scenarios {
				if s == changed {
					site.change(i)
				}
				collected[s][tool.name] = append(collected[s][tool.name], site.measure(tool))
				site.check(s)
			}
			site.close()
		}
	}
	var results []result
	for _, s := range scenarios {
		r := result{measurement: m, scenario: s, figures: map[string]figures{}}
		for name, all := range collected[s] {
			r.figures[name] = median(all)
		}
		results = append(results, r)
	}
	return results
}
