package chaos_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ferry/internal/lab"
)

// phase is what a deployment is at, as its target shows it.
type phase string

// The phases, in their order. Those of a switch are in its file state; the others are told by the jobs that are at work.
const (
	preparing   phase = "preparing" // connecting, building, shipping: nothing has begun that would go on without ferry
	arming      phase = "arming"
	activating  phase = "activating"
	waiting     phase = "waiting"
	confirmed   phase = "confirmed" // its checks are made
	rebooting   phase = "rebooting" // into a system that is tried
	trying      phase = "trying"    // that runs, and is not committed
	committing  phase = "committing"
	rollingBack phase = "rolling back"
	stranded    phase = "stranded" // it could not go back, and tries again by and by
	ended       phase = "ended"
)

// firstGuess is roughly how long each phase takes, until that has been seen.
var firstGuess = map[phase]time.Duration{
	preparing: 1500 * time.Millisecond, arming: 100 * time.Millisecond, activating: 900 * time.Millisecond, waiting: 300 * time.Millisecond,
	confirmed: 400 * time.Millisecond, rebooting: 2 * time.Second, trying: time.Second, committing: 700 * time.Millisecond, rollingBack: time.Second,
}

// isJobOfReboot tells the jobs that reboot.
var isJobOfReboot = map[string]bool{"boot-once": true, "boot-forget": true, "reboot": true}

// watch follows a target through a deployment: its files are read from outside, many times a second, so that a fault can strike
// in a phase that is over in a moment.
type watch struct {
	target *lab.Target
	reboot bool            // the deployment is one by a reboot
	old    map[string]bool // jobs that were there before it began
	pid    string          // the machine's folder in /proc when it began: another one, and it has booted since
	stop   context.CancelFunc
	over   sync.WaitGroup

	mu    sync.Mutex
	now   phase
	since time.Time
	lasts map[phase]time.Duration // how long each that is over has lasted
	seen  map[phase]bool
}

// watchPause is the time between two looks.
const watchPause = 5 * time.Millisecond

// startWatch begins to follow what begins on the target from now on. Its stop ends it.
func startWatch(ctx context.Context, target *lab.Target, reboot bool) *watch {
	w := &watch{target: target, reboot: reboot, old: map[string]bool{}, pid: target.Inside(""), now: preparing, since: time.Now(),
		lasts: map[phase]time.Duration{}, seen: map[phase]bool{preparing: true}}
	for _, job := range w.jobs() {
		w.old[filepath.Base(job)] = true
	}
	ctx, w.stop = context.WithCancel(ctx)
	w.over.Go(func() {
		for ctx.Err() == nil {
			w.enter(w.look())
			pause(ctx, watchPause)
		}
	})
	return w
}

// end ends the watch, and tells how long each phase has lasted.
func (w *watch) end() map[phase]time.Duration {
	w.stop()
	w.over.Wait()
	return w.lasts
}

func (w *watch) jobs() []string {
	found, _ := filepath.Glob(w.target.Inside("/run/ferry") + "/*-*/job.json")
	for i, file := range found {
		found[i] = filepath.Dir(file)
	}
	return found
}

// look tells what the deployment is at.
func (w *watch) look() phase {
	last := phase("")
	for _, job := range w.jobs() {
		if w.old[filepath.Base(job)] {
			continue
		}
		_, kind, _ := strings.Cut(filepath.Base(job), "-")
		if _, err := os.Stat(filepath.Join(job, "status")); err == nil {
			if last == "" {
				last = ended
			}
			continue
		}
		switch {
		case kind == "commit":
			return committing
		case isJobOfReboot[kind]:
			return rebooting
		case kind != "switch":
			continue
		}
		var state struct{ Phase phase }
		text, err := os.ReadFile(filepath.Join(job, "state"))
		if err == nil && json.Unmarshal(text, &state) == nil && state.Phase != "" {
			if state.Phase == "undoing" {
				// The first thing that is done to go back from a commit.
				return rollingBack
			}
			return state.Phase
		}
	}
	booted := w.target.Inside("") != w.pid
	switch {
	case w.reboot && (booted || last == ended || w.has(rebooting)):
		// The job of the reboot itself may end before the machine goes down; after that its files are gone.
		switch {
		case last == ended && w.has(committing):
			return ended
		case booted:
			return trying
		}
		return rebooting
	case last == ended:
		return ended
	case w.has(arming) || w.has(committing):
		// The folder is gone: the machine has been restarted.
		return ended
	}
	return preparing
}

func (w *watch) enter(p phase) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p == w.now {
		return
	}
	now := time.Now()
	w.lasts[w.now] += now.Sub(w.since)
	w.now, w.since, w.seen[p] = p, now, true
}

func (w *watch) has(p phase) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[p]
}

// is tells the present phase and since when.
func (w *watch) is() (phase, time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now, w.since
}

// await waits until a phase has begun, and tells when; false if it is over already, or ctx is.
func (w *watch) await(ctx context.Context, p phase) (time.Time, bool) {
	for ctx.Err() == nil {
		now, since := w.is()
		if now == p {
			return since, true
		}
		if w.has(p) {
			return since, false
		}
		pause(ctx, watchPause)
	}
	return time.Time{}, false
}
