package server

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/units"
	"ferry/internal/run"
)

// systemProfile is the profile whose generations are a NixOS's boot menu.
const systemProfile = "/nix/var/nix/profiles/system"

// profiles is its folder, with the links of its generations.
const profiles = "/nix/var/nix/profiles"

func (s *server) activate(ctx context.Context, r agent.Request) (*agent.ActivateResult, error) {
	job := s.newJob(JobActivate, r)
	job.Failed, job.Limit = s.failedBefore(), r.ActivationLimit
	dir, status, err := s.runJob(ctx, r.Job, &job, r.Offset)
	if err != nil {
		return nil, err
	}
	result := &agent.ActivateResult{
		Status: status.Status, Error: status.Error, Refused: status.Refused, Current: s.root().StorePath("/run/current-system"), Log: filepath.Join(dir, "log"),
	}
	if status.Status != 0 {
		failed := units.Troubled(ctx, s.runner, s.root())
		if status.Status == 4 {
			for _, unit := range units.ReadComplaints(filepath.Join(dir, logFile)).Units {
				if !slices.Contains(failed, unit) {
					failed = append(failed, unit)
				}
			}
		}
		for _, unit := range failed {
			if !slices.Contains(job.Failed, unit) {
				result.Failed = append(result.Failed, unit)
			}
		}
	}
	return result, nil
}

func (s *server) commit(ctx context.Context, r agent.Request) (*agent.CommitResult, error) {
	job := s.newJob(JobCommit, r)
	job.Limit = r.ActivationLimit
	dir, status, err := s.runJob(ctx, r.Job, &job, r.Offset)
	if err != nil {
		return nil, err
	}
	result := &agent.CommitResult{Generation: status.Generation, Status: status.Status, Error: status.Error, Unclean: status.Unclean, Refused: status.Refused, Log: filepath.Join(dir, "log")}
	return result, nil
}

func (s *server) newJob(kind JobKind, r agent.Request) Job {
	return Job{
		Kind: kind, Toplevel: r.Toplevel, Bundle: r.Bundle, Action: r.Action, Locale: os.Getenv("LOCALE_ARCHIVE"),
		Who: s.opts.Who, Session: s.opts.Session, Record: r.Record, Server: findConnection(s.root()),
		LoginUID: confirmer(s.root(), os.Getpid(), os.Getenv),
	}
}

func setProfile(ctx context.Context, runner *run.Runner, r machine.Root, toplevel string, log *os.File) error {
	return runner.Run(ctx, run.Command{Argv: []string{"nix-env", "-p", r.Path(systemProfile), "--set", toplevel}, Out: log, Err: log})
}

// profile is what the system profile stands for.
type profile struct {
	toplevel   string // "": nothing
	generation int    // its number; 0: it is no link to a generation
}

var generationLink = regexp.MustCompile(`^system-([0-9]+)-link$`)

func readProfile(r machine.Root) profile {
	p := profile{toplevel: r.StorePath(systemProfile)}
	target, err := os.Readlink(r.Path(systemProfile))
	if err != nil {
		return p
	}
	if m := generationLink.FindStringSubmatch(filepath.Base(target)); m != nil {
		p.generation, _ = strconv.Atoi(m[1])
	}
	return p
}
