package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/bootloader"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/receive"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// defaultLimit is how long a switch-to-configuration may take where ferry does not say it.
const defaultLimit = 15 * time.Minute

// limit is how long each part of the job may take that runs a system's switch-to-configuration.
func (j Job) limit() time.Duration {
	switch {
	case j.Limit > 0:
		return seconds(j.Limit)
	case j.Switch != nil:
		return seconds(j.Switch.Limits.Activation)
	}
	return defaultLimit
}

// rollbackLimit is the same for what leads back to the system before.
func (j Job) rollbackLimit() time.Duration { return max(j.limit(), leastRollbackLimit) }

// within runs work with a context that ends after limit, and tells whether it was still at work then. What the work has started and
// left behind is ended before within returns, with everything that this has started.
func within[T any](ctx context.Context, limit time.Duration, work func(context.Context) T) (result T, late bool) {
	limited, stop := context.WithTimeout(ctx, limit)
	defer stop()
	result = work(limited)
	if late = limited.Err() != nil && ctx.Err() == nil; late {
		endStragglers()
	}
	return result, late
}

// lateText says of work that it was ended.
func lateText(limit time.Duration) string { return fmt.Sprintf("it did not end within %v", limit) }

// committer makes a bundle what the target is, and undoes that where it fails half way.
type committer struct {
	root   machine.Root
	runner *run.Runner
	job    Job
	log    *os.File
	before agent.JournalState // what is returned to
	boot   []bootloader.Place // what the boot loader's files were on before
	// wrote says that the boot loader may be another one than before.
	wrote bool
}

// commitJob does a commit, and undoes one that fails, each within its own limit.
func commitJob(ctx context.Context, r machine.Root, job Job, log *os.File) jobStatus {
	c := &committer{root: r, runner: new(run.Runner), job: job, log: log, before: currentState(r), boot: bootloader.Places(r)}
	status := c.commit(ctx)
	if !status.failed() {
		return status
	}
	if err := c.undo(ctx, false); err != nil {
		status.Error, status.Unclean = joined(status.Error, run.Clean(err.Error())), true
	}
	return status
}

// failed tells whether a job's status is one of a failure.
func (s jobStatus) failed() bool { return s.Status != 0 || s.Error != "" }

// commit makes the bundle what the target is: the raw toplevel in the system profile, the boot loader written from it, the
// bundle as GC root. Action "root" moves only the GC root, for a bundle whose toplevel is committed already. What was there
// before is there until the last step; if one fails, or takes longer than the job's limit, [committer.undo] puts it back.
func (c *committer) commit(ctx context.Context) jobStatus {
	if err := committing(c.root, string(c.job.Toplevel)); err != nil {
		return jobStatus{Status: -1, Error: err.Error()}
	}
	status, late := within(ctx, c.job.limit(), c.forward)
	if late && status.failed() && status.Refused == "" {
		status = jobStatus{Status: -1, Error: lateText(c.job.limit())}
	}
	return status
}

func (c *committer) forward(ctx context.Context) jobStatus {
	r, job := c.root, c.job
	// The links that are set from here on must not reach the disk before what they point at.
	if err := receive.StoreToDisk(ctx, r); err != nil {
		return jobStatus{Status: -1, Error: run.Clean(err.Error())}
	}
	if job.Action != "root" {
		if moved := bootloader.Moved(r, c.boot); moved != "" {
			return jobStatus{Status: -1, Error: run.Clean(moved)}
		}
		if r.StorePath(systemProfile) != string(job.Toplevel) {
			if job.Bundle != "" {
				// What a ship has left anyway, and a rollback not: whose system it is if the power is cut from here on.
				_ = r.Keep("pending", string(job.Bundle))
			}
			if err := setProfile(ctx, c.runner, r, string(job.Toplevel), c.log); err != nil {
				return jobStatus{Status: -1, Error: run.Clean(err.Error())}
			}
		}
		if err := profileToDisk(r); err != nil {
			return jobStatus{Status: -1, Error: run.Clean(err.Error())}
		}
		status := installBoot(ctx, r, job, c.log)
		c.wrote = status.Refused == ""
		if status.failed() {
			return status
		}
		// It says that it has written the menu, and not where.
		if moved := bootloader.Moved(r, c.boot); moved != "" {
			return jobStatus{Status: -1, Error: run.Clean(moved)}
		}
		keepPrevious(r, c.before, job)
	}
	if err := keepCurrent(r, job.Bundle, c.log); err != nil {
		return jobStatus{Status: -1, Error: run.Clean(err.Error())}
	}
	_ = r.Release("pending")
	if err := committed(ctx, c.runner, r, string(job.Toplevel)); err != nil {
		_, _ = fmt.Fprintf(c.log, "ferry: what is left of the trial could not be removed: %s\n", run.Clean(err.Error()))
	}
	return jobStatus{Generation: readProfile(r).generation}
}

// undo puts back what a commit has changed that failed, within a limit of its own. What the commit has left at work is ended
// first: a boot loader that hangs must not go on while another one is written. again tells that an earlier undo was cut
// off, so that the boot loader may be half of each although the profile is back.
func (c *committer) undo(ctx context.Context, again bool) error {
	endStragglers()
	limit := c.job.rollbackLimit()
	err, late := within(ctx, limit, func(ctx context.Context) error {
		var err error
		if c.job.Action != "root" && currentBundle(c.root) != c.before.Bundle {
			err = keepCurrent(c.root, nix.StorePath(c.before.Bundle), c.log)
		}
		return errors.Join(err, c.undoProfileAndMenu(ctx, again))
	})
	if late && err != nil {
		err = fmt.Errorf("what boots could not be put back: %s", lateText(limit))
	}
	return err
}

// undoProfileAndMenu makes the profile what it was, by its generation's number and not by making another one, and lets the system that
// it stands for write the boot loader again, which may be half of each.
func (c *committer) undoProfileAndMenu(ctx context.Context, again bool) error {
	before := profile{c.before.Profile, c.before.Generation}
	now := readProfile(c.root)
	moved := now != before
	if moved && now.toplevel != string(c.job.Toplevel) && now.toplevel != before.toplevel {
		// Somebody else has moved it, and made that what boots.
		return nil
	}
	if c.job.Action == "root" || before.toplevel == "" || before.toplevel == string(c.job.Toplevel) || !moved && !again {
		return nil
	}
	var err error
	switch {
	case !moved:
	case before.generation > 0:
		err = c.runner.Run(ctx, run.Command{
			Argv: []string{"nix-env", "-p", c.root.Path(systemProfile), "--switch-generation", strconv.Itoa(before.generation)}, Out: c.log, Err: c.log,
		})
	default:
		err = setProfile(ctx, c.runner, c.root, before.toplevel, c.log)
	}
	if err = errors.Join(err, profileToDisk(c.root)); err != nil {
		return fmt.Errorf("the system profile could not be put back: %w", err)
	}
	if !c.wrote && !again {
		return nil
	}
	job := c.job
	job.Toplevel, job.unchecked, job.patience, job.still = nix.StorePath(before.toplevel), true, job.rollbackLimit(), nil
	if status := installBoot(ctx, c.root, job, c.log); status.failed() {
		return fmt.Errorf("the boot loader could not be put back: exit status %d %s", status.Status, joined(status.Refused, status.Error))
	}
	return nil
}
