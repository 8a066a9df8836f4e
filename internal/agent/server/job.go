package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/disk"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// The files in a job's folder.
const (
	jobFile    = "job.json" // what to do
	jobLock    = "lock"     // the job's process holds a lock on it for its whole life
	logFile    = "log"      // what it prints
	begunFile  = "begun"    // whoever makes it decides: the job's process to begin, or an agent that it never will
	statusFile = "status"   // how it ended
	// reserveFile is room for the others: a full /run must not keep a job from saying how it ended.
	reserveFile = "reserve"
)

// Job is work on a target that goes on when the connection, ferry or the agent that began it is gone: it runs in a
// transient systemd unit, writes what it prints to the file log and how it ended to the file status, both in its folder.
type Job struct {
	Kind     JobKind       `json:"kind"`
	Toplevel nix.StorePath `json:"toplevel"`
	Bundle   nix.StorePath `json:"bundle,omitempty"`
	Action   string        `json:"action"` // for switch-to-configuration
	// Failed are the units that were in the failed state before.
	Failed []string `json:"failed"`
	// Locale is LOCALE_ARCHIVE as it was around the agent.
	Locale string `json:"locale,omitempty"`
	// Who and Session say whose job it is, as the lock does.
	Who     string `json:"who"`
	Session string `json:"session"`
	// Within is agent.Request's.
	Within int `json:"within,omitempty"`
	// Limit is how long each part may take that runs a switch-to-configuration, in seconds; 0: it is not said.
	Limit int `json:"limit,omitempty"`
	// Switch says how JobSwitch is to be done, and Server over which connection it was asked for.
	Switch *agent.GuardOptions `json:"switch,omitempty"`
	Server sshConnection       `json:"server,omitzero"`
	// LoginUID is the number of the user whom ferry logs in as.
	LoginUID int `json:"login_uid"`
	// Record is for the journal.
	Record agent.Record `json:"record,omitzero"`

	// unchecked leaves the system's own checks before a switch out: they must not hinder a rollback, and are asked once.
	unchecked bool
	// patience is how long another switch-to-configuration is waited for; still, when set, is asked before each try whether this
	// is still to be done, and gives the reason if not.
	patience time.Duration
	still    func() string
}

// JobKind is what a job does.
type JobKind string

// The kinds of jobs.
const (
	JobActivate JobKind = "activate"
	JobCommit   JobKind = "commit"
	// JobBootOnce reboots into a system that is tried, JobBootForget removes what is left of that, JobReboot reboots.
	JobBootOnce   JobKind = "boot-once"
	JobBootForget JobKind = "boot-forget"
	JobReboot     JobKind = "reboot"
	// JobSwitch activates, and stays only if that is confirmed: see guard.
	JobSwitch JobKind = "switch"
)

// jobStatus is how a job ended.
type jobStatus struct {
	Status     int    `json:"status"`               // of switch-to-configuration; -1: see Error
	Error      string `json:"error,omitempty"`      // what failed besides it
	Generation int    `json:"generation,omitempty"` // after a commit
	// Refused says why switch-to-configuration has refused, before it changed anything, if that is known; Began that it had begun
	// to change what runs.
	Refused string `json:"refused,omitempty"`
	Began   bool   `json:"began,omitempty"`

	// Unclean is agent.BootOnceResult's and agent.CommitResult's.
	Unclean bool `json:"unclean,omitempty"`

	// Of JobSwitch, as agent.SwitchResult has them.
	Outcome agent.SwitchOutcome `json:"outcome,omitempty"`
	Reason  string              `json:"reason,omitempty"`
	From    agent.Phase         `json:"from,omitempty"`
	Trouble string              `json:"trouble,omitempty"`
	Failed  []string            `json:"failed,omitempty"`
	// UserUnits is agent.SwitchResult's.
	UserUnits []string `json:"user_units,omitempty"`
}

// jobName is what ferry may call a job: it becomes a folder's and a unit's name.
var jobName = regexp.MustCompile(`^[a-z0-9]{8,64}$`)

// errNeverBegan says that a job that was asked for has not begun, and never will.
var errNeverBegan = errors.New("it was not started")

