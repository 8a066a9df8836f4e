package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// backRoot keeps the system that a switch would roll back to from being collected.
const backRoot = machine.GCRoots + "/back"

func keepForRollback(r machine.Root, toplevel string) error {
	if toplevel == "" {
		return nil
	}
	return r.Keep(filepath.Base(backRoot), toplevel)
}

// removeOldBack removes backRoot where no switch needs it any more: the target's power was cut in the middle of one.
func removeOldBack(r machine.Root) {
	jobs, err := filepath.Glob(r.Path(machine.RunFolder) + "/*-" + string(JobSwitch) + "/" + jobFile)
	if err != nil {
		return
	}
	for _, file := range jobs {
		if _, ended, _ := readStatus(filepath.Dir(file)); !ended {
			return
		}
	}
	_ = os.Remove(r.Path(backRoot))
}

// leastRollbackLimit is what the activation of the old system may take at least: whoever gives the new one a few seconds means the
// new one, and a busy machine must not lose its rollback to that.
const leastRollbackLimit = 5 * time.Minute

// rollBack returns to exactly what ran before, for the reason, and does not rest before it has, unless a person wants it.
func (g *guard) rollBack(ctx context.Context, reason string) jobStatus {
	status := g.tryRollBack(ctx, reason)
	if status.Outcome != agent.SwitchStranded {
		return status
	}
	if g.once || g.state.Before.Current == "" {
		return g.leaveStranded(ctx, status)
	}
	return g.again(ctx, status)
}

// tryRollBack rolls back once. The outcome SwitchStranded is not the end: it says that it has not come to that.
func (g *guard) tryRollBack(ctx context.Context, reason string) jobStatus {
	// What is under way already has written down from where.
	if g.state.From == "" {
		g.state.From = g.state.Phase
	}
	g.state.Reason = reason
	status := jobStatus{Status: g.state.Status, Reason: reason, From: g.state.From, Failed: g.state.Failed, Outcome: agent.SwitchStranded}
	old := g.state.Before.Current
	if old == "" {
		status.Trouble = "there is no system that could be returned to"
		return status
	}
	// An activation script that has lost its switch-to-configuration would bring the new system in afterwards.
	endStragglers()
	g.makeRoom(ctx)
	limit := g.job.rollbackLimit()
	if err := g.enter(agent.RollingBack, limit+2*mendLimit+guardSlack); err != nil {
		// A full /run must not keep the machine from rolling back.
		g.say("%v", err)
	}
	if holder := awaitSwitchLock(ctx, g.root, mendLimit); holder != "" {
		g.say("another switch-to-configuration is in the way: %s", holder)
	}
	if other := g.overtaken(); other != "" {
		return g.leaveOvertaken(ctx, status, other)
	}
	g.say("rolling back to %s: %s", nix.StorePath(old).Name(), reason)
	job := g.job
	job.Toplevel, job.unchecked, job.patience, job.still = nix.StorePath(old), true, limit, g.overtaken
	had := g.restoreAccounts()
	ended := switchWithin(ctx, limit, g.root, job, "test", g.logFile)
	if other := g.overtaken(); other != "" {
		return g.leaveOvertaken(ctx, status, other)
	}
	status.Trouble = troubleWith(ended)
	// With 4 some of its units have failed again. What else it says means that it is not whole: systemd may go on with units of
	// the other system.
	back := g.root.StorePath("/run/current-system") == old && (ended.Status == 0 || ended.Status == 4)
	if !back && status.Trouble == "" {
		status.Trouble = "the old system does not run"
	}
	if problem := g.completeAccounts(had); problem != "" {
		status.Trouble = joined(status.Trouble, problem)
	}
	if problem := g.mendNetwork(ctx); problem != "" {
		status.Trouble = joined(status.Trouble, problem)
	}
	if !back {
		return status
	}
	g.activatedToDisk(ctx)
	status.Outcome = agent.SwitchRolledBack
	status.Trouble = joined(status.Trouble, g.restore(ctx))
	if err := g.timers.disarm(ctx); err != nil {
		status.Trouble = joined(status.Trouble, "the rollback timer could not be stopped: "+run.Clean(err.Error()))
	}
	g.say("this is %s again", nix.StorePath(old).Name())
	return g.end(status)
}

// systemOf is a toplevel's name and the beginning of its hash, for people.
func systemOf(toplevel string) string {
	p := nix.StorePath(toplevel)
	hash := p.Hash()
	return p.Name() + " (" + hash[:min(7, len(hash))] + "…)"
}

