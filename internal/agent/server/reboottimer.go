package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ferry/internal/agent/bootloader"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// The reboot timer of a system that is booted once and cannot be reached. It is a timer with a service in the folder that
// systemd reads first and that no NixOS manages: system.control, where systemctl set-property puts what it is to keep. It
// has been there since systemd 230, NixOS's systemd looks into it as well, and an activation, which owns /etc/systemd/system
// and removes from /etc what it has put there itself, leaves it alone.
const (
	controlFolder   = "/etc/systemd/system.control"
	rebootTimer     = "ferry-reboot-back.timer"
	rebootTimerUnit = "ferry-reboot-back.service"
	// rebootTimerWants makes the timer begin with the boot. It does not wait for what the boot waits for: a boot that ends in
	// emergency mode is one that has to be rolled back.
	rebootTimerWants = "sysinit.target.wants"
)

// rebootTimerFiles are the files of the reboot timer by name, for a limit in seconds.
func rebootTimerFiles(toplevel string, after int) map[string]string {
	head := "[Unit]\nDescription=ferry: reboot into the old system unless " + nix.StorePath(toplevel).Name() + " is committed\n" +
		"DefaultDependencies=no\nIgnoreOnIsolate=yes\nConflicts=shutdown.target\nBefore=shutdown.target\n\n"
	return map[string]string{
		rebootTimer:     head + fmt.Sprintf("[Timer]\nOnActiveSec=%d\nAccuracySec=1s\nUnit=%s\n", after, rebootTimerUnit),
		rebootTimerUnit: head + fmt.Sprintf("[Service]\nType=oneshot\nExecStart=%s/%s reboot-back\n", trialFolder, trialAgent),
	}
}

// armRebootTimer makes the reboot timer, which begins to count at the next boot. It gives the reason if there can be none: the
// trial is still one, but it takes a person to end it if the new system comes up and cannot be reached.
func armRebootTimer(r machine.Root, toplevel string, after int) (stuck string) {
	if !r.Exists(machine.SystemdRuns) {
		return "the target has no systemd"
	}
	for _, folder := range []string{controlFolder, trialFolder} {
		if r.InMemory(folder) {
			return folder + " does not outlive a reboot there"
		}
	}
	if err := writeRebootTimer(r, toplevel, after); err != nil {
		return run.Clean(err.Error())
	}
	return ""
}

