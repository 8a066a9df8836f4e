package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"ferry/internal/agent/machine"
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
		said := readSaid(log, from)
		// A run that was broken off may have been the one that began.
		status.Began = said.began() || left > 0
		if status.Status == 1 && said.userLeft() && left < leavingUsers && ctx.Err() == nil {
			left++
			_, _ = fmt.Fprintln(log, "ferry: a user has logged out while switch-to-configuration asked about them: running it once more")
			continue
		}
		if status.Status == 0 || status.Began {
			return status
		}
		status.Refused = said.refusal()
		if !said.isLocked() {
			return status
		}
		holder = orWord(orWord(awaitSwitchLock(ctx, r, 0), holder), "it has just ended")
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

// said is what a switch-to-configuration has printed.
type said string

// maxSaid is how much of it is looked at, in bytes. What tells how far it came stands at the beginning.
const maxSaid = 1 << 20

func sizeOf(log *os.File) int64 {
	info, err := log.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

func readSaid(log *os.File, from int64) said {
	if info, err := log.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	file, err := os.Open(log.Name())
	if err != nil {
		return ""
	}
	defer file.Close()
	text, err := io.ReadAll(io.NewSectionReader(file, from, maxSaid))
	if err != nil {
		return ""
	}
	return said(text)
}

// began tells whether it had begun to change what runs, whichever status it ended with: to stop units, to take a swap away, or to
// activate. The last text is of a loss of D-Bus while units are stopped, of which targets are not named.
func (s said) began() bool {
	return s.has("stopping the following units: ", "stopping swap device: ", "activating the configuration...",
		"Error: Failed to process dbus messages while waiting for jobs")
}

// isLocked tells whether it found another one at work.
func (s said) isLocked() bool { return s.has("Could not acquire lock") }

var leftUser = regexp.MustCompile(`(?m)^.*Unknown object '/org/freedesktop/login1/user/_[0-9]+'`)

// userLeft tells whether logind did not know a user any more of whom it had just told. That ends the program after the activation,
// before it has started anything; run again it does the rest.
func (s said) userLeft() bool { return leftUser.MatchString(string(s)) }

// has tells whether a line begins with one of the texts.
func (s said) has(beginnings ...string) bool {
	for line := range strings.Lines(string(s)) {
		if slices.ContainsFunc(beginnings, func(text string) bool { return strings.HasPrefix(line, text) }) {
			return true
		}
	}
	return false
}

var failedCheck = regexp.MustCompile(`(?m)^Pre-switch check '(.{1,100})' failed$`)

// refusal is why it has refused, as far as that is its own word; "" if it is not known.
func (s said) refusal() string {
	if !s.has("Pre-switch checks failed") {
		return ""
	}
	var names []string
	for _, match := range failedCheck.FindAllStringSubmatch(string(s), -1) {
		if name := run.Clean(match[1]); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return "the system's checks before a switch failed"
	case 1:
		return "the system's check before a switch failed: " + names[0]
	}
	return "the system's checks before a switch failed: " + strings.Join(names, ", ")
}
