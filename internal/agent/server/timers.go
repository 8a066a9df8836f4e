package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ferry/internal/run"
)

// timers arms and disarms the way back. Without systemd there is none, and only the guard itself goes back.
type timers struct {
	runner  *run.Runner
	systemd bool
	program string
	dir     string
	job     Job

	mu    sync.Mutex
	armed []string // units
}

// errNoSystemd says that no timer can be armed.
var errNoSystemd = errors.New("PID 1 is not systemd, and nothing else could go back if this process is killed")

// name is the timer's unit, without suffix.
func (t *timers) name(suffix string) string {
	return "ferry-rollback-" + strings.TrimSuffix(filepath.Base(t.dir), "-"+string(JobSwitch)) + suffix
}

// startAgain is a property of the units that succeed a guard: nobody is left to succeed them, when they are killed.
const startAgain = "--property=Restart=on-abnormal"

// arm starts a timer that goes back after that long.
func (t *timers) arm(ctx context.Context, suffix string, after time.Duration) error {
	if !t.systemd {
		return errNoSystemd
	}
	name := t.name(suffix)
	// Only what every systemd since 232 has.
	err := t.runner.Run(ctx, run.Command{Argv: []string{
		"systemd-run", "--quiet", "--no-ask-password", "--unit=" + name,
		"--description=ferry: go back to what ran before " + t.job.Toplevel.Name() + ", unless it is confirmed",
		fmt.Sprintf("--on-active=%ds", int(after.Seconds())), "--timer-property=AccuracySec=1s", "--timer-property=RemainAfterElapse=no",
		"--property=KillMode=process", startAgain,
		"--", t.program, "rollback", t.dir,
	}})
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = append(t.armed, name+".timer")
	return nil
}

// rearm replaces the timer by one that goes back after that long; at no moment is there none.
func (t *timers) rearm(ctx context.Context, after time.Duration) error {
	if !t.systemd {
		return nil
	}
	t.mu.Lock()
	old := slices.Clone(t.armed)
	t.mu.Unlock()
	if err := t.arm(ctx, "-unconfirmed", after); err != nil {
		return err
	}
	return t.stop(ctx, old)
}

// disarm stops all of them.
func (t *timers) disarm(ctx context.Context) error {
	t.mu.Lock()
	all := slices.Clone(t.armed)
	t.mu.Unlock()
	return t.stop(ctx, all)
}

func (t *timers) stop(ctx context.Context, units []string) error {
	if len(units) == 0 {
		return nil
	}
	err := t.runner.Run(ctx, run.Command{Argv: append([]string{"systemctl", "stop", "--"}, units...)})
	var failed *run.Error
	// 5: one of them was not there any more; the others are stopped all the same.
	if err != nil && !(errors.As(err, &failed) && failed.Status == 5) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = slices.DeleteFunc(t.armed, func(unit string) bool { return slices.Contains(units, unit) })
	return nil
}
