package chaos_test

import (
	"slices"
	"strings"
)

// deployed is one deployment of a round, and how its ferry ended: -1 if a signal has ended it.
type deployed struct {
	action action
	system string
	fate   fate
	status int
}

// runs and boots tell whether a deployment that is done makes its system run, and boot.
func (d deployed) runs() bool {
	return d.fate == mayStay && d.action != doBoot || d.fate == bootsOnly && d.action == doReboot
}

func (d deployed) boots() bool { return d.fate != mustGo && d.action != doTest }

// installs tells whether it makes a system boot that nobody has reached: that is what was asked for, or what ferry says it did.
func (d deployed) installs() bool { return d.boots() && !d.runs() }

// done tells that ferry says it is, mayBeDone that ferry cannot tell, or was not there to see it.
func (d deployed) done() bool      { return d.status == 0 }
func (d deployed) mayBeDone() bool { return d.status == 5 || d.status == -1 }

// deployments are the round's, with their ends.
func (r *round) deployments(status int) []deployed {
	all := []deployed{{r.plan.action, r.system.name, r.system.fate, status}}
	for _, f := range r.others {
		code, _ := f.wait(0)
		all = append(all, deployed{doSwitch, f.node, mayStay, code})
	}
	return all
}

// may is what a target may be after a round. Its lists hold toplevels.
type may struct {
	run, boot []string
	// installed may boot, and run after a restart, though nobody has reached them. tested run and do not boot.
	installed, tested []string
}

// allows is what the target may be now: of the deployments that ferry could not tell the end of each may be done or not.
func (r *round) allows(all []deployed) may {
	var m may
	runsAnother, bootsAnother := false, false
	for _, d := range all {
		toplevel := r.toplevels[d.system]
		if !d.done() && !d.mayBeDone() {
			continue
		}
		if d.runs() {
			m.run = append(m.run, toplevel)
			runsAnother = runsAnother || d.done()
		}
		if d.boots() {
			m.boot = append(m.boot, toplevel)
			bootsAnother = bootsAnother || d.done()
		}
		if d.installs() {
			m.installed = append(m.installed, toplevel)
		}
		if d.action == doTest && d.runs() {
			m.tested = append(m.tested, toplevel)
		}
	}
	// A rollback after somebody else's deployment returns to what was there before that.
	back := r.plan.action == doRollback && len(all) > 1
	if !runsAnother || back {
		m.run = append(m.run, r.before.runs)
	}
	if !bootsAnother || back {
		m.boot = append(m.boot, r.before.boots)
	}
	if r.plan.restarts() {
		m.run = append(m.run, m.boot...)
	}
	return m
}

// judge compares what the target is with what it was and what ferry said.
func (r *round) judge(after look, status int) {
	all := r.deployments(status)
	for _, d := range all {
		if d.done() && d.fate == mustGo {
			r.violates("ferry has deployed %s, and says that all is well", d.system)
		}
		if !slices.Contains([]int{0, 1, 4, 5, 130, -1}, d.status) {
			r.violates("ferry for %s ended with status %d", d.system, d.status)
		}
	}
	if r.plan.harmless() && status != 0 {
		r.violates("nothing has happened, and ferry ended with status %d", status)
	}
	m := r.allows(all)
	r.mustBe("runs", after.runs, m.run)
	r.mustBe("boots", after.boots, m.boot)
	r.mustBe("has the profile", after.profile, m.boot)
	r.mustBe("keeps", after.kept, append(slices.Clone(m.boot), r.before.runs))
	r.agrees(after, m)
	r.judgeJournal(after, all)
}

// agrees checks that the target is of one piece, and that it runs and boots only what somebody has reached while it ran.
func (r *round) agrees(after look, m may) {
	reached := append(append(slices.Clone(after.logins), r.before.boots), m.installed...)
	for what, toplevel := range map[string]string{"boots": after.boots, "has the profile": after.profile, "runs": after.runs} {
		if !slices.Contains(reached, toplevel) {
			r.violates("it %s %s, which nobody has reached: those who logged in have seen %s", what, r.nameOf(toplevel), strings.Join(r.namesOf(after.logins), ", "))
		}
	}
	if after.runs != after.boots && !slices.Contains(m.installed, after.boots) && !slices.Contains(m.tested, after.runs) {
		r.violates("it runs %s and boots %s", r.nameOf(after.runs), r.nameOf(after.boots))
	}
	// Power that goes during the commit leaves what has been done of it.
	if r.plan.any(func(f fault) bool { return f.restart }) {
		return
	}
	if after.profile != after.boots || after.kept != after.boots {
		r.violates("it boots %s, its profile is %s, and it keeps %s", r.nameOf(after.boots), r.nameOf(after.profile), r.nameOf(after.kept))
	}
}

func (r *round) mustBe(does, is string, want []string) {
	if !slices.Contains(want, is) {
		r.violates("it %s %s instead of %s", does, r.nameOf(is), strings.Join(r.namesOf(want), " or "))
	}
}

func (m *machine) namesOf(toplevels []string) []string {
	var names []string
	for _, toplevel := range toplevels {
		names = append(names, m.nameOf(toplevel))
	}
	return names
}
