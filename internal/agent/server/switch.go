package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// switchTo and its like are the jobs' side; this file is the agent's side of a guarded switch: beginning, following, telling.

// beginSwitch starts the switch that r asks for, or finds it, and follows it until it waits or has ended.
func (s *server) beginSwitch(ctx context.Context, r agent.Request) (*agent.SwitchResult, error) {
	if r.Switch == nil {
		return s.attach(ctx, r)
	}
	if r.Record.Action == agent.ActionRollback && !s.root().Exists(string(r.Bundle)) {
		// Collected since: what it was made of is not known any more, but it runs all the same.
		r.Bundle = ""
	}
	if err := s.mayChange(r); err != nil {
		return nil, err
	}
	if !jobName.MatchString(r.Job) {
		return nil, fmt.Errorf("job name %q is not allowed", r.Job)
	}
	if err := checkLimits(r.Switch.Limits); err != nil {
		return nil, err
	}
	if !s.root().Exists(machine.SystemdRuns) && !r.Switch.Unsafe {
		return nil, &agent.ResponseError{Kind: agent.KindUnsafe, Text: "PID 1 is not systemd there, so that no rollback timer can be armed"}
	}
	dir := s.switchFolder(r.Job)
	job, err := readJob(dir)
	if errors.Is(err, os.ErrNotExist) {
		job = s.newJob(JobSwitch, r)
		job.Switch = r.Switch
		job.Failed = s.failedBefore()
		err = s.startSwitch(ctx, dir, job, r.Token)
	}
	if err != nil {
		return nil, err
	}
	if err := expect(dir, r.Token); err != nil {
		return nil, err
	}
	return s.followSwitch(ctx, dir, job, r.Offset, true)
}

// maxLimit bounds a switch's times, in seconds: a lock that is held for longer would be held for ever.
const maxLimit = 24 * 60 * 60

func checkLimits(l agent.Limits) error {
	for _, n := range []int{l.Activation, l.Confirm} {
		if n < 1 || n > maxLimit {
			return fmt.Errorf("a limit of %d seconds is not allowed", n)
		}
	}
	if l.Checks < 0 || l.Checks > maxLimit {
		return fmt.Errorf("a limit of %d seconds is not allowed", l.Checks)
	}
	return nil
}

func (s *server) switchFolder(job string) string {
	return s.root().Path(filepath.Join(machine.RunFolder, job+"-"+string(JobSwitch)))
}

// startSwitch makes the folder where the login user writes its token, and starts the job.
func (s *server) startSwitch(ctx context.Context, dir string, job Job, token *agent.Token) error {
	err := makeJobFolder(dir)
	if err == nil {
		confirm := filepath.Join(dir, confirmFolder)
		err = machine.OwnFolder(confirm, 0o700)
		// The last step: from here on it is not root's any more.
		if err == nil && job.LoginUID != os.Geteuid() {
			err = os.Lchown(confirm, job.LoginUID, -1)
		}
	}
	if err == nil {
		err = expect(dir, token)
	}
	if err == nil {
		err = s.startJob(ctx, dir, job)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return fmt.Errorf("start the switch: %w", err)
	}
	return nil
}

// expect lets the switch be confirmed by token, too, from now on.
func expect(dir string, token *agent.Token) error {
	if token == nil {
		return nil
	}
	if !jobName.MatchString(token.Name) {
		return fmt.Errorf("token name %q is not allowed", token.Name)
	}
	folder := filepath.Join(dir, expectFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(folder, token.Name), []byte(token.Hash))
}

// attach finds a switch that was begun by another ferry, or before the connection was lost.
func (s *server) attach(ctx context.Context, r agent.Request) (*agent.SwitchResult, error) {
	dir := ""
	if r.Job != "" {
		if !jobName.MatchString(r.Job) {
			return nil, fmt.Errorf("job name %q is not allowed", r.Job)
		}
		dir = s.switchFolder(r.Job)
	} else if dir = s.lastSwitch(); dir == "" {
		return nil, &agent.ResponseError{Kind: agent.KindNone, Text: "nothing has been deployed to this target since it was started"}
	}
	job, err := followable(dir, r.Token)
	if err != nil {
		return nil, err
	}
	return s.followSwitch(ctx, dir, job, r.Offset, true)
}

// followable reads the job of a switch, which token may confirm from now on.
func followable(dir string, token *agent.Token) (Job, error) {
	job, err := readJob(dir)
	if errors.Is(err, os.ErrNotExist) {
		return job, &agent.ResponseError{Kind: agent.KindNone, Text: "this deployment is not known on the target (any more)"}
	}
	if err != nil {
		return job, err
	}
	return job, expect(dir, token)
}

// lastSwitch is the folder of the switch that began last; "" if there is none.
func (s *server) lastSwitch() string {
	files, err := filepath.Glob(s.switchFolder("*") + "/" + jobFile)
	if err != nil {
		return ""
	}
	last, when := "", time.Time{}
	for _, file := range files {
		if _, ended, _ := readStatus(filepath.Dir(file)); !ended {
			// Only one is at work, and the clock may have been set since the others were.
			return filepath.Dir(file)
		}
		if info, err := os.Stat(file); err == nil && info.ModTime().After(when) {
			last, when = filepath.Dir(file), info.ModTime()
		}
	}
	return last
}

