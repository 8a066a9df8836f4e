package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/bootloader"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/units"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// What a trial consists of. All of it survives a reboot, and is gone when the trial is over.
const (
	trialFolder = agent.Folder + "/reboot"
	trialFile   = "trial.json"
	// trialAgent is the agent that the reboot timer is made with. It is no agent-HASH: those of other versions are removed.
	trialAgent = "agent"
)

// trial is a system that is booted once, while the default stays another one. It is written down before anything is done,
// so that whatever is left of it can be undone.
type trial struct {
	Old string `json:"old"` // the toplevel that is booted by default
	New string `json:"new"` // the toplevel that is booted once
	// Generation is the number of the system profile's generation that the boot loader needs for the new one's entry, and
	// Made that there was none before.
	Generation int  `json:"generation"`
	Made       bool `json:"made"`
	// Loader and Entry are what was asked to boot it; empty until it is.
	Loader string `json:"loader,omitempty"`
	Entry  string `json:"entry,omitempty"`
	// Failed are the units that were in the failed state in the old one.
	Failed []string `json:"failed,omitempty"`
	// BootID is the boot in which it was asked for: the trial is another one.
	BootID string `json:"boot_id"`
	// Returning says that the trial has gone wrong and the machine was told to reboot: it is told so once.
	Returning bool `json:"returning,omitempty"`
}

// readTrial gives what is being tried; nil: nothing.
func readTrial(r machine.Root) (*trial, error) {
	name := r.Path(filepath.Join(trialFolder, trialFile))
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := new(trial)
	if err := json.Unmarshal(text, t); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

// write writes t down so that it is on the disk, whole.
func (t *trial) write(r machine.Root) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	folder := r.Path(trialFolder)
	if err := r.Disk.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return r.Disk.WriteFile(filepath.Join(folder, trialFile), text, 0o644)
}

func (s *server) bootOnce(ctx context.Context, r agent.Request) (*agent.BootOnceResult, error) {
	kind := JobBootOnce
	if r.Action == "forget" {
		kind = JobBootForget
	}
	job := s.newJob(kind, r)
	job.Within = r.Within
	job.Limit = r.ActivationLimit
	job.Failed = s.failedBefore()
	dir, status, err := s.runJob(ctx, r.Job, &job, r.Offset)
	if err != nil {
		return nil, err
	}
	return &agent.BootOnceResult{Status: status.Status, Error: status.Error, Unclean: status.Unclean, Log: filepath.Join(dir, logFile)}, nil
}

// reboot begins a reboot, which may take the connection away before the answer is there.
func (s *server) reboot(ctx context.Context, r agent.Request) error {
	job := s.newJob(JobReboot, r)
	_, status, err := s.runJob(ctx, r.Job, &job, 0)
	if err == nil && status.Status != 0 {
		err = errors.New(cmp.Or(status.Error, fmt.Sprintf("the target could not be rebooted: exit status %d", status.Status)))
	}
	return err
}

// bootPause is the time between two looks at a boot.
const bootPause = 100 * time.Millisecond

// booted waits for the end of the boot, which units that fail late are a part of. systemctl has --wait for that since 240.
func (s *server) booted(ctx context.Context, r agent.Request) (*agent.BootedResult, error) {
	result := new(agent.BootedResult)
	for end := time.Now().Add(seconds(r.Within)); ; {
		// Its status says whether all is well.
		out, err := s.runner.Output(ctx, run.Command{Argv: []string{"systemctl", "is-system-running"}})
		if run.NotFound(err) {
			return nil, err
		}
		switch strings.TrimSpace(string(out)) {
		case "initializing", "starting", "":
		default:
			result.Finished = true
		}
		if result.Finished || time.Now().After(end) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(bootPause):
		}
	}
	result.Failed = units.System(s.runner, s.root()).TroubledAfter(ctx, 0, nil)
	if t, err := readTrial(s.root()); err == nil && t != nil && s.root().StorePath("/run/booted-system") == t.New {
		result.Before = t.Failed
	}
	return result, nil
}

// rebootLimit is how long systemd may take to say that it reboots.
const rebootLimit = time.Minute

