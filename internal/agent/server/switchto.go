package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"ferry/internal/agent/machine"
	"ferry/internal/agent/units"
	"ferry/internal/run"
)

// switchTo runs the toplevel's own switch-to-configuration, and looks at what it has said: its exit status alone does not tell how
// far it came. While another one is at work it is tried again, for as long as the job is patient.
func switchTo(ctx context.Context, r machine.Root, job Job, action string, log *os.File) jobStatus {
	told, left := false, 0
	for end := time.Now().Add(max(job.patience, stcLockWait)); ; time.Sleep(100 * time.Millisecond) {
		// It makes sure as well that who holds the lock is root.
		holder := awaitSwitchLock(ctx, r, 0)
		if holder != "" && !told {
			told = true
			_, _ = fmt.Fprintf(log, "ferry: waiting for another switch-to-configuration: %s\n", run.Clean(holder))
		}
		if holder != "" {
			holder = awaitSwitchLock(ctx, r, time.Until(end))
		}
		if job.still != nil {
			if reason := job.still(); reason != "" {
				return jobStatus{Status: lockedStatus, Refused: reason}
			}
		}
		from := sizeOf(log)
		status := runSwitch(ctx, r, job, action, log)
		said := units.ReadPrinted(log, from)
		// A run that was broken off may have been the one that began.
		status.Began = said.Began() || left > 0
		if status.Status == 1 && said.UserLeft() && left < leavingUsers && ctx.Err() == nil {
			left++
			_, _ = fmt.Fprintln(log, "ferry: a user has logged out while switch-to-configuration asked about them: running it once more")
			continue
		}
		if status.Status == 0 || status.Began {
			return status
		}
		status.Refused = said.Refusal()
		if !said.IsLocked() {
			return status
		}
		holder = cmp.Or(cmp.Or(awaitSwitchLock(ctx, r, 0), holder), "it has just ended")
		status.Refused = "another switch-to-configuration is at work on the target: " + run.Clean(holder)
		if ctx.Err() != nil || time.Now().After(end) {
			return status
		}
	}
}

// lockedStatus is how a switch-to-configuration ends that finds another one at work, by the number of EAGAIN. Others may end so as
// well, and only what it says is sure.
const lockedStatus = 11

// leavingUsers is how often it is run once more because a user has logged out meanwhile. Anybody there may do that at any time, and
// nobody does it in the right moment again and again by chance.
const leavingUsers = 5

// runSwitch runs it once. Its environment is fixed, because sudo's and systemd's differ and an empty PATH has broken boot loader
// scripts. It writes into the log itself, and not through a pipe: it dies of one whose reader is gone.
func runSwitch(ctx context.Context, r machine.Root, job Job, action string, log *os.File) jobStatus {
	env := []string{"PATH=" + strings.Join([]string{
		string(job.Toplevel) + "/sw/bin", "/run/current-system/sw/bin", "/run/current-system/sw/sbin", "/run/wrappers/bin",
		"/nix/var/nix/profiles/default/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin",
	}, ":")}
	if job.unchecked {
		env = append(env, "NIXOS_NO_CHECK=1")
	}
	if job.Locale != "" {
		env = append(env, "LOCALE_ARCHIVE="+job.Locale)
	}
	err := new(run.Runner).Run(ctx, run.Command{
		Argv: []string{r.Path(string(job.Toplevel)) + "/bin/switch-to-configuration", action}, Env: env, Out: log, Err: log, Dir: "/",
		OwnGroup: true,
	})
	var failed *run.Error
	switch {
	case err == nil:
		return jobStatus{}
	case errors.As(err, &failed) && failed.Status >= 0:
		return jobStatus{Status: failed.Status}
	}
	return jobStatus{Status: -1, Error: run.Clean(err.Error())}
}

// switchWithin is switchTo with a limit: what goes on after that is ended, with everything it has started.
func switchWithin(ctx context.Context, limit time.Duration, r machine.Root, job Job, action string, log *os.File) jobStatus {
	status, late := within(ctx, limit, func(ctx context.Context) jobStatus { return switchTo(ctx, r, job, action, log) })
	if late && status.Refused == "" {
		// One of 2024 waits for the lock, without a word and without end.
		if holder := awaitSwitchLock(ctx, r, 0); holder != "" {
			return jobStatus{Status: -1, Error: lateText(limit) + ": another switch-to-configuration is at work on the target: " + run.Clean(holder)}
		}
		status = jobStatus{Status: -1, Error: lateText(limit)}
	}
	return status
}

func sizeOf(log *os.File) int64 {
	info, err := log.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}
