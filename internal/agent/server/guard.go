package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/bootloader"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/units"
	"ferry/internal/run"
)

// The files of a guarded switch in its job's folder, besides those of every job.
const (
	stateFile     = "state"   // guardState: how far it is
	expectFolder  = "expect"  // a file for each token that confirms it, with its hash; every agent that follows it adds its own
	verdictFile   = "verdict" // instruction: what ferry decided, through an agent
	confirmFolder = "confirm" // where the login user writes the token
)

// guard is the process of a guarded switch. It arms a rollback, runs the new system, and keeps it only if it is confirmed in
// time: otherwise it rolls back to what ran before. It needs neither a connection nor ferry for that. A guard that is
// killed is succeeded by the process that the timer starts (see RunRollback).
type guard struct {
	root    machine.Root
	dir     string
	job     Job
	log     io.Writer
	logFile *os.File
	runner  *run.Runner
	timers  *timers
	state   guardState
	// pause is the time between two looks at what has been confirmed.
	pause time.Duration
	// leave is closed when the machine is shut down, or somebody stops the unit. A guard that waits then leaves, as if it had
	// been killed: a shutdown must not wait for it, and is a rollback of its own.
	leave <-chan struct{}
	left  bool
	// work is the jobs' lock, as long as this guard holds it itself.
	work *lock
	// once says that rolling back is tried once and no more.
	once bool
}

// guardState is what the file state says, for those who follow and for a successor.
type guardState struct {
	Phase agent.Phase `json:"phase"`
	Pid   int         `json:"pid"`
	// Deadline is when the phase is over at the latest, by uptime in milliseconds: a guard that is in it after that hangs.
	Deadline int64 `json:"deadline"`
	Status   int   `json:"status"` // of the activation
	// Begun is when it began, by uptime in milliseconds.
	Begun int64 `json:"begun"`
	// From is the phase that it rolls back from, and Reason why, as far as a successor has to know it.
	From   agent.Phase `json:"from,omitempty"`
	Reason string      `json:"reason,omitempty"`
	// Failed are the units that failed and had not before.
	Failed []string `json:"failed,omitempty"`
	// UserUnits are those of users whose units are not judged.
	UserUnits []string `json:"user_units,omitempty"`
	Before    before   `json:"before"`
	// Found is the toplevel that ran when it began: another one than Before's if that had been to roll back, and could not.
	Found string `json:"found,omitempty"`
	// Tries is how often rolling back has failed, and Trouble why it did the last time.
	Tries   int    `json:"tries,omitempty"`
	Trouble string `json:"trouble,omitempty"`
}

// before is what the target was when the switch began: exactly that is returned to.
type before struct {
	agent.JournalState          // an empty Current: there is nothing that could be returned to
	Failed             []string `json:"failed"`
	Network            network  `json:"network"`
	// Boot are the file systems that the boot loader's files were on.
	Boot []bootloader.Place `json:"boot,omitempty"`
	// Standing are the units that ran and do not end by themselves.
	Standing []string `json:"standing,omitempty"`
}

const (
	// guardSlack is what a guard may need longer than a phase's limit before it counts as hanging.
	guardSlack = 15 * time.Second
	// mendLimit is how long putting the network back may take.
	mendLimit = time.Minute
)

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

func newGuard(r machine.Root, dir string, job Job, log *os.File) (*guard, error) {
	if job.Switch == nil {
		return nil, errors.New("the job does not say how to switch")
	}
	runner := new(run.Runner)
	return &guard{
		root: r, dir: dir, job: job, log: log, logFile: log, runner: runner, pause: 5 * time.Millisecond,
		timers: &timers{root: r, runner: runner, systemd: r.Exists(machine.SystemdRuns), dir: dir, job: job},
	}, nil
}

// say writes a line of the guard's own into the log, where followers see it.
func (g *guard) say(format string, args ...any) {
	_, _ = fmt.Fprintf(g.log, "ferry: "+format+"\n", args...)
}

// enter begins a phase that takes at most limit.
func (g *guard) enter(phase agent.Phase, limit time.Duration) error {
	g.state.Phase, g.state.Pid = phase, os.Getpid()
	g.state.Deadline = machine.Uptime() + limit.Milliseconds()
	text, err := json.Marshal(g.state)
	if err != nil {
		return err
	}
	publish(g.dir, g.job, phase, g.state.Deadline)
	if err := writeFile(filepath.Join(g.dir, stateFile), text); err != nil {
		return fmt.Errorf("write down that it is %s: %w", phase, err)
	}
	return nil
}

