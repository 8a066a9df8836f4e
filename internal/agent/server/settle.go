package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// settleLimit is how long ferry waits for a switch that nobody minds any more before it is told of it.
const settleLimit = 45 * time.Second

// unended are the folders of the switches that have not ended, but the one in own.
func unended(r machine.Root, own string) []string {
	files, err := filepath.Glob(r.Path(filepath.Join(machine.RunFolder, "*-"+string(JobSwitch), jobFile)))
	if err != nil {
		return nil
	}
	var dirs []string
	for _, file := range files {
		dir := filepath.Dir(file)
		if _, ended, _ := readStatus(dir); !ended && dir != own {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// neverBegins makes sure that a switch that was only written down does not begin any more; false if it has begun.
func neverBegins(r machine.Root, dir string) bool {
	if !claim(dir) {
		return false
	}
	_ = os.Remove(armedProgram(r, dir))
	return os.RemoveAll(dir) == nil
}

// settle waits until the switches of other deployments that nobody minds any more have ended, each by a process of its own, or
// gives the one that has not. One that could not roll back, and goes on trying, is left to the job that replaces it.
func (s *server) settle(ctx context.Context) *agent.Lock {
	for _, dir := range unended(s.root(), "") {
		job, err := readJob(dir)
		if err != nil || job.Session == s.opts.Session || neverBegins(s.root(), dir) {
			continue
		}
		if !broughtToEnd(ctx, s.root(), s.runner, s.opts.Program, dir, job) {
			return &agent.Lock{
				Who: job.Who, From: job.Server.clientHost(), Bundle: string(job.Bundle),
				Since: s.root().Modified(filepath.Join(machine.RunFolder, filepath.Base(dir), jobFile)),
			}
		}
	}
	return nil
}

// broughtToEnd lets a process of its own bring a switch to its end that nobody minds any more, and tells whether it has, in time. One
// that goes on trying to roll back is settled as well.
func broughtToEnd(ctx context.Context, r machine.Root, runner *run.Runner, program, dir string, job Job) bool {
	over := func() bool {
		state, _ := readState(dir)
		_, ended, _ := readStatus(dir)
		return ended || state.Phase == agent.Stranded && running(dir)
	}
	if over() {
		return true
	}
	succeedNow(ctx, r, runner, program, dir, job)
	for end := time.Now().Add(settleLimit); !over(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) || ctx.Err() != nil {
			return false
		}
	}
	return true
}

// settleJobs ends the switches of others before the job in own begins, which holds the jobs' lock: one that nobody minds any more
// goes where it should, and one that goes on trying to roll back is left, because what it rolls back to is taken over.
func settleJobs(ctx context.Context, r machine.Root, own string, log io.Writer) error {
	for _, dir := range unended(r, own) {
		if neverBegins(r, dir) {
			continue
		}
		var err error
		if running(dir) {
			err = replaceGuard(ctx, r, dir)
		} else {
			_, _ = fmt.Fprintf(log, "ferry: the switch %s was not ended: settling it first\n", switchName(dir))
			err = succeedIn(ctx, r, dir, succession{locked: true, once: true})
		}
		if err != nil {
			return fmt.Errorf("the switch %s before this one could not be settled: %w", switchName(dir), err)
		}
	}
	return nil
}

// replaceGuard makes a switch end that could not roll back and goes on trying.
func replaceGuard(ctx context.Context, r machine.Root, dir string) error {
	text := []byte(`{"verdict":"` + string(agent.VerdictLeave) + `","reason":"another deployment has begun"}`)
	for end := time.Now().Add(settleLimit); ; time.Sleep(20 * time.Millisecond) {
		switch _, ended, err := readStatus(dir); {
		case err != nil:
			return err
		case ended:
			return nil
		case time.Now().After(end):
			return errors.New("it does not end")
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if readVerdict(dir).Verdict == agent.VerdictLeave {
			continue
		}
		if err := writeFile(filepath.Join(dir, verdictFile), text); err != nil {
			return err
		}
	}
}

// systemBefore is what a machine rolls back to that runs a system which was to be rolled back, and could not be; "" for any
// other.
func systemBefore(r machine.Root, current string) string {
	if current == "" || current == r.StorePath(systemProfile) {
		return ""
	}
	files, err := filepath.Glob(r.Path(filepath.Join(machine.RunFolder, "*-"+string(JobSwitch), statusFile)))
	if err != nil {
		return ""
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		status, ended, _ := readStatus(dir)
		if !ended || status.Outcome != agent.SwitchStranded {
			continue
		}
		job, err := readJob(dir)
		if err != nil || string(job.Toplevel) != current {
			continue
		}
		if state, err := readState(dir); err == nil && state.Before.Current != current && r.Exists(state.Before.Current) {
			return state.Before.Current
		}
	}
	return ""
}

// RunSettle settles the switches that nobody minds any more, for a deployment that is none of ferry's.
func RunSettle(ctx context.Context) error { return settleAll(ctx, machine.Root{}, os.Stderr) }

func settleAll(ctx context.Context, r machine.Root, log io.Writer) error {
	if held := atWork(r); held != nil {
		return errors.New("another deployment is at work")
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	for _, dir := range unended(r, "") {
		if neverBegins(r, dir) {
			continue
		}
		job, err := readJob(dir)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(log, "ferry: the switch %s was not ended: settling it first\n", switchName(dir))
		// In a unit of its own: what is left in its own control group is ended before the machine rolls back, and this process is in
		// somebody else's.
		if !broughtToEnd(ctx, r, new(run.Runner), program, dir, job) {
			return fmt.Errorf("the switch %s has not ended within %v", switchName(dir), settleLimit)
		}
		if running(dir) {
			if err := replaceGuard(ctx, r, dir); err != nil {
				return fmt.Errorf("the switch %s could not be ended: %w", switchName(dir), err)
			}
		}
	}
	return nil
}