// troubleWith is what an activation of the old system has to complain about; "" if nothing.
func troubleWith(status jobStatus) string {
	switch {
	case status.Status == 0:
		return ""
	case status.Refused != "":
		return status.Refused
	case status.Status > 0:
		return fmt.Sprintf("the old system's switch-to-configuration ended with status %d", status.Status)
	}
	return "the old system's activation failed: " + cmp.Or(status.Error, "it left no status")
}

// joined is two texts as one, either of which may be "".
func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// RunRollback is the process that the timer of a switch starts: it succeeds a guard that has been killed, or that hangs. A
// guard that is at work in time is left alone.
func RunRollback(ctx context.Context, dir string) error { return rollBackIn(ctx, machine.Root{}, dir) }

func rollBackIn(ctx context.Context, r machine.Root, dir string) error {
	if err := succeedIn(ctx, r, dir, succession{}); err != nil {
		return err
	}
	tidyAfter(ctx, r, dir)
	return nil
}

// succession says how a guard is succeeded.
type succession struct {
	locked bool // the caller holds the jobs' lock
	once   bool // rolling back is tried once and no more
}

func succeedIn(ctx context.Context, r machine.Root, dir string, how succession) error {
	leave := ctx.Done()
	ctx = context.WithoutCancel(ctx)
	file, err := openJobLock(dir)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := succeed(file, dir); err != nil {
		return err
	}
	job, err := readJob(dir)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, logFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	g, err := newGuard(r, dir, job, log)
	if err != nil {
		return err
	}
	g.leave, g.once = leave, how.once
	g.state, err = readState(dir)
	g.timers.assume(g.state.Tries)
	if _, ended, _ := readStatus(dir); ended {
		g.timers.dropProgram()
		return g.timers.disarm(ctx)
	}
	if errors.Is(err, os.ErrNotExist) {
		// It was killed before it wrote anything down.
		g.state.Phase = agent.Arming
	} else if err != nil {
		return err
	}
	if !how.locked {
		if g.work, err = lockWork(r, job, time.Now()); err != nil {
			return err
		}
		defer g.unlock()
	}
	status := g.takeOver(ctx)
	if g.left {
		return nil
	}
	if err := endJob(dir, status); err != nil {
		return err
	}
	g.timers.dropProgram()
	return nil
}

// takeOver goes on where a guard was killed.
func (g *guard) takeOver(ctx context.Context) jobStatus {
	endStragglersOf(unitName(g.dir))
	// What a successor has left that was killed, in this unit.
	endStragglers()
	if g.root.Exists(machine.SystemdRuns) {
		// Its unit is there, in the failed state, unless switch-to-configuration has looked into those already.
		_ = g.runner.Run(ctx, run.Command{Argv: []string{"systemctl", "reset-failed", "--", unitName(g.dir)}})
	}
	switch g.state.Phase {
	case agent.Arming:
		err := g.timers.disarm(ctx)
		reason := "the process that was to switch was killed before it began"
		if err != nil {
			reason += "; " + err.Error()
		}
		return g.end(jobStatus{Status: -1, Outcome: agent.SwitchRefused, Reason: run.Clean(reason)})
	case agent.Committing:
		// It was confirmed: forward is the shorter way to a machine of one piece.
		g.say("the process that was committing was killed: committing again")
		return g.keep(ctx)
	case agent.Undoing:
		// The commit had failed: it is not tried again.
		return g.undo(ctx, g.committer(), cmp.Or(g.state.Reason, "the commit failed"))
	}
	return g.rollBack(ctx, cmp.Or(g.state.Reason, "the process that watched over the switch was killed"))
}

// succeed waits for the lock of the job in file. A guard that is in a phase for longer than it may is killed, with all that it has
// started.
func succeed(file *os.File, dir string) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		state, err := readState(dir)
		if err == nil && machine.Uptime() > state.Deadline+guardSlack.Milliseconds() {
			if isAgent(state.Pid) {
				_ = syscall.Kill(state.Pid, syscall.SIGKILL)
			}
			// A child that was stopped before it became another program holds the lock as well.
			endStragglersOf(unitName(dir))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func readState(dir string) (state guardState, err error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return guardState{}, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return guardState{}, fmt.Errorf("state of the switch in %s: %w", dir, err)
	}
	return state, nil
}