// run does all of it.
func (g *guard) run(ctx context.Context) jobStatus {
	limits := g.job.Switch.Limits
	if err := g.prepare(ctx); err != nil {
		g.timers.disarm(ctx)
		return g.end(jobStatus{Status: -1, Outcome: agent.SwitchRefused, Reason: run.Clean(err.Error())})
	}
	if err := g.enter(agent.Activating, seconds(limits.Activation)); err != nil {
		g.timers.disarm(ctx)
		return g.end(jobStatus{Status: -1, Outcome: agent.SwitchRefused, Reason: run.Clean(err.Error())})
	}
	complete := g.returnAccounts()
	status := g.activate(ctx)
	complete()
	g.activatedToDisk(ctx)
	g.noteAccounts()
	g.state.Status = status.Status
	if outcome, reason := g.judge(ctx, status); outcome == agent.SwitchRefused && g.state.Found == g.state.Before.Current {
		// A switch back has changed them already.
		g.restoreAccounts()
		g.timers.disarm(ctx)
		return g.end(jobStatus{Status: status.Status, Outcome: outcome, Reason: reason})
	} else if outcome != "" {
		return g.rollBack(ctx, reason)
	}
	switch reason := g.awaitConfirmation(ctx); {
	case g.left:
		return jobStatus{}
	case reason != "":
		return g.rollBack(ctx, reason)
	}
	return g.keep(ctx)
}

// prepare makes sure that there is a rollback before anything changes.
func (g *guard) prepare(ctx context.Context) error {
	if err := g.enter(agent.Arming, stcLockWait+guardSlack); err != nil {
		return err
	}
	if holder := awaitSwitchLock(ctx, g.root, stcLockWait); holder != "" {
		return fmt.Errorf("another switch-to-configuration is at work on the target: %s", holder)
	}
	// Not before somebody else's switch is over.
	g.state.Before = before{JournalState: currentState(g.root), Failed: g.job.Failed, Network: lookAtNetwork(ctx, g.runner, g.job.Server), Boot: bootloader.Places(g.root)}
	g.state.Begun = machine.Uptime()
	judged, others := g.managers()
	g.state.Before.Failed = units.Union(g.state.Before.Failed, units.AskAll(append(judged, others...), func(m units.Manager) []string { return m.TroubledNow(ctx) }))
	g.state.Before.Standing = units.Standing(ctx, g.runner, g.root)
	g.state.Found = g.state.Before.Current
	if back := systemBefore(g.root, g.state.Found); back != "" {
		g.say("the running system was to be rolled back: a rollback now returns to %s", systemOf(back))
		g.state.Before.Current = back
	}
	if g.state.Before.Current == "" && !g.job.Switch.Unsafe {
		return errors.New("there is no /run/current-system that could be returned to")
	}
	if err := keepForRollback(g.root, g.state.Before.Current); err != nil {
		return fmt.Errorf("arm the rollback: %w", err)
	}
	if err := g.keepAccounts(); err != nil {
		return fmt.Errorf("arm the rollback: %w", err)
	}
	err := g.timers.arm(ctx, "", seconds(g.job.Switch.Limits.Activation)+guardSlack)
	if err != nil && !g.job.Switch.Unsafe {
		return fmt.Errorf("arm the rollback: %w", err)
	}
	return nil
}

// activate runs the new system, and ends what hangs.
func (g *guard) activate(ctx context.Context) jobStatus {
	job := g.job
	job.still = func() string {
		if current := g.root.StorePath("/run/current-system"); current != g.state.Found && current != string(job.Toplevel) {
			return "somebody else has switched the target to " + systemOf(current) + " meanwhile"
		}
		return ""
	}
	return switchWithin(ctx, job.limit(), g.root, job, "test", g.logFile)
}

