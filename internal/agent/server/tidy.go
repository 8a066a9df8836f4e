package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
)

const (
	// tidyFor is how long the process of a switch that is over goes on trying to remove what it has left: what it could not remove
	// because the disk was read-only, or another one was mounted there. Nothing starts that, and the next deployment removes it as
	// well.
	tidyFor = time.Hour
	// The pauses between two tries grow from the one to the other.
	firstTidy   = time.Second
	longestTidy = 30 * time.Second
)

// tidyAfter is what the process of a switch becomes that is over: one that removes what it has left. In a list of processes it looks
// like no job's.
func tidyAfter(ctx context.Context, r machine.Root, dir string) {
	if !hasLeft(r, dir) {
		return
	}
	// Its own file may be what is not there any more. If it cannot be started, this process does it.
	_ = syscall.Exec("/proc/self/exe", []string{os.Args[0], "tidy", dir}, os.Environ())
	goOnTidying(ctx, r, dir)
}

// RunTidy is that process.
func RunTidy(ctx context.Context, dir string) { goOnTidying(ctx, machine.Root{}, dir) }

// goOnTidying removes what a switch that is over has left, as soon as that can be done. It holds up nobody, and leaves when the
// machine is shut down.
func goOnTidying(ctx context.Context, r machine.Root, dir string) {
	pause := firstTidy
	for end := time.Now().Add(tidyFor); hasLeft(r, dir) && time.Now().Before(end); pause = min(2*pause, longestTidy) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		whileNobodyWorks(r, func() { tidy(r, dir) })
	}
}

// hasLeft tells whether something is there that the switch in dir, which has ended, should have removed.
func hasLeft(r machine.Root, dir string) bool {
	status, ended, err := readStatus(dir)
	if err != nil || !ended || !strings.HasSuffix(dir, "-"+string(JobSwitch)) {
		return false
	}
	return isThere(armedProgram(r, dir)) || leftBack(r, status) || leftAccounts(r, dir, status)
}

// leftBack tells whether the system is kept that would be rolled back to, and by no switch that needs it: one that was left stranded is
// not over for who comes next.
func leftBack(r machine.Root, status jobStatus) bool {
	return status.Outcome != agent.SwitchStranded && isThere(r.Path(backRoot)) && len(unended(r, "")) == 0
}

// leftAccounts tells whether accounts are kept for a boot which the end of the switch has made needless, or a part of that.
func leftAccounts(r machine.Root, dir string, status jobStatus) bool {
	if status.Outcome == agent.SwitchStranded || status.Outcome == agent.SwitchActivated {
		return false
	}
	b, err := readBootAccounts(r)
	if errors.Is(err, fs.ErrNotExist) {
		return accountsHalfDropped(r)
	}
	return err == nil && b.Owner == filepath.Base(dir)
}

// tidy tries once to remove what hasLeft tells of.
func tidy(r machine.Root, dir string) {
	status, ended, err := readStatus(dir)
	if err != nil || !ended {
		return
	}
	_ = os.Remove(armedProgram(r, dir))
	if leftBack(r, status) {
		_ = os.Remove(r.Path(backRoot))
	}
	if leftAccounts(r, dir, status) {
		_ = dropAccountsForBoot(r)
	}
}

// whileNobodyWorks does something while no job is at work, if none is, and without looking like one.
func whileNobodyWorks(r machine.Root, do func()) {
	file, err := openLock(r.Path(workFile))
	if err != nil {
		return
	}
	defer file.Close()
	if machine.Flock(file, syscall.LOCK_SH|syscall.LOCK_NB) == nil && machine.IsCurrent(file) {
		do()
	}
}

// isThere tells whether there is something of that name, be it a link to nothing.
func isThere(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
