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
	"strings"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// jobsFolder holds a folder for each job. A reboot empties it, and a job does not survive one.
const jobsFolder = "/run/ferry"

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
}

// JobKind is what a job does.
type JobKind string

// The kinds of jobs.
const (
	JobActivate JobKind = "activate"
	JobCommit   JobKind = "commit"
)

// jobStatus is how a job ended.
type jobStatus struct {
	Status     int    `json:"status"`               // of switch-to-configuration; -1: see Error
	Error      string `json:"error,omitempty"`      // what failed besides it
	Generation int    `json:"generation,omitempty"` // after a commit
}

// jobName is what ferry may call a job: it becomes a folder's and a unit's name.
var jobName = regexp.MustCompile(`^[a-z0-9]{8,64}$`)

// runJob starts the job called name, or finds it where it was started before the connection was lost, passes its log on
// from the byte offset, and gives its end.
func (s *server) runJob(ctx context.Context, name string, job Job, offset int64) (string, jobStatus, error) {
	if !jobName.MatchString(name) {
		return "", jobStatus{}, fmt.Errorf("job name %q is not allowed", name)
	}
	dir := filepath.Join(jobsFolder, name+"-"+string(job.Kind))
	if !exists(filepath.Join(dir, "job.json")) {
		if err := s.startJob(ctx, dir, job); err != nil {
			return dir, jobStatus{}, err
		}
	}
	status, err := s.follow(ctx, dir, offset)
	return dir, status, err
}

func (s *server) startJob(ctx context.Context, dir string, job Job) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("start the %s: %w", job.Kind, err)
	}
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "log"), nil, 0o644); err != nil {
		return fmt.Errorf("start the %s: %w", job.Kind, err)
	}
	if err := writeFile(filepath.Join(dir, "job.json"), text); err != nil {
		return fmt.Errorf("start the %s: %w", job.Kind, err)
	}
	if exists("/run/systemd/system") {
		err = s.runner.Run(ctx, run.Command{Argv: unitCommand(dir, job, s.opts.Program)})
	} else {
		err = startDetached(s.opts.Program, dir)
	}
	if err != nil {
		_ = os.Remove(filepath.Join(dir, "job.json"))
		return fmt.Errorf("start the %s: %w", job.Kind, err)
	}
	return nil
}

// unitCommand starts a job in a transient service. Only options that every systemd of a NixOS since 17.03 (232) has; the
// job always ends with status 0, so that no failed unit is left.
func unitCommand(dir string, job Job, program string) []string {
	return []string{
		"systemd-run", "--quiet", "--no-ask-password",
		"--unit=ferry-" + filepath.Base(dir),
		"--description=ferry: " + string(job.Kind) + " " + job.Toplevel.Name(),
		"--property=KillMode=process",
		"--", program, "job", dir,
	}
}

// startDetached starts a job where there is no systemd: in a session of its own, so that nothing that ends the agent ends it.
func startDetached(program, dir string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(program, []string{program, "job", dir}, &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	go func() { _, _ = p.Wait() }()
	return nil
}

// follow passes the log on until the job has ended.
func (s *server) follow(ctx context.Context, dir string, offset int64) (jobStatus, error) {
	log, err := os.Open(filepath.Join(dir, "log"))
	if err != nil {
		return jobStatus{}, err
	}
	defer log.Close()
	if _, err := log.Seek(offset, io.SeekStart); err != nil {
		return jobStatus{}, err
	}
	buffer := make([]byte, 32<<10)
	lastCheck := time.Now()
	for {
		status, ended, err := readStatus(dir)
		if err != nil {
			return jobStatus{}, err
		}
		for {
			n, _ := log.Read(buffer)
			if n == 0 {
				break
			}
			// A lost connection is no reason to end: the job goes on, and the reader of requests ends this agent.
			if err := s.wire.Write(agent.FrameLog, buffer[:n]); err != nil {
				return jobStatus{}, err
			}
		}
		if ended {
			return status, nil
		}
		if time.Since(lastCheck) > 2*time.Second {
			lastCheck = time.Now()
			if !running(dir) {
				// It may have ended between the two looks.
				if status, ended, err := readStatus(dir); ended || err != nil {
					return status, err
				}
				return jobStatus{Status: -1, Error: "it was killed"}, nil
			}
		}
		select {
		case <-ctx.Done():
			return jobStatus{}, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// running tells whether the job's process is still there. It holds a lock on its job file for its whole life.
func running(dir string) bool {
	file, err := os.Open(filepath.Join(dir, "job.json"))
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

func readStatus(dir string) (status jobStatus, ended bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if errors.Is(err, os.ErrNotExist) {
		return jobStatus{}, false, nil
	}
	if err != nil {
		return jobStatus{}, false, err
	}
	if err := json.Unmarshal(text, &status); err != nil {
		return jobStatus{}, false, fmt.Errorf("status of the job in %s: %w", dir, err)
	}
	return status, true, nil
}

// RunJob is the job's own process: it does what job.json in dir says. An error is one of the job's folder; what goes wrong
// with the work itself is in the status file.
func RunJob(ctx context.Context, dir string) error {
	file, err := os.Open(filepath.Join(dir, "job.json"))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	var job Job
	if err := json.NewDecoder(file).Decode(&job); err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	var status jobStatus
	switch job.Kind {
	case JobActivate:
		status = switchTo(ctx, job, job.Action, log)
	case JobCommit:
		status = commitJob(ctx, job, log)
	default:
		status = jobStatus{Status: -1, Error: fmt.Sprintf("unknown job %q", job.Kind)}
	}
	text, err := json.Marshal(status)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "status"), text)
}

// switchTo runs the toplevel's own switch-to-configuration. Its environment is fixed, because sudo's and systemd's differ
// and an empty PATH has broken boot loader scripts.
func switchTo(ctx context.Context, job Job, action string, log io.Writer) jobStatus {
	env := []string{"NIXOS_INSTALL_BOOTLOADER=", "PATH=" + strings.Join([]string{
		string(job.Toplevel) + "/sw/bin", "/run/current-system/sw/bin", "/run/current-system/sw/sbin", "/run/wrappers/bin",
		"/nix/var/nix/profiles/default/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin",
	}, ":")}
	if job.Locale != "" {
		env = append(env, "LOCALE_ARCHIVE="+job.Locale)
	}
	runner := new(run.Runner)
	err := runner.Run(ctx, run.Command{
		Argv: []string{string(job.Toplevel) + "/bin/switch-to-configuration", action}, Env: env, Out: log, Err: log, Dir: "/",
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

// writeFile writes a file so that it is there whole or not at all.
func writeFile(name string, text []byte) error {
	next := name + ".new"
	if err := os.WriteFile(next, text, 0o644); err != nil {
		return err
	}
	return os.Rename(next, name)
}