// runJob starts the job called name, or finds it where it was started before the connection was lost, passes its log on
// from the byte offset, and gives its folder and its end. A job that was found replaces what job says.
func (s *server) runJob(ctx context.Context, name string, job *Job, offset int64) (string, jobStatus, error) {
	if !jobName.MatchString(name) {
		return "", jobStatus{}, fmt.Errorf("job name %q is not allowed", name)
	}
	if offset < 0 {
		return "", jobStatus{}, fmt.Errorf("offset %d in a log is not allowed", offset)
	}
	dir := s.root().Path(filepath.Join(machine.RunFolder, name+"-"+string(job.Kind)))
	found, err := readJob(dir)
	fresh := errors.Is(err, os.ErrNotExist)
	switch {
	case err == nil:
		*job = found
	case !fresh:
		return dir, jobStatus{}, err
	default:
		if err := s.startJob(ctx, dir, *job); err != nil {
			return dir, jobStatus{}, err
		}
	}
	var w *watch
	if job.Kind == JobCommit && s.root().Exists(machine.SystemdRuns) {
		w = startedAgain(dir)
	}
	status, err := s.follow(ctx, dir, offset, w)
	if errors.Is(err, errNeverBegan) && !fresh {
		// The agent that wrote the job down was gone before it could start it.
		if err = os.RemoveAll(dir); err == nil {
			err = s.startJob(ctx, dir, *job)
		}
		if err == nil {
			status, err = s.follow(ctx, dir, offset, w)
		}
	}
	if errors.Is(err, errNeverBegan) {
		_ = os.RemoveAll(dir)
		err = fmt.Errorf("start the %s: it did not begin within %v", job.Kind, beginGrace)
	}
	return dir, status, err
}

