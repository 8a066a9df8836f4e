package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// A target that could not roll back tries again after the first pause, and after one that is twice as long each time, up to
// the longest: for ever, since only a person can know that nothing will come of it.
const (
	firstAgain   = 10 * time.Second
	longestAgain = 15 * time.Minute
)

// againAfter is the pause after so many tries.
func againAfter(tries int) time.Duration {
	pause := firstAgain
	for ; tries > 1 && pause < longestAgain; tries-- {
		pause *= 2
	}
	return min(pause, longestAgain)
}

// again goes on where rolling back has failed: it tries that again and again, until the machine is back, somebody else has
// switched it, or a person decides. The timer is armed all the while. Another deployment may begin in the pauses: it takes
// over what the machine is to roll back to (see [root.settle]).
func (g *guard) again(ctx context.Context, failed jobStatus) jobStatus {
	for {
		if g.state.Tries == 0 {
			// What was decided before is done, or cannot be done.
			g.forgetVerdict()
		}
		g.state.Tries++
		g.state.Trouble = failed.Trouble
		pause := againAfter(g.state.Tries)
		g.say("could not roll back: %s; trying again in %v", failed.Trouble, pause)
		if err := g.timers.rearm(ctx, againSuffix(g.state.Tries), pause+g.job.rollbackLimit()+2*mendLimit+guardSlack); err != nil {
			g.say("the rollback timer could not be set anew: %v", err)
		}
		if err := g.enter(agent.Stranded, pause); err != nil {
			g.say("%v", err)
		}
		v := g.pauseStranded(ctx, machine.Uptime()+pause.Milliseconds())
		if g.left {
			return jobStatus{}
		}
		var status jobStatus
		switch v.Verdict {
		case agent.VerdictLeave:
			failed.Reason = joined(failed.Reason, run.Clean(v.Reason))
			return g.leaveStranded(ctx, failed)
		case agent.VerdictKeep:
			status = g.keepStranded(ctx, failed)
		default:
			status = g.tryRollBack(ctx, g.state.Reason)
		}
		if status.Outcome != agent.SwitchStranded {
			return status
		}
		failed = status
	}
}

func (g *guard) forgetVerdict() { _ = os.Remove(filepath.Join(g.dir, verdictFile)) }

// pauseStranded waits until it is time for another try and no other job is at work, or a person has decided. It holds the jobs' lock
// when it returns, unless the machine is to be left as it is.
func (g *guard) pauseStranded(ctx context.Context, until int64) instruction {
	g.unlock()
	for {
		v := readVerdict(g.dir)
		if v.Verdict == agent.VerdictLeave {
			return v
		}
		if now := machine.Uptime(); v.Verdict != "" || now >= until {
			work, err := tryLockWork(g.root, g.job, time.Now())
			if err == nil && work != nil {
				g.work = work
				g.forgetVerdict()
				return v
			}
			// Somebody is at work: that this process waits for them must not look as if it hung.
			if now+guardSlack.Milliseconds() > g.state.Deadline {
				_ = g.enter(agent.Stranded, 2*guardSlack)
			}
		}
		select {
		case <-g.leave:
			g.left = true
			return v
		case <-ctx.Done():
			g.left = true
			return v
		case <-time.After(strandedLook):
		}
	}
}

// strandedLook is the time between two looks at what a person has decided.
const strandedLook = 200 * time.Millisecond

// unlock lets other jobs work.
func (g *guard) unlock() {
	if g.work != nil {
		g.work.release()
		g.work = nil
	}
}

// leaveStranded ends the trying.
func (g *guard) leaveStranded(ctx context.Context, failed jobStatus) jobStatus {
	if err := g.timers.disarm(ctx); err != nil {
		failed.Trouble = joined(failed.Trouble, "the rollback timer could not be stopped: "+run.Clean(err.Error()))
	}
	g.say("left as it is")
	return g.end(failed)
}

// keepStranded makes the new system whole again, and keeps it: a person wants it in spite of everything.
func (g *guard) keepStranded(ctx context.Context, failed jobStatus) jobStatus {
	g.say("a person keeps the new system")
	if err := g.enter(agent.Activating, g.job.limit()); err != nil {
		g.say("%v", err)
	}
	status := g.activate(ctx)
	g.state.Status = status.Status
	if status.Error == "" && (status.Status == 0 || status.Status == 4) && g.root.StorePath("/run/current-system") == string(g.job.Toplevel) {
		return g.keep(ctx)
	}
	failed.Trouble = fmt.Sprintf("the new system could not be kept: switch-to-configuration ended with status %d %s", status.Status, status.Error)
	return failed
}

// overtaken names the system that somebody else has made this machine run, or boot, since the switch began; "" if nobody has. It is
// not for this switch to change that again.
func (g *guard) overtaken() string {
	before, wanted := g.state.Before.JournalState, string(g.job.Toplevel)
	current, boots := g.root.StorePath("/run/current-system"), g.root.StorePath(systemProfile)
	switch {
	case current != "" && current != before.Current && current != g.state.Found && current != wanted:
		return current
	case current == wanted && boots == wanted && before.Profile != wanted && g.state.From != agent.Committing && g.state.Phase != agent.Committing:
		// The same system, and somebody has committed it.
		return current
	}
	return ""
}

// leaveOvertaken ends a switch that somebody else's has overtaken.
func (g *guard) leaveOvertaken(ctx context.Context, status jobStatus, other string) jobStatus {
	status.Outcome = agent.SwitchOvertaken
	status.Reason = joined(status.Reason, "somebody else has switched the target to "+systemOf(other)+" meanwhile, which was left as it is")
	g.say("%s", status.Reason)
	if err := g.timers.disarm(ctx); err != nil {
		status.Trouble = joined(status.Trouble, "the rollback timer could not be stopped: "+run.Clean(err.Error()))
	}
	return g.end(status)
}