// rebootJob tells the machine to reboot. Someone who holds a reboot off is not overruled.
func rebootJob(ctx context.Context, r machine.Root, log *os.File) jobStatus {
	argv := []string{"reboot"}
	if r.Exists(machine.SystemdRuns) {
		argv = []string{"systemctl", "reboot"}
	}
	limited, stop := context.WithTimeout(ctx, rebootLimit)
	defer stop()
	if err := new(run.Runner).Run(limited, run.Command{Argv: argv, Out: log, Err: log}); err != nil {
		return jobStatus{Status: -1, Error: run.Clean(err.Error())}
	}
	return jobStatus{}
}

// bootOnceJob reboots into the new system, which the boot loader boots once. NixOS's menus are made of the system profile's
// generations, and their default is what switch-to-configuration is called from: the old system is, after the new one has
// got a generation that the profile does not stand for. What fails is undone, and nothing waits for anybody in between.
func bootOnceJob(ctx context.Context, r machine.Root, job Job, log *os.File) jobStatus {
	w := &trier{root: r, runner: new(run.Runner), job: job, log: log}
	var status jobStatus
	err, late := within(ctx, job.limit(), func(ctx context.Context) (err error) {
		status, err = w.prepare(ctx)
		return err
	})
	if late && err != nil {
		status, err = jobStatus{}, errors.New(lateText(job.limit()))
	}
	if err == nil {
		if reboot := rebootJob(ctx, r, log); reboot.Status != 0 {
			err = errors.New(reboot.Error)
		}
	}
	if err == nil {
		return jobStatus{}
	}
	ended := jobStatus{Status: max(status.Status, 1), Error: run.Clean(err.Error())}
	if w.begun {
		if problem := w.forget(ctx); problem != nil {
			ended.Error, ended.Unclean = joined(ended.Error, run.Clean(problem.Error())), true
		}
	}
	return ended
}

// bootForgetJob undoes what is left of a trial.
func bootForgetJob(ctx context.Context, r machine.Root, job Job, log *os.File) jobStatus {
	w := &trier{root: r, runner: new(run.Runner), job: job, log: log}
	if err := w.forget(ctx); err != nil {
		return jobStatus{Status: 1, Error: run.Clean(err.Error()), Unclean: true}
	}
	return jobStatus{}
}

// trier begins and undoes a trial.
type trier struct {
	root   machine.Root
	runner *run.Runner
	job    Job
	log    *os.File
	trial  trial
	begun  bool // there may be something to undo
}

func (w *trier) prepare(ctx context.Context) (jobStatus, error) {
	before := readProfile(w.root)
	switch {
	case before.toplevel == "" || before.generation == 0:
		return jobStatus{}, errors.New("the system profile is no generation, so there is nothing that could stay the default")
	case before.toplevel == string(w.job.Toplevel):
		return jobStatus{}, errors.New("it is what boots by default already")
	case w.job.Within <= 0:
		return jobStatus{}, errors.New("it is not said when to roll back")
	}
	if old, err := readTrial(w.root); err != nil || old != nil {
		if err := w.forget(ctx); err != nil {
			return jobStatus{}, err
		}
	}
	w.trial = trial{Old: before.toplevel, New: string(w.job.Toplevel), Failed: w.job.Failed, BootID: w.root.BootID()}
	w.begun = true
	// First, so that it tidies up after a power cut at any moment.
	if stuck := armRebootTimer(w.root, w.trial.New, w.job.Within); stuck != "" {
		w.say("if the new system comes up and cannot be reached, only a power cycle brings the old one back: " + stuck)
	}
	if problem := keepAccountsOfTrial(w.root, w.trial); problem != "" {
		w.say(problem)
	}
	if err := w.addGeneration(); err != nil {
		return jobStatus{}, err
	}
	if status := w.writeMenu(ctx); status.Status != 0 {
		return status, errors.New(cmp.Or(status.Error, fmt.Sprintf("the boot loader could not be written: exit status %d", status.Status)))
	}
	loader, entry, err := w.find()
	if err != nil {
		return jobStatus{}, err
	}
	w.trial.Loader, w.trial.Entry = loader.Name(), entry
	if err := w.trial.write(w.root); err != nil {
		return jobStatus{}, err
	}
	// The menu, the kernels and the reboot timer are on the disks.
	if err := loader.Once(ctx, w.runner, entry, w.log); err != nil {
		return jobStatus{}, err
	}
	if err := toDisk(ctx, w.root); err != nil {
		return jobStatus{}, err
	}
	w.say(fmt.Sprintf("%s boots %q once", loader.Name(), entry))
	return jobStatus{}, nil
}