// finish tells a switch ferry's verdict and follows it to its end.
func (s *server) finish(ctx context.Context, r agent.Request) (*agent.SwitchResult, error) {
	if !jobName.MatchString(r.Job) {
		return nil, fmt.Errorf("job name %q is not allowed", r.Job)
	}
	dir := s.switchFolder(r.Job)
	job, err := followable(dir, r.Token)
	if err != nil {
		return nil, err
	}
	// Who does not like what they see may be one of two. Where it could not roll back, only a person there decides.
	if state, _ := readState(dir); state.Phase == agent.Stranded {
		r.Verdict = ""
	}
	if r.Verdict != "" && readVerdict(dir).Verdict != agent.VerdictBack {
		text, err := json.Marshal(instruction{Verdict: r.Verdict, Reason: r.Reason})
		if err == nil {
			err = writeFile(filepath.Join(dir, verdictFile), text)
		}
		if err != nil {
			return nil, fmt.Errorf("tell the switch: %w", err)
		}
	}
	return s.followSwitch(ctx, dir, job, r.Offset, false)
}

// followSwitch passes the log and the phases of a switch on until it has ended or, if asked for, waits to be confirmed.
func (s *server) followSwitch(ctx context.Context, dir string, job Job, offset int64, untilWaiting bool) (*agent.SwitchResult, error) {
	if offset < 0 {
		return nil, fmt.Errorf("offset %d in a log is not allowed", offset)
	}
	state, told, seen := guardState{}, agent.Phase(""), time.Time{}
	w := &watch{
		look: func() { state, _ = readState(dir) },
		pass: func() (bool, error) {
			if state.Phase != told {
				told = state.Phase
				if err := s.wire.WriteJSON(agent.FrameProgress, agent.Progress{Phase: told}); err != nil {
					return false, err
				}
			}
			waits := told == agent.Waiting || told == agent.Confirmed
			// One that goes on trying may do so for ever.
			return untilWaiting && waits || told == agent.Stranded && state.Tries >= strandedTries, nil
		},
		died: func() bool {
			if seen.IsZero() {
				seen = time.Now()
				s.startSuccessor(ctx, dir, job)
			} else if running(dir) {
				seen = time.Now()
			}
			return time.Since(seen) < successorGrace
		},
	}
	status, err := s.follow(ctx, dir, offset, w)
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	result := &agent.SwitchResult{
		Job: strings.TrimSuffix(filepath.Base(dir), "-"+string(JobSwitch)), Phase: state.Phase, Status: state.Status,
		Current: s.root().StorePath("/run/current-system"), Log: filepath.Join(dir, logFile), Failed: state.Failed,
		Toplevel: job.Toplevel, Bundle: job.Bundle, Action: job.Action, Who: job.Who, Before: state.Before.Current,
	}
	if job.Switch != nil {
		if result.Awaits = agent.Verbatim(job.Switch.Awaits); result.Awaits == "" && job.Switch.Limits.Checks > 0 {
			result.Awaits = "some"
		}
	}
	if err != nil {
		result.Left = int(max(0, state.Deadline-machine.Uptime()) / 1000)
		if state.Phase == agent.Stranded {
			result.Outcome, result.Reason, result.From, result.Trouble = agent.SwitchStranded, state.Reason, state.From, state.Trouble
		}
		return result, nil
	}
	result.Phase, result.Status = agent.Ended, status.Status
	result.Outcome, result.Reason, result.From, result.Trouble = status.Outcome, status.Reason, status.From, status.Trouble
	result.Failed, result.UserUnits, result.Generation = status.Failed, status.UserUnits, status.Generation
	if result.Outcome == "" {
		// No process was left to say it.
		result.Outcome, result.Reason = agent.SwitchStranded, cmp.Or(status.Error, "it left no status")
	}
	return result, nil
}

// strandedTries is how many failures to roll back are waited for before ferry is told that the target goes on trying.
const strandedTries = 2

// successorGrace is how long a successor may take to begin, on a slow machine that is busy; systemd may have to start it again.
const successorGrace = 30 * time.Second

// startSuccessor lets a guard that was killed be succeeded at once, instead of when its timer elapses; where that cannot be, the
// timer is still there.
func (s *server) startSuccessor(ctx context.Context, dir string, job Job) {
	succeedNow(ctx, s.root(), s.runner, s.opts.Program, dir, job)
}

// succeedNow starts a successor in a unit of its own; program is one that can do it, if none is armed.
func succeedNow(ctx context.Context, r machine.Root, runner *run.Runner, program, dir string, job Job) {
	if armed := armedProgram(r, dir); fileExists(armed) {
		program = armed
	}
	if !r.Exists(machine.SystemdRuns) {
		_, _ = run.Detach([]string{program, "rollback", dir})
		return
	}
	_ = runner.Run(ctx, run.Command{Argv: []string{
		"systemd-run", "--quiet", "--no-ask-password", "--unit=ferry-" + filepath.Base(dir) + "-successor",
		"--description=ferry: roll back from " + job.Toplevel.Name(), "--property=KillMode=process", startAgain,
		"--", program, "rollback", dir,
	}})
}