func (s *server) startJob(ctx context.Context, dir string, job Job) error {
	text, err := json.Marshal(job)
	if err == nil {
		err = makeJobFolder(dir)
	}
	for name, content := range map[string][]byte{jobLock: nil, logFile: nil, reserveFile: make([]byte, reserveSize)} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
	}
	if err == nil {
		publish(dir, job, "", 0)
	}
	if err == nil {
		err = writeFile(filepath.Join(dir, jobFile), text)
	}
	if err != nil {
		return fmt.Errorf("start the %s: %w", job.Kind, err)
	}
	if s.root().Exists(machine.SystemdRuns) {
		err = s.runner.Run(ctx, run.Command{Argv: unitCommand(dir, job, s.opts.Program)})
	} else {
		// Nothing that ends the agent ends it.
		_, err = run.Detach([]string{s.opts.Program, "job", dir})
	}
	// systemd may have started it all the same: that is over only when it can be kept from beginning.
	if err != nil && claim(dir) {
		_ = os.RemoveAll(dir)
		return fmt.Errorf("start the %s: %w", job.Kind, err)
	}
	return nil
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// claim makes begunFile, which only one can.
func claim(dir string) bool {
	file, err := os.OpenFile(filepath.Join(dir, begunFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	_ = file.Close()
	return true
}

func readJob(dir string) (job Job, err error) {
	text, err := os.ReadFile(filepath.Join(dir, jobFile))
	if err != nil {
		return Job{}, err
	}
	if err := json.Unmarshal(text, &job); err != nil {
		return Job{}, fmt.Errorf("%s: %w", filepath.Join(dir, jobFile), err)
	}
	return job, nil
}

// unitCommand starts a job in a transient service. Only options that every systemd of a NixOS since 17.03 (232) has; the
// job always ends with status 0, so that no failed unit is left.
func unitCommand(dir string, job Job, program string) []string {
	argv := []string{
		"systemd-run", "--quiet", "--no-ask-password",
		"--unit=ferry-" + filepath.Base(dir),
		"--description=ferry: " + string(job.Kind) + " " + job.Toplevel.Name(),
		"--property=KillMode=process",
	}
	if job.Kind == JobCommit {
		argv = append(argv, startAgain)
	}
	return append(argv, "--", program, "job", dir)
}

// RunJob is the job's own process: it does what job.json in dir says. An error is one of the job's folder; what goes wrong
// with the work itself is in the status file. The end of ctx ends nothing but waiting.
func RunJob(ctx context.Context, dir string) error { return runJobIn(ctx, machine.Root{}, dir) }

func runJobIn(ctx context.Context, r machine.Root, dir string) error {
	if err := workOn(ctx, r, dir); err != nil {
		return err
	}
	tidyAfter(ctx, r, dir)
	return nil
}

// workOn does the job in dir. Nobody waits for what its process does after that.
func workOn(ctx context.Context, r machine.Root, dir string) error {
	leave := ctx.Done()
	ctx = context.WithoutCancel(ctx)
	file, err := openJobLock(dir)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	begins := claim(dir)
	job, err := readJob(dir)
	if err != nil {
		return err
	}
	if !begins && !(job.Kind == JobCommit && cutOff(dir)) {
		return nil
	}
	log, err := os.OpenFile(filepath.Join(dir, logFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	work, err := lockWork(r, job, time.Now())
	if err != nil {
		return err
	}
	defer func() { work.release() }()
	if err := settleBefore(ctx, r, dir, job, log); err != nil {
		return endJob(dir, jobStatus{Status: -1, Error: run.Clean(err.Error()), Outcome: agent.SwitchRefused, Reason: run.Clean(err.Error())})
	}
	var status jobStatus
	switch job.Kind {
	case JobActivate:
		status = switchWithin(ctx, job.limit(), r, job, job.Action, log)
	case JobCommit:
		if begins {
			status = commitAlone(ctx, r, dir, job, log)
		} else {
			status = undoCutOff(ctx, r, dir, job, log)
		}
	case JobBootOnce:
		status = bootOnceJob(ctx, r, job, log)
	case JobBootForget:
		status = bootForgetJob(ctx, r, job, log)
	case JobReboot:
		status = rebootJob(ctx, r, log)
	case JobSwitch:
		g, err := newGuard(r, dir, job, log)
		if err != nil {
			return err
		}
		g.leave, g.work = leave, work
		defer g.unlock()
		if status = g.run(ctx); g.left {
			return nil
		}
	default:
		status = jobStatus{Status: -1, Error: fmt.Sprintf("unknown job %q", job.Kind)}
	}
	if err := endJob(dir, status); err != nil {
		return err
	}
	_ = os.Remove(armedProgram(r, dir))
	return nil
}

// settleBefore settles what is in the way of a job, if the job changes anything.
func settleBefore(ctx context.Context, r machine.Root, dir string, job Job, log io.Writer) error {
	if job.Kind == JobActivate {
		return nil
	}
	return settleJobs(ctx, r, dir, log)
}

// endJob writes down how a job has ended.
func endJob(dir string, status jobStatus) error {
	text, err := json.Marshal(status)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, statusFile), text)
}

// reserveSize is enough for state and status, each in its old form and the new one, in bytes.
const reserveSize = 64 << 10

// writeFile writes a file for root so that it is there whole or not at all. Where there is no room for it, it takes that of the
// reserveFile beside it.
func writeFile(name string, text []byte) error {
	err := writeWhole(name, text, 0o600)
	if errors.Is(err, syscall.ENOSPC) && os.Remove(filepath.Join(filepath.Dir(name), reserveFile)) == nil {
		return writeWhole(name, text, 0o600)
	}
	return err
}

func writeWhole(name string, text []byte, mode os.FileMode) error {
	// In /run there is nothing to be synced.
	return disk.WriteWhole(name, text, mode)
}

// keepJobs is how long the folder of a job that has ended is kept, for people to read the log in.
const keepJobs = 7 * 24 * time.Hour

// removeOldJobs removes the folders of jobs that ended long ago.
func removeOldJobs(r machine.Root, now time.Time) {
	folders, err := filepath.Glob(r.Path(machine.RunFolder) + "/*-*/" + statusFile)
	if err != nil {
		return
	}
	for _, status := range folders {
		if info, err := os.Stat(status); err == nil && now.Sub(info.ModTime()) > keepJobs {
			_ = os.RemoveAll(filepath.Dir(status))
		}
	}
}
