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
	watch  *watch

	mu         sync.Mutex
	timeline   []string
	violations []string
	others     []*ferry // further deployments at the same time
	last       time.Time
	hits       []phase // in which faults were not in vain
	owed       []func(context.Context) error
}

// hurried are the limits of a deployment that is hurt: what it waits for takes the time of these tests.
var hurried = [...]string{"--confirm-timeout=3s", "--activation-timeout=5s", "--allow-lockout"}

// play plays a round, and leaves the machine as the next one finds it.
func (m *machine) play(t *testing.T, p plan) *round {
	t.Helper()
	r := &round{machine: m.in(t), before: m.now}
	r.plan, r.system = r.settle(p)
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	m.turn++
	// Something to ship.
	r.Write("turn", fmt.Sprint(m.turn))
	if err := r.sh(ctx, ": >"+loginsFile+"; touch "+roundFile+"; sync "+loginsFile+" "+roundFile); err != nil {
		t.Fatal(err)
	}
	flags, node := hurried[:], r.system.name
	if p.harmless() {
		flags = nil
	}
	if r.plan.action == doRollback {
		// Of those that are here any one does: what is returned to is the target's to say.
		node = r.nameOf(r.before.runs)
	}
	r.watch = startWatch(ctx, r.Target, p.action == doReboot)
	r.begin, r.last = time.Now(), time.Now()
	var err error
	if r.ferry, err = r.start(r.plan.action, node, flags...); err != nil {
		t.Fatal(err)
	}
	r.note("ferry is to %s to %s a target that runs %s", r.plan.action, r.system.name, m.nameOf(r.before.runs))
	r.strike(ctx)
	status := r.outlast(ctx)
	after := r.isWell(ctx, status)
	lasts := r.watch.end()
	if len(p.strikes) == 0 {
		m.took(r.system, r.last.Sub(r.begin))
		m.tookEach(lasts)
	}
	if len(r.violations) == 0 {
		m.now = after
		m.entries += len(after.journal)
		r.violations = m.plainDeployment(t, r.note, r.loses())
	}
	r.report(ctx, status)
	return r
}

// settle makes a plan one for this machine: which system is brought, and whether there is one to return to.
func (r *round) settle(p plan) (plan, system) {
	if p.system.name != "" {
		return p, p.system
	}
	if p.action == doRollback {
		for _, s := range systems() {
			if r.toplevels[s.name] == r.previous && s.fate == mayStay && r.previous != r.before.runs {
				return p, s
			}
		}
		p.action = doSwitch
	}
	return p, r.good(p.spare)
}

// owe remembers what the world outside does when all is over.
func (r *round) owe(mend func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owed = append(r.owed, mend)
}

// strike starts the plan's faults, and returns when all have happened and those that do not last are over, or when there is
// nothing any more that they could hurt.
func (r *round) strike(ctx context.Context) {
	waits, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var wait sync.WaitGroup
	for _, s := range r.plan.strikes {
		wait.Go(func() { r.strikeIn(ctx, waits, s) })
	}
	struck := make(chan struct{})
	go func() {
		wait.Wait()
		close(struck)
	}()
	var quiet time.Time
	for {
		select {
		case <-struck:
			r.last = time.Now()
			return
		case <-time.After(200 * time.Millisecond):
		}
		if ctx.Err() == nil && time.Since(r.begin) < longestStrike && r.goesOn(ctx) {
			quiet = time.Time{}
			continue
		}
		if quiet.IsZero() {
			quiet = time.Now()
		}
		// A ferry that is there may begin yet, or begin again.
		if ctx.Err() != nil || r.ferry.isOver() || time.Since(quiet) > 2*r.takes(r.system)+2*time.Second {
			giveUp()
		}
	}
}

// longestStrike is how long the second fault is waited for.
const longestStrike = 3 * time.Minute

// goesOn tells whether something may still happen by itself: a target that could not go back waits for the world to be well.
func (r *round) goesOn(ctx context.Context) bool {
	switch now, _ := r.watch.is(); now {
	case stranded:
		return false
	case preparing, ended:
		return r.plan.action == doReboot && !r.ferry.isOver() || r.says(ctx, workScript) != ""
	}
	return true
}

// strikeIn strikes in the phase that the plan says, if that comes before the others have to be given up.
func (r *round) strikeIn(ctx, waits context.Context, s strike) {
	since, _ := r.watch.await(waits, s.phase)
	if waits.Err() == nil {
		pause(waits, time.Until(since.Add(time.Duration(s.within*float64(r.usually[s.phase])))))
	}
	if waits.Err() != nil {
		r.note("fault: %s: in vain: it was never %s", s.fault.name, s.phase)
		return
	}
	now, _ := r.watch.is()
	r.note("fault: %s (while %s)", s.fault.name, now)
	if err := s.fault.do(ctx, r, s); err != nil {
		r.note("fault: %s: in vain: %v", s.fault.name, err)
		return
	}
	r.note("fault: %s: done", s.fault.name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hits = append(r.hits, now)
}

// outlast waits until all that was begun has come to its end, with some help of the world outside, and gives ferry's status.
func (r *round) outlast(ctx context.Context) int {
	status, over := r.ferry.wait(0)
	limit := 2*r.takes(r.system) + 2*time.Second
	if r.plan.action == doReboot {
		// While the machine is off, nothing goes on there.
		limit += 15 * time.Second
	}
	for ; !over; status, over = r.ferry.wait(200 * time.Millisecond) {
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
		if r.plan.attaches && r.plan.action != doBoot && r.plan.action != doReboot && (status == 5 || status == -1) {
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
	for _, mend := range slices.Backward(r.owed) {
		if err := mend(ctx); err != nil {
			r.violates("the world cannot be made well: %v", err)
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
	f, err := r.start(doSwitch, next.name, hurried[:]...)
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
	var more time.Duration
	if now, _ := r.watch.is(); now == stranded {
		more = time.Since(r.begin)
	}
	if left := r.awaitQuiet(ctx, more); left != "" {
		r.violates("there is left at the target: %s", left)
	}
	r.note("it is quiet at the target")
	if err := r.answers(ctx); err != nil {
		r.violates("the target does not answer: %v", err)
	}
	if left := r.awaitQuietHere(ctx); left != "" {
		r.violates("there is left here: %s", left)
	}
	after, err := r.look(ctx, r.plan.round%4 == 0)
	if err != nil {
		r.violates("%v", err)
		return after
	}
	if r.loses() {
		// The next deployment sees to what it needs of the store.
		after.store = ""
	}
	r.violations = append(r.violations, after.whole(r.machine)...)
	r.violations = append(r.violations, stillArmed(after.armed, r.plan.restarts())...)
	r.judge(after, status)
	if len(r.violations) > 0 {
		r.note("%s", after.describe(r.machine))
	}
	return after
}

// loses tells whether the target's disks may have lost something.
func (r *round) loses() bool { return r.lossy && r.plan.any(func(f fault) bool { return f.cut }) }

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
	r.T.Errorf("seed %d, %s (login %s)\nagain: make chaos CHAOS='-seed %d -first %d -rounds 1 -targets 1 -login %s -lossy=%v'\nviolated:\n  %s\n\ntimeline:\n  %s\n\nferry:\n%s", r.plan.seed, r.plan, r.login, r.plan.seed, r.plan.round, r.login, r.lossy,
		strings.Join(r.violations, "\n  "), strings.Join(r.timeline, "\n  "), r.ferry.output())
	for _, f := range r.others {
		r.T.Logf("the other ferry, for %s:\n%s", f.node, f.output())
	}
	r.T.Logf("on the target:\n%s", r.says(ctx, evidence))
}
