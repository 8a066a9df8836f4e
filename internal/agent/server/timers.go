package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// timers arms and disarms the rollback timer. Without systemd there is none, and only the guard itself rolls back. What is armed starts
// a program of its own, which no other version of ferry removes.
type timers struct {
	root    machine.Root
	runner  *run.Runner
	systemd bool
	dir     string
	job     Job

	mu    sync.Mutex
	armed []string // units
}

// errNoSystemd says that no timer can be armed.
var errNoSystemd = errors.New("PID 1 is not systemd, and nothing else could roll back if this process is killed")

// name is the timer's unit, without suffix.
func (t *timers) name(suffix string) string { return "ferry-rollback-" + switchName(t.dir) + suffix }

// switchName is what a switch is called, by its folder.
func switchName(dir string) string {
	return strings.TrimSuffix(filepath.Base(dir), "-"+string(JobSwitch))
}

// armedAgent is the beginning of the names of the agents that are armed: see [armedProgram].
const armedAgent = "armed-"

// armedProgram is the agent that the timers of the switch in dir start. It is no agent-HASH: those of other versions are removed.
func armedProgram(r machine.Root, dir string) string {
	return r.Path(filepath.Join(agent.Folder, armedAgent+switchName(dir)))
}

// keepProgram makes the program be there that the timers start.
func (t *timers) keepProgram() error {
	to := armedProgram(t.root, t.dir)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := copyProgram(program, to); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Its file has been removed, and is there as long as it runs.
	return copyProgram("/proc/self/exe", to)
}

// dropProgram removes the program when nothing is left that may start it.
func (t *timers) dropProgram() { _ = os.Remove(armedProgram(t.root, t.dir)) }

// assume takes over what a guard that is gone may have armed.
func (t *timers) assume(tries int) {
	names := []string{t.name(""), t.name(unconfirmed)}
	for n := max(1, tries-1); n <= tries+1; n++ {
		names = append(names, t.name(againSuffix(n)))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		t.armed = append(t.armed, name+".timer")
	}
}

// unconfirmed is the suffix of the timer of a system that waits to be confirmed.
const unconfirmed = "-unconfirmed"

// againSuffix is the suffix of the timer of a target that has failed to roll back so often.
func againSuffix(tries int) string { return "-again-" + strconv.Itoa(tries) }

// startAgain is a property of the units that succeed a guard, and of those that commit without one: nobody is left to succeed them,
// when they are killed.
const startAgain = "--property=Restart=on-abnormal"

// arm starts a timer that rolls back after that long.
func (t *timers) arm(ctx context.Context, suffix string, after time.Duration) error {
	if !t.systemd {
		return errNoSystemd
	}
	if err := t.keepProgram(); err != nil {
		return err
	}
	name := t.name(suffix)
	// Only what every systemd since 232 has.
	err := t.runner.Run(ctx, run.Command{Argv: []string{
		"systemd-run", "--quiet", "--no-ask-password", "--unit=" + name,
		"--description=ferry: roll back to the system before " + t.job.Toplevel.Name() + ", unless it is confirmed",
		fmt.Sprintf("--on-active=%ds", int(after.Seconds())), "--timer-property=AccuracySec=1s", "--timer-property=RemainAfterElapse=no",
		"--property=KillMode=process", startAgain,
		"--", armedProgram(t.root, t.dir), "rollback", t.dir,
	}})
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = append(t.armed, name+".timer")
	return nil
}

// rearm replaces the timer by one that rolls back after that long; at no moment is there none.
func (t *timers) rearm(ctx context.Context, suffix string, after time.Duration) error {
	if !t.systemd {
		return nil
	}
	t.mu.Lock()
	old := slices.Clone(t.armed)
	t.mu.Unlock()
	if err := t.arm(ctx, suffix, after); err != nil {
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
