package chaos_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWhateverHappensATargetIsWhole hurts many deployments, on several targets at once.
func TestWhateverHappensATargetIsWhole(t *testing.T) {
	c := &campaign{
		seed: *seed, begin: time.Now(), next: *first, last: *first + *rounds,
		kinds: map[string]int{}, statuses: map[string]int{}, actions: map[string]int{}, hits: map[phase]int{},
	}
	if c.seed == 0 {
		c.seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	t.Logf("seed %d; to see it again: -seed %[1]d -first N -rounds 1", c.seed)
	var wait sync.WaitGroup
	for n := range *targets {
		wait.Go(func() {
			t.Run(fmt.Sprintf("target %d", n+1), func(t *testing.T) { c.work(t, n+1) })
		})
	}
	wait.Wait()
	t.Log(c.report())
	// Of fewer, a fifth says little.
	if c.played < 100 {
		return
	}
	for _, one := range mostly {
		if c.hits[one] < c.played/5 {
			t.Errorf("seed %d: the phase %s was hit in %d of %d rounds: less than a fifth", c.seed, one, c.hits[one], c.played)
		}
	}
}

// campaign is a run of rounds.
type campaign struct {
	seed  uint64
	begin time.Time
	// building is held by who builds the systems.
	building sync.Mutex

	mu                       sync.Mutex
	next, last               int
	played, violated         int
	kinds, statuses, actions map[string]int // counts by name
	hits                     map[phase]int  // rounds in which a fault struck in a phase
}

// work plays rounds on one target until there are no more.
func (c *campaign) work(t *testing.T, number int) {
	m := newMachine(t, number, &c.building)
	for {
		p, more := c.draw()
		if !more {
			return
		}
		if t.Run(p.String(), func(t *testing.T) { c.count(m.play(t, p)) }) {
			continue
		}
		if *stop {
			c.halt()
			return
		}
		// What is wrong with this one must not spoil other rounds.
		m = newMachine(t, number, &c.building)
	}
}

// draw gives the next round's plan.
func (c *campaign) draw() (plan, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next >= c.last || time.Since(c.begin) > *limit {
		return plan{}, false
	}
	c.next++
	return newPlan(c.seed, c.next-1), true
}

func (c *campaign) halt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = c.last
}

func (c *campaign) count(r *round) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.played++
	if len(r.violations) > 0 {
		c.violated++
	}
	for _, kind := range r.plan.kinds() {
		c.kinds[kind]++
	}
	for phase := range slices.Values(slices.Compact(slices.Sorted(slices.Values(r.hits)))) {
		c.hits[phase]++
	}
	c.actions[string(r.plan.action)]++
	if code, ended := r.ferry.wait(0); ended {
		status := fmt.Sprintf("status %d", code)
		if code < 0 {
			status = "killed"
		}
		c.statuses[status]++
	}
}

func (c *campaign) report() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d rounds on %d targets in %v, %d of them with a violation\n",
		c.seed, c.played, *targets, time.Since(c.begin).Round(time.Second), c.violated)
	hits := map[string]int{}
	for one, n := range c.hits {
		hits[fmt.Sprintf("a fault while %s (%d %%)", one, 100*n/max(1, c.played))] = n
	}
	for _, counts := range []map[string]int{c.actions, c.statuses, hits, c.kinds} {
		var lines []string
		for what, n := range counts {
			lines = append(lines, fmt.Sprintf("%5d  %s\n", n, what))
		}
		slices.Sort(lines)
		slices.Reverse(lines)
		b.WriteString("\n" + strings.Join(lines, ""))
	}
	return b.String()
}