// say writes a line into the log, where followers see it.
func (w *trier) say(text string) { _, _ = fmt.Fprintln(w.log, "ferry: "+run.Clean(text)) }

// writeMenu lets the system that is the default write the boot loader, with itself as the default.
func (w *trier) writeMenu(ctx context.Context) jobStatus {
	job := w.job
	// Its own checks are for those who switch to it.
	job.Toplevel, job.unchecked, job.patience = nix.StorePath(w.trial.Old), true, job.limit()
	return installBoot(ctx, w.root, job, w.log)
}

// addGeneration gives the new system a generation, and both a GC root. The profile is not touched: nix-env would let it
// stand for the new system for a moment, and so, after a power cut in it, for good.
func (w *trier) addGeneration() error {
	number, found := lastGeneration(w.root)
	if found != w.trial.New {
		number, w.trial.Made = number+1, true
	}
	w.trial.Generation = number
	if err := w.trial.write(w.root); err != nil {
		return err
	}
	for name, toplevel := range map[string]string{"reboot-old": w.trial.Old, "reboot-new": w.trial.New} {
		if err := w.root.Keep(name, toplevel); err != nil {
			return err
		}
	}
	if !w.trial.Made {
		return nil
	}
	if err := os.Symlink(w.trial.New, w.root.Path(generationPath(number))); err != nil {
		return fmt.Errorf("make generation %d: %w", number, err)
	}
	return w.root.Disk.SyncFolder(w.root.Path(profiles))
}

// lastGeneration is the highest number of a generation of the system profile, and its toplevel.
func lastGeneration(r machine.Root) (number int, toplevel string) {
	// The pattern is well formed.
	links, _ := filepath.Glob(r.Path(systemProfile + "-*-link"))
	for _, link := range links {
		if m := generationLink.FindStringSubmatch(filepath.Base(link)); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil && n > number {
				number = n
			}
		}
	}
	return number, r.StorePath(generationPath(number))
}

// find finds the boot loader whose menu has just been written: it boots the old system by default, and has an entry for the
// new one. A menu that is limited to one system would have only the new one.
func (w *trier) find() (bootloader.Loader, string, error) {
	problem := errors.New("there is no boot loader that can boot a system once")
	for _, l := range bootloader.Find(w.root) {
		entry, err := l.Entry(w.trial.New)
		if err == nil {
			var boots string
			if boots, err = l.Boots(); err == nil && boots != w.trial.Old {
				err = fmt.Errorf("%s boots %s by default, and not what the system profile stands for", l.Name(), cmp.Or(boots, "something else"))
			}
		}
		if err == nil {
			return l, entry, nil
		}
		problem = err
	}
	return nil, "", problem
}

// forget undoes a trial, as far as it had come, within a limit of its own. It is for the old system, or before a reboot.
func (w *trier) forget(ctx context.Context) error {
	// A boot loader that hangs must not go on while another one is written.
	endStragglers()
	err, late := within(ctx, w.job.rollbackLimit(), w.undo)
	if late && err != nil {
		err = fmt.Errorf("what boots could not be put back: %s", lateText(w.job.rollbackLimit()))
	}
	return err
}