func writeRebootTimer(r machine.Root, toplevel string, after int) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := r.Disk.MkdirAll(r.Path(trialFolder), 0o755); err != nil {
		return err
	}
	if err := copyProgram(program, r.Path(filepath.Join(trialFolder, trialAgent))); err != nil {
		return err
	}
	wants := r.Path(filepath.Join(controlFolder, rebootTimerWants))
	if err := r.Disk.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	for name, text := range rebootTimerFiles(toplevel, after) {
		if err := r.Disk.WriteFile(r.Path(filepath.Join(controlFolder, name)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return r.Disk.Link("../"+rebootTimer, filepath.Join(wants, rebootTimer))
}

// copyProgram makes a program be there under another name: as the same file where that can be.
func copyProgram(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// stopLimit is how long systemd may take to stop a timer.
const stopLimit = 10 * time.Second

// removeRebootTimer removes the reboot timer, and leaves the folders as they were found.
func removeRebootTimer(ctx context.Context, r machine.Root, runner *run.Runner) error {
	known := r.Exists(filepath.Join(controlFolder, rebootTimer)) && r.Exists(machine.SystemdRuns)
	if known {
		// Before its file goes, so that systemd does not miss it. In the boot that it was made in, it is not known.
		limited, stop := context.WithTimeout(ctx, stopLimit)
		_ = runner.Run(limited, run.Command{Argv: []string{"systemctl", "stop", rebootTimer}})
		stop()
	}
	var problems []error
	for _, name := range []string{rebootTimerWants + "/" + rebootTimer, rebootTimer, rebootTimerUnit} {
		if err := os.Remove(r.Path(filepath.Join(controlFolder, name))); err != nil && !errors.Is(err, os.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	// Only what is empty goes.
	_ = os.Remove(r.Path(filepath.Join(controlFolder, rebootTimerWants)))
	_ = os.Remove(r.Path(controlFolder))
	if known {
		_ = runner.Run(ctx, run.Command{Argv: []string{"systemctl", "daemon-reload"}})
	}
	return errors.Join(problems...)
}

// RunRebootTimer is what the rollback timer starts, in every boot until the trial is over: see rebootUnlessCommitted.
func RunRebootTimer(ctx context.Context) error {
	return rebootUnlessCommitted(ctx, machine.Root{}, new(run.Runner), busyLimit, time.Second)
}

// busyLimit is how long a deployment that has found the target may take with its checks before it is in time no more.
const busyLimit = 30 * time.Minute

// rebootUnlessCommitted ends a trial that ferry has not ended in time: a machine that runs the system that is tried is rebooted, once,
// and the boot loader's default, the old system, comes; where that runs, what is left of the trial is removed. It waits while
// a deployment is at work, at most for busy: that is about to commit, or to roll back by itself.
func rebootUnlessCommitted(ctx context.Context, r machine.Root, runner *run.Runner, busy, pause time.Duration) error {
	for end := time.Now().Add(busy); deploying(r) && time.Now().Before(end); {
		time.Sleep(pause)
	}
	job := Job{Kind: JobBootForget, Who: "ferry's rollback", Session: rebootTimerUnit}
	// Nobody begins or commits a trial from here on.
	work, err := lockWork(r, job, time.Now())
	if err != nil {
		return err
	}
	defer work.release()
	t, err := readTrial(r)
	switch {
	case err != nil || t == nil:
		// It was over, or has not begun, or nothing is known of it.
		return errors.Join(err, endTrial(ctx, runner, r))
	case t.BootID == r.BootID():
		// Somebody has started the timer before the reboot.
		return nil
	}
	job.Toplevel = nix.StorePath(t.New)
	w := &trier{root: r, runner: runner, job: job, log: os.Stderr, trial: *t}
	if r.StorePath("/run/booted-system") != t.New {
		return w.forget(ctx)
	}
	if t.Returning || t.isDefault(r) {
		// It has been rebooted for this trial already, or there is no old system to come back to: never twice.
		return removeRebootTimer(ctx, r, runner)
	}
	t.Returning = true
	if err := t.write(r); err != nil {
		return err
	}
	// It is rebooted whatever comes of this.
	_, late := within(ctx, job.rollbackLimit(), func(ctx context.Context) error {
		if !t.menuBoots(r, t.Old) {
			// The preparation was cut off while it wrote the menu.
			if err := w.dropGeneration(ctx); err != nil {
				w.say(err.Error())
			}
		}
		// It has forgotten already if it is as it should be.
		err := t.cancelOnce(ctx, runner, r, os.Stderr)
		if err != nil {
			w.say(err.Error())
		}
		return err
	})
	if late {
		w.say("what boots could not be put back: " + lateText(job.rollbackLimit()))
	}
	if err := accountsBeforeReboot(r); err != nil {
		w.say(err.Error())
	}
	// Nobody can be asked whether something holds the reboot off.
	limited, stop := context.WithTimeout(ctx, rebootLimit)
	defer stop()
	if err := runner.Run(limited, run.Command{Argv: []string{"systemctl", "--ignore-inhibitors", "reboot"}}); err != nil {
		return runner.Run(ctx, run.Command{Argv: []string{"systemctl", "--force", "reboot"}})
	}
	return nil
}

// deploying tells whether an agent of a deployment is there.
func deploying(r machine.Root) bool {
	file, err := openLock(r.Path(lockFile))
	if err != nil {
		return false
	}
	defer file.Close()
	free, err := machine.TryLock(file)
	return err == nil && !free
}

// isDefault tells whether the system that is tried is what boots by default: then it was committed, and only the end of that
// was not written down.
func (t *trial) isDefault(r machine.Root) bool {
	return r.StorePath(systemProfile) == t.New || t.Loader != "" && t.menuBoots(r, t.New)
}

// menuBoots tells whether a boot loader's menu has a system as its default.
func (t *trial) menuBoots(r machine.Root, toplevel string) bool {
	return slices.ContainsFunc(bootloader.Find(r), func(l bootloader.Loader) bool {
		boots, err := l.Boots()
		return err == nil && boots == toplevel && (t.Loader == "" || l.Name() == t.Loader)
	})
}