// judge tells from the end of the activation whether the switch goes on (""), was refused, or has to roll back, and why. A status
// that may stand for a refusal is one only if nothing had begun.
func (g *guard) judge(ctx context.Context, status jobStatus) (agent.SwitchOutcome, string) {
	moved := g.root.StorePath("/run/current-system") != g.state.Found
	untouched := !moved && !status.Began
	switch status.Status {
	case 0:
		return "", ""
	case 1, 2, lockedStatus:
		if status.Refused != "" {
			return agent.SwitchRefused, status.Refused
		}
		if untouched {
			return agent.SwitchRefused, fmt.Sprintf("switch-to-configuration refused (exit status %d)", status.Status)
		}
		if status.Status == 2 {
			return agent.SwitchRolledBack, "the activation script failed (exit status 2)" + units.ReadComplaints(filepath.Join(g.dir, logFile)).InSnippets()
		}
		return agent.SwitchRolledBack, fmt.Sprintf("switch-to-configuration failed in the middle (exit status %d)", status.Status)
	case 3:
		return agent.SwitchRolledBack, "systemd could not be reloaded (exit status 3)"
	case 4:
		if reason := g.judgeUnits(ctx, true); reason != "" {
			return agent.SwitchRolledBack, reason
		}
		return "", ""
	case 100:
		if untouched {
			return agent.SwitchRefused, "this change needs a reboot (exit status 100)"
		}
		return agent.SwitchRolledBack, "this change needs a reboot (exit status 100)"
	case -1:
		return agent.SwitchRolledBack, "the activation failed: " + cmp.Or(status.Error, "it left no status")
	}
	return agent.SwitchRolledBack, fmt.Sprintf("switch-to-configuration ended with status %d", status.Status)
}

// keep makes the confirmed system what boots, if that was asked for, and disarms the rollback.
func (g *guard) keep(ctx context.Context) jobStatus {
	status := jobStatus{Status: g.state.Status, Outcome: agent.SwitchActivated, Failed: g.state.Failed}
	if other := g.overtaken(); other != "" {
		return g.leaveOvertaken(ctx, status, other)
	}
	if g.job.Action == "switch" {
		if err := g.enter(agent.Committing, seconds(g.job.Switch.Limits.Activation)); err != nil {
			return g.rollBack(ctx, "the commit failed: "+run.Clean(err.Error()))
		}
		c := g.committer()
		committed := c.commit(ctx)
		if committed.failed() {
			return g.undo(ctx, c, commitReason(committed))
		}
		status.Outcome, status.Generation = agent.SwitchCommitted, committed.Generation
		if current := g.root.StorePath("/run/current-system"); current != string(g.job.Toplevel) {
			return g.leaveOvertaken(ctx, status, current)
		}
	}
	if err := g.timers.disarm(ctx); err != nil {
		status.Trouble = "the rollback timer could not be stopped: " + run.Clean(err.Error())
	}
	return g.end(status)
}

// committer is what commits the switch, and undoes that. A guard that was killed while it committed may have moved the profile
// already: what is returned to is what was there when the switch began.
func (g *guard) committer() *committer {
	job := g.job
	job.Action = "boot"
	// The activation has asked the system's checks.
	job.unchecked, job.patience = true, job.limit()
	job.still = func() string {
		if other := g.overtaken(); other != "" {
			return "somebody else has switched the target to " + systemOf(other) + " meanwhile"
		}
		return ""
	}
	return &committer{root: g.root, runner: g.runner, job: job, log: g.logFile, before: g.state.Before.JournalState, boot: g.state.Before.Boot}
}

// undo puts back what boots after a commit that failed for the reason, and rolls back. It is a phase of its own: whoever succeeds
// a guard that is killed in it does not commit again.
func (g *guard) undo(ctx context.Context, c *committer, reason string) jobStatus {
	again := g.state.Phase == agent.Undoing
	g.state.From, g.state.Reason = agent.Committing, reason
	if err := g.enter(agent.Undoing, g.job.rollbackLimit()); err != nil {
		g.say("%v", err)
	}
	if err := c.undo(ctx, again); err != nil {
		reason = joined(reason, run.Clean(err.Error()))
	}
	return g.rollBack(ctx, reason)
}

func commitReason(status jobStatus) string {
	text := "the commit failed"
	if status.Refused != "" {
		return "the commit failed: " + joined(status.Refused, status.Error)
	}
	if status.Status > 0 {
		text = fmt.Sprintf("the boot loader could not be written (exit status %d)", status.Status)
	}
	if status.Error != "" {
		text += ": " + status.Error
	}
	return text
}

// end writes down that it is over and gives status.
func (g *guard) end(status jobStatus) jobStatus {
	// Who follows reads the status, which is written next.
	_ = g.enter(agent.Ended, 0)
	_ = os.RemoveAll(filepath.Join(g.dir, confirmFolder))
	g.forgetAccounts(status)
	if status.Outcome != agent.SwitchStranded {
		_ = os.Remove(g.root.Path(backRoot))
	}
	status.UserUnits = g.state.UserUnits[:min(len(g.state.UserUnits), agent.MaxFailed)]
	g.record(status)
	return status
}
