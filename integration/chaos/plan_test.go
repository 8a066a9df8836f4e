package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// plan is what is done to one deployment. It follows from the seed and the round's number alone; what comes of it depends on
// the machine's clock as well.
type plan struct {
	seed   uint64
	round  int
	action action
	system system // empty: one that may stay, and is not the one that runs
	// spare picks among those that may stay.
	spare   int
	strikes []strike
	// attaches says that whoever has left comes back with ferry attach.
	attaches bool
}

// strike is a fault at its moment.
type strike struct {
	fault fault
	phase phase
	// within is the moment, in parts of the time that the phase takes as a rule.
	within float64
	lasts  time.Duration // of a fault that is over by itself
}

// action is what is asked of ferry.
type action string

// The actions.
const (
	doSwitch   action = "switch"
	doTest     action = "test"
	doBoot     action = "boot"
	doRollback action = "rollback"
	doReboot   action = "reboot"
)

// weighted is one of several, and how many times as likely as others it is.
type weighted[T any] struct {
	what   T
	weight int
}

func drawOne[T any](r *rand.Rand, all []weighted[T]) T {
	sum := 0
	for _, one := range all {
		sum += one.weight
	}
	n := r.IntN(sum)
	for _, one := range all {
		if n -= one.weight; n < 0 {
			return one.what
		}
	}
	panic("no weight is negative")
}

var (
	actions = []weighted[action]{{doSwitch, 66}, {doRollback, 13}, {doTest, 9}, {doBoot, 5}, {doReboot, 7}}
	// A bad system brings a rollback of its own, and is no way for one.
	actionsOfBad = []weighted[action]{{doSwitch, 85}, {doTest, 15}}

	// weights say how likely a fault strikes in each phase that a deployment goes through: least where it may be repeated, most
	// where most is at stake, and where many deployments do not come.
	weights = map[phase]int{preparing: 6, arming: 3, activating: 32, waiting: 28, confirmed: 4, rebooting: 15, trying: 15, committing: 30, rollingBack: 8}
)

func newPlan(seed uint64, round int) plan {
	r := rand.New(rand.NewPCG(seed, uint64(round)))
	p := plan{seed: seed, round: round, spare: r.IntN(1 << 16), attaches: r.IntN(3) == 0}
	count := drawOne(r, []weighted[int]{{0, 5}, {1, 20}, {2, 75}})
	if bad := badSystems(); r.IntN(4) == 0 {
		p.system, p.action = bad[r.IntN(len(bad))], drawOne(r, actionsOfBad)
		if slices.Contains(p.system.passes, committing) {
			// What is wrong with it shows in the commit, or by asking for one.
			p.action = doSwitch
		}
		// What is bad may be all that happens.
		count = r.IntN(3)
	} else {
		p.action = drawOne(r, actions)
	}
	for range count {
		p.strikes = append(p.strikes, p.drawStrike(r))
	}
	return p
}

// drawStrike draws the phase first, and then what happens in it, and when.
func (p plan) drawStrike(r *rand.Rand) strike {
	var phases []weighted[phase]
	passes := p.passes()
	if len(p.strikes) > 0 {
		// The second may hit what the first has brought about, and does not come before it.
		passes = append(passes[max(0, slices.Index(passes, p.strikes[0].phase)):], rollingBack)
	}
	for _, one := range passes {
		phases = append(phases, weighted[phase]{one, weights[one]})
	}
	s := strike{phase: drawOne(r, phases), within: r.Float64() * 0.9, lasts: time.Duration(r.Float64() * 6 * float64(time.Second))}
	var may []fault
	for _, f := range faults() {
		if (f.in == nil || slices.Contains(f.in, s.phase)) && p.bears(f) {
			may = append(may, f)
		}
	}
	s.fault = may[r.IntN(len(may))]
	return s
}

// bears tells whether a fault goes with what the plan has already.
func (p plan) bears(f fault) bool {
	if f.moves && p.action == doReboot {
		return false
	}
	return !slices.ContainsFunc(p.strikes, func(s strike) bool {
		return f.mounts && s.fault.mounts || f.moves && s.fault.restart || f.restart && s.fault.moves
	})
}

