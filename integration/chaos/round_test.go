package chaos_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// round is one deployment that is hurt.
type round struct {
	*machine
	plan   plan
	begin  time.Time
	system system
	ferry  *ferry
	before look

	mu         sync.Mutex
	timeline   []string
	violations []string
	others     []*ferry // further deployments at the same time
	last       time.Time
	hits       []string // the phases in which faults were not in vain
}

// hurried are the limits of a deployment that is hurt: what it waits for takes the time of these tests.
var hurried = [...]string{"--confirm-timeout=3s", "--activation-timeout=5s", "--allow-lockout"}

// play plays a round, and leaves the machine as the next one finds it.
func (m *machine) play(t *testing.T, p plan) *round {
	t.Helper()
	r := &round{machine: m.in(t), plan: p, before: m.now, system: p.system}
	if r.system.name == "" {
		r.system = m.good(p.spare)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	m.turn++
	// Something to ship.
	r.Write("turn", fmt.Sprint(m.turn))
	if err := r.sh(ctx, ": >"+loginsFile+"; touch "+roundFile); err != nil {
		t.Fatal(err)
	}
	takes := m.takes(r.system)
	flags := hurried[:]
	if len(p.kinds()) == 1 && p.kinds()[0] == "none" {
		flags = nil
	}
	r.begin, r.last = time.Now(), time.Now()
	var err error
	if r.ferry, err = r.start(r.system.name, flags...); err != nil {
		t.Fatal(err)
	}
	r.note("ferry deploys %s to a target that runs %s; such a deployment takes %v", r.system.name, m.nameOf(r.before.runs), takes.Round(time.Millisecond))
	r.strike(ctx, takes)
	status := r.outlast(ctx)
	after := r.isWell(ctx, status)
	if len(p.strikes) == 0 {
		m.took(r.system, r.last.Sub(r.begin))
	}
	if len(r.violations) == 0 {
		m.now = after
		r.violations = m.plainDeployment(t, r.note)
	}
	r.report(ctx, status)
	return r
}

// strike starts the plan's faults, and returns when all have happened and those that do not last are over, or at least
// are not waited for any more.
func (r *round) strike(ctx context.Context, takes time.Duration) {
	var wait sync.WaitGroup
	for _, s := range r.plan.strikes {
		wait.Go(func() {
			pause(ctx, time.Until(r.begin.Add(time.Duration(s.at*float64(takes)))))
			phase := r.phase(ctx)
			r.note("fault: %s (%s)", s.fault.name, phase)
			if err := s.fault.do(ctx, r, s); err != nil {
				r.note("fault: %s: in vain: %v", s.fault.name, err)
				return
			}
			r.note("fault: %s: done", s.fault.name)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.hits = append(r.hits, phase)
		})
	}
	wait.Wait()
	r.last = time.Now()
}

// outlast waits until all that was begun has come to its end, with some help of the world outside, and gives ferry's status.
func (r *round) outlast(ctx context.Context) int {
	status, over := r.ferry.wait(0)
	for limit := 2*r.takes(r.system) + 2*time.Second; !over; status, over = r.ferry.wait(200 * time.Millisecond) {
		if time.Since(r.last) > limit && r.says(ctx, workScript) == "" {
			break
		}
		if ctx.Err() != nil {
			break
		}
	}
	if over {
		r.note("ferry has ended with status %d", status)
		if len(r.plan.strikes) == 0 {
			r.last = time.Now()
		}
		if r.plan.attaches && (status == 5 || status == -1) {
			r.attach()
		}
	} else {
		r.note("nothing goes on at the target")
	}
	if !over && r.plan.leaves() {
		_ = signals(syscall.SIGINT, syscall.SIGINT)(ctx, r, strike{lasts: 2 * time.Second})
		status, over = r.ferry.wait(20 * time.Second)
		r.note("the user has left: %v, status %d", over, status)
	}
	for _, s := range r.plan.strikes {
		if s.fault.mend == nil {
			continue
		}
		if err := s.fault.mend(ctx, r); err != nil {
			r.violates("after %s: %v", s.fault.name, err)
		}
	}
	r.note("the world is well")
	for _, f := range append([]*ferry{r.ferry}, r.others...) {
		if code, ended := f.wait(3 * time.Minute); !ended {
			r.violates("ferry for %s does not end", f.node)
			f.end()
		} else if f == r.ferry {
			status = code
		}
	}
	return status
}

// another starts a second deployment to the same target.
func (r *round) another() error {
	next := r.good(r.plan.spare + 1)
	if next.name == r.system.name {
		next = r.good(r.plan.spare + 2)
	}
	f, err := r.start(next.name, hurried[:]...)
	if err != nil {
		return err
	}
	r.note("somebody else deploys %s", next.name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.others = append(r.others, f)
	return nil
}

// attach is the user who comes back.
func (r *round) attach() {
	f, err := r.startCommand("attach", r.system.name)
	if err != nil {
		r.violates("attach: %v", err)
		return
	}
	status, ended := f.wait(3 * time.Minute)
	r.note("ferry attach has ended (%v) with status %d:\n%s", ended, status, f.output())
	if !ended {
		r.violates("ferry attach does not end")
		f.end()
	} else if !slices.Contains([]int{0, 1, 4, 5}, status) {
		r.violates("ferry attach ended with status %d", status)
	}
}

// isWell waits for quiet at the target and checks everything that must hold then.
func (r *round) isWell(ctx context.Context, status int) look {
	if left := r.awaitQuiet(ctx); left != "" {
		r.violates("there is left at the target: %s", left)
	}
	r.note("it is quiet at the target")
	if err := r.answers(ctx); err != nil {
		r.violates("the target does not answer: %v", err)
	}
	after, err := r.look(ctx)
	if err != nil {
		r.violates("%v", err)
		return after
	}
	r.violations = append(r.violations, after.whole(r.machine)...)
	r.judge(after, status)
	if len(r.violations) > 0 {
		r.note("%s", after.describe(r.machine))
	}
	return after
}

// judge compares what the target is with what it was and what ferry said.
func (r *round) judge(after look, status int) {
	type deployed struct {
		system string
		fate   fate
		status int
	}
	all := []deployed{{r.system.name, r.system.fate, status}}
	for _, f := range r.others {
		code, _ := f.wait(0)
		all = append(all, deployed{f.node, mayStay, code})
	}
	may := []string{r.before.runs} // may run and boot
	boots := []string{}            // may boot, and run after a restart
	changed := false
	for _, d := range all {
		toplevel := r.toplevels[d.system]
		switch d.status {
		case 0:
			if d.fate == mustGo {
				r.violates("ferry has deployed %s, and says that all is well", d.system)
			}
			changed = changed || d.fate == mayStay
			fallthrough
		case 5, -1:
			switch d.fate {
			case mayStay:
				may = append(may, toplevel)
			case bootsOnly:
				boots = append(boots, toplevel)
			case mustGo:
			}
		case 1, 4, 130:
		default:
			r.violates("ferry for %s ended with status %d", d.system, d.status)
		}
	}
	if changed {
		may = may[1:]
	}
	if len(r.plan.kinds()) == 1 && r.plan.kinds()[0] == "none" && status != 0 {
		r.violates("nothing has happened, and ferry ended with status %d", status)
	}
	mayBoot := append(may, boots...)
	if len(boots) > 0 && status == 0 {
		mayBoot = boots
	}
	mayRun := may
	if r.plan.restarts() {
		mayRun = append(may, boots...)
	}
	r.mustBe("runs", after.runs, mayRun)
	r.mustBe("boots", after.boots, mayBoot)
	r.mustBe("has the profile", after.profile, mayBoot)
	r.mustBe("keeps", after.kept, append(mayBoot, r.before.runs))
	r.agrees(after, boots)
}

// agrees checks that the target is of one piece, and that it boots only what somebody has reached while it ran.
func (r *round) agrees(after look, boots []string) {
	for what, toplevel := range map[string]string{"boots": after.boots, "has the profile": after.profile} {
		if toplevel != r.before.boots && !slices.Contains(after.logins, toplevel) && !slices.Contains(boots, toplevel) {
			r.violates("it %s %s, which nobody has reached", what, r.nameOf(toplevel))
		}
	}
	if after.runs != after.boots && !slices.Contains(boots, after.boots) {
		r.violates("it runs %s and boots %s", r.nameOf(after.runs), r.nameOf(after.boots))
	}
	// Power that goes during the commit leaves what has been done of it.
	if r.plan.restarts() {
		return
	}
	if after.profile != after.boots || after.kept != after.boots {
		r.violates("it boots %s, its profile is %s, and it keeps %s", r.nameOf(after.boots), r.nameOf(after.profile), r.nameOf(after.kept))
	}
	if after.back != "" {
		r.violates("the way back to %s is still kept", r.nameOf(after.back))
	}
}

func (r *round) mustBe(does, is string, want []string) {
	if slices.Contains(want, is) {
		return
	}
	var names []string
	for _, toplevel := range want {
		names = append(names, r.nameOf(toplevel))
	}
	r.violates("it %s %s instead of %s", does, r.nameOf(is), strings.Join(names, " or "))
}

// phase is what the target says that a switch does there, that began in this round.
func (r *round) phase(ctx context.Context) string {
	for field := range strings.SplitSeq(r.says(ctx, phaseScript), ",") {
		if name, found := strings.CutPrefix(field, `{"phase":`); found {
			return strings.Trim(name, `"`)
		}
	}
	return "no switch"
}

// sh runs a script on the target.
func (r *round) sh(ctx context.Context, script string) error {
	_, err := r.Target.Output(ctx, "sh", "-c", script)
	return err
}

// note adds a line to the round's timeline.
func (r *round) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timeline = append(r.timeline, fmt.Sprintf("%8.3f  ", time.Since(r.begin).Seconds())+fmt.Sprintf(format, args...))
}

func (r *round) violates(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

// evidence is what a target remembers of its last switches, for a person.
const evidence = `for dir in $(ls -td /run/ferry/*-switch 2>/dev/null | head -n 2); do
	for file in job.json log state verdict status; do
		[ ! -e "$dir/$file" ] || { echo "== $dir/$file"; cat "$dir/$file"; echo; }
	done
done
echo "== journal"; tail -n 3 /var/log/ferry/deployments.jsonl
echo "== units"; systemctl list-units --all --plain --no-legend 'ferry-*'; systemctl list-timers --all --no-legend 'ferry-*'
journalctl --no-pager -o short-precise -n 60 2>/dev/null | cut -c 1-300
echo "== network"; ip address show; ip route show
echo "== processes"; ps axf | tail -n 40`

// report says how the round went: in a line, or if something is violated with all there is to know.
func (r *round) report(ctx context.Context, status int) {
	if len(r.violations) == 0 {
		r.T.Logf("%s, of %s: status %d after %v, then %s", r.plan, r.system.name, status, time.Since(r.begin).Round(100*time.Millisecond), r.timeline[len(r.timeline)-1][10:])
		return
	}
	r.T.Errorf("seed %d, %s (login %s)\nviolated:\n  %s\n\ntimeline:\n  %s\n\nferry:\n%s", r.plan.seed, r.plan, r.login,
		strings.Join(r.violations, "\n  "), strings.Join(r.timeline, "\n  "), r.ferry.output())
	for _, f := range r.others {
		r.T.Logf("the other ferry, for %s:\n%s", f.node, f.output())
	}
	r.T.Logf("on the target:\n%s", r.says(ctx, evidence))
}
