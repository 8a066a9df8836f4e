package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// janitor is the outer process's side of the process that cleans up after the run.
type janitor struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// startJanitor starts the janitor of the run in scratch. The caller must call finish; if the caller dies instead, that
// has the same effect.
func startJanitor(scratch string) (*janitor, error) {
	cmd := stageCommand(stageJanitor, scratch)
	cmd.Stderr = os.Stderr
	// A session of its own keeps away the signals that a terminal or a test runner sends to a whole process group; a
	// mount namespace of its own lets it mount binfmt_misc where the host has not.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start janitor: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start janitor: %w", err)
	}
	return &janitor{cmd, pipe}, nil
}

// watch tells the janitor which process must be gone before it cleans.
func (j *janitor) watch(pid int) error {
	if _, err := fmt.Fprintln(j.pipe, pid); err != nil {
		return fmt.Errorf("tell janitor: %w", err)
	}
	return nil
}

// finish makes the janitor clean and waits until it has.
func (j *janitor) finish() error {
	err := errors.Join(j.pipe.Close(), j.cmd.Wait())
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// janitorStage waits until its outer process ends or says finish, and then removes what the run's namespaces leave.
func janitorStage(outer io.Reader) error {
	signal.Ignore(forwarded...)
	r := run{scratch: os.Getenv(envScratch)}
	var pids []int
	lines := bufio.NewScanner(outer)
	for lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			return fmt.Errorf("clean up: %w", err)
		}
		pids = append(pids, pid)
	}
	var errs []error
	for _, pid := range pids {
		errs = append(errs, waitGone(pid))
	}
	errs = append(errs, r.unregisterAarch64(), r.removeCgroups(), r.removeScratch())
	return errors.Join(errs...)
}

// processLimit is how long a process may take to begin or to end: what a host with many machines on it needs for that.
const processLimit = 2 * time.Minute

// waitGone waits until a process that has been told to die, or was killed with its parent, has ended.
func waitGone(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(processLimit)
	for time.Now().Before(deadline) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch process %d: %w", pid, err)
		}
	}
	return fmt.Errorf("process %d still runs", pid)
}

// removeScratch removes the run's folder unless something is mounted there, which would be emptied with it.
func (r run) removeScratch() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), " "+r.scratch+"/") {
		return fmt.Errorf("%s is left: something is mounted there", r.scratch)
	}
	return os.RemoveAll(r.scratch)
}