// passes are the phases that the deployment goes through, if nothing happens to it.
func (p plan) passes() []phase {
	if p.system.passes != nil {
		return append([]phase{preparing}, p.system.passes...)
	}
	switch p.action {
	case doTest:
		return []phase{preparing, arming, activating, waiting}
	case doBoot:
		return []phase{preparing, committing}
	case doReboot:
		return []phase{preparing, rebooting, trying, committing}
	}
	return []phase{preparing, arming, activating, waiting, committing}
}

// badSystems are those that do not stay.
func badSystems() []system {
	var bad []system
	for _, s := range systems() {
		if s.fate != mayStay {
			bad = append(bad, s)
		}
	}
	return bad
}

// kinds are the faults by name.
func (p plan) kinds() []string {
	var names []string
	if p.system.name != "" {
		names = append(names, "system "+p.system.name)
	}
	for _, s := range p.strikes {
		names = append(names, s.fault.name)
	}
	if names == nil {
		names = []string{"none"}
	}
	return names
}

// harmless tells that nothing happens to the deployment.
func (p plan) harmless() bool { return p.system.name == "" && len(p.strikes) == 0 }

func (p plan) String() string {
	var parts []string
	if p.system.name != "" {
		parts = append(parts, "system "+p.system.name)
	}
	for _, s := range p.strikes {
		parts = append(parts, fmt.Sprintf("%s while %s", s.fault.name, s.phase))
	}
	if parts == nil {
		parts = []string{"none"}
	}
	return fmt.Sprintf("round %d: %s: %s", p.round, p.action, strings.Join(parts, ", "))
}

// any tells whether one of the faults is so.
func (p plan) any(is func(fault) bool) bool {
	return slices.ContainsFunc(p.strikes, func(s strike) bool { return is(s.fault) })
}

// leaves tells whether the user gives up.
func (p plan) leaves() bool { return p.any(func(f fault) bool { return f.leave }) }

// restarts tells whether the target is restarted in the middle.
func (p plan) restarts() bool {
	return p.action == doReboot || p.any(func(f fault) bool { return f.restart })
}

// mostly are the phases that have to be struck in a fifth of the rounds each.
var mostly = []phase{activating, waiting, committing}

// TestEachPhaseIsStruckOften looks at what many seeds draw: every phase in which most is at stake is struck in more than a quarter of
// the rounds, of which some are in vain; and every fault, system and action comes at all.
func TestEachPhaseIsStruckOften(t *testing.T) {
	const seeds, rounds = 20, 300
	drawn, overall := map[string]int{}, map[phase]int{}
	for seed := range uint64(seeds) {
		struck := map[phase]int{}
		for round := range rounds {
			p := newPlan(seed+1, round+1)
			drawn[string(p.action)]++
			for _, kind := range p.kinds() {
				drawn[kind]++
			}
			for _, one := range mostly {
				if slices.ContainsFunc(p.strikes, func(s strike) bool { return s.phase == one }) {
					struck[one]++
				}
			}
			for _, s := range p.strikes {
				drawn[string(s.phase)]++
				if s.fault.in != nil && !slices.Contains(s.fault.in, s.phase) {
					t.Errorf("seed %d, %s: there is nothing to hurt then", seed+1, p)
				}
			}
		}
		for _, one := range mostly {
			overall[one] += struck[one]
			if struck[one] < rounds*23/100 {
				t.Errorf("seed %d: the phase %s is struck in %d of %d rounds", seed+1, one, struck[one], rounds)
			}
		}
		t.Logf("seed %d: %v", seed+1, struck)
	}
	for one, n := range overall {
		if n < seeds*rounds*27/100 {
			t.Errorf("the phase %s is struck in %d of %d rounds", one, n, seeds*rounds)
		}
	}
	wanted := []string{"none", string(doSwitch), string(doTest), string(doBoot), string(doRollback), string(doReboot)}
	for one := range weights {
		wanted = append(wanted, string(one))
	}
	for _, f := range faults() {
		wanted = append(wanted, f.name)
	}
	for _, s := range badSystems() {
		wanted = append(wanted, "system "+s.name)
	}
	for _, one := range wanted {
		if drawn[one] == 0 {
			t.Errorf("%q is never drawn", one)
		}
	}
}
