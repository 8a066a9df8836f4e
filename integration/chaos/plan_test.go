package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// plan is what is done to one deployment. It follows from the seed and the round's number alone; what comes of it depends on
// the machine's clock as well.
type plan struct {
	seed   uint64
	round  int
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
	at    float64       // in parts of the time that such a deployment takes
	lasts time.Duration // of a fault that is over by itself
}

func newPlan(seed uint64, round int) plan {
	r := rand.New(rand.NewPCG(seed, uint64(round)))
	p := plan{seed: seed, round: round, spare: r.IntN(1 << 16), attaches: r.IntN(3) == 0}
	bad, faults := badSystems(), faults()
	// One deployment in twenty is left alone, and three in ten are hurt twice.
	count := 1
	switch n := r.IntN(20); {
	case n == 0:
		count = 0
	case n >= 14:
		count = 2
	}
	for range count {
		n := r.IntN(len(bad) + len(faults))
		at, lasts := r.Float64()*1.1, time.Duration(r.Float64()*6*float64(time.Second))
		if n < len(bad) && p.system.name == "" {
			p.system = bad[n]
			continue
		}
		s := strike{fault: faults[n%len(faults)], at: at, lasts: lasts}
		if len(p.strikes) > 0 || p.system.name != "" {
			// The second may hit what the first has brought about.
			s.at *= 1.5
		}
		p.strikes = append(p.strikes, s)
	}
	return p
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

func (p plan) String() string {
	return fmt.Sprintf("round %d: %s", p.round, strings.Join(p.kinds(), ", "))
}

// leaves tells whether the user gives up.
func (p plan) leaves() bool {
	for _, s := range p.strikes {
		if s.fault.leave {
			return true
		}
	}
	return false
}

// restarts tells whether the target is restarted in the middle.
func (p plan) restarts() bool {
	for _, s := range p.strikes {
		if s.fault.restart {
			return true
		}
	}
	return false
}