func (w *trier) undo(ctx context.Context) error {
	found, err := readTrial(w.root)
	if err != nil {
		// What cannot be read is not known to have done anything; what is left of it is removed.
		w.say(err.Error())
		return endTrial(ctx, w.runner, w.root)
	}
	if found == nil {
		return endTrial(ctx, w.runner, w.root)
	}
	w.trial = *found
	var problems []error
	if err := w.trial.cancelOnce(ctx, w.runner, w.root, w.log); err != nil {
		problems = append(problems, err)
	}
	if err := w.undoProfile(ctx); err != nil {
		problems = append(problems, err)
	}
	if err := w.dropGeneration(ctx); err != nil {
		problems = append(problems, err)
	}
	// What remembers the trial goes last: a boot loader that was cut off before it forgot would boot the new system once more.
	problems = append(problems, toDisk(ctx, w.root), endTrial(ctx, w.runner, w.root))
	return errors.Join(problems...)
}

// undoProfile lets the system profile stand for the old system again where a commit of the new one was broken off, by a power
// cut, between the profile and the boot loader: the old one boots and runs.
func (w *trier) undoProfile(ctx context.Context) error {
	t := w.trial
	if readProfile(w.root).toplevel != t.New || w.root.StorePath("/run/booted-system") == t.New || !t.menuBoots(w.root, t.Old) {
		return nil
	}
	number := generationOf(w.root, t.Old)
	if number == 0 {
		return errors.Join(setProfile(ctx, w.runner, w.root, t.Old, w.log), profileToDisk(w.root))
	}
	err := w.runner.Run(ctx, run.Command{
		Argv: []string{"nix-env", "-p", w.root.Path(systemProfile), "--switch-generation", strconv.Itoa(number)}, Out: w.log, Err: w.log,
	})
	if err = errors.Join(err, profileToDisk(w.root)); err != nil {
		return fmt.Errorf("the system profile could not be put back: %w", err)
	}
	return nil
}

// dropGeneration removes the generation that was made for the new system, and lets the old one write the menu without it,
// unless the profile stands for something else meanwhile.
func (w *trier) dropGeneration(ctx context.Context) error {
	link := generationPath(w.trial.Generation)
	before := readProfile(w.root)
	if !w.trial.Made || before.generation == w.trial.Generation || w.root.StorePath(link) != w.trial.New {
		return nil
	}
	if err := errors.Join(os.Remove(w.root.Path(link)), w.root.Disk.SyncFolder(w.root.Path(profiles))); err != nil {
		return err
	}
	if before.toplevel != w.trial.Old {
		return nil
	}
	if status := w.writeMenu(ctx); status.Status != 0 {
		return fmt.Errorf("the boot loader could not be put back: exit status %d %s", status.Status, status.Error)
	}
	return nil
}

// cancelOnce makes the boot loader forget the entry that it was told to boot once.
func (t *trial) cancelOnce(ctx context.Context, runner *run.Runner, r machine.Root, log *os.File) error {
	for _, l := range bootloader.All(r) {
		if l.Name() == t.Loader {
			if err := l.Once(ctx, runner, "", log); err != nil {
				return fmt.Errorf("the boot loader could not be told to forget %q: %w", t.Entry, err)
			}
		}
	}
	return nil
}

// endTrial removes what a trial consists of, the reboot timer first.
func endTrial(ctx context.Context, runner *run.Runner, r machine.Root) error {
	err := errors.Join(removeRebootTimer(ctx, r, runner), endAccountsOfTrial(r),
		r.Release("reboot-old"), r.Release("reboot-new"), os.RemoveAll(r.Path(trialFolder)))
	// A trial that comes again with the next boot would be in the way of that.
	for _, folder := range []string{machine.GCRoots, agent.Folder} {
		err = errors.Join(err, r.Disk.SyncFolder(r.Path(folder)))
	}
	return err
}

// committing tells whether a system may be committed: not one that is tried and has been given up.
func committing(r machine.Root, toplevel string) error {
	t, err := readTrial(r)
	if err == nil && t != nil && t.New == toplevel && t.Returning {
		return errors.New("it was not committed in time, and the target is rolling back to the old system")
	}
	return nil
}

// committed ends the trial of a system that has become the default.
func committed(ctx context.Context, runner *run.Runner, r machine.Root, toplevel string) error {
	t, err := readTrial(r)
	if err != nil || t == nil || t.New != toplevel {
		return err
	}
	return endTrial(ctx, runner, r)
}
