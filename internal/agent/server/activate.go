package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// systemProfile is the profile whose generations are a NixOS's boot menu.
const systemProfile = "/nix/var/nix/profiles/system"

// currentConfiguration is the GC root of the bundle that was committed last.
const currentConfiguration = "/etc/nixos/current-configuration"

func (s *server) activate(ctx context.Context, r agent.Request) (*agent.ActivateResult, error) {
	job := s.newJob(JobActivate, r)
	job.Failed, job.Limit = s.failedBefore(), r.ActivationLimit
	dir, status, err := s.runJob(ctx, r.Job, &job, r.Offset)
	if err != nil {
		return nil, err
	}
	result := &agent.ActivateResult{
		Status: status.Status, Error: status.Error, Refused: status.Refused, Current: s.root().storePath("/run/current-system"), Log: filepath.Join(dir, "log"),
	}
	if status.Status != 0 {
		units := failedUnits(ctx, s.runner, s.root())
		if status.Status == 4 {
			for _, unit := range readComplaints(filepath.Join(dir, logFile)).units {
				if !slices.Contains(units, unit) {
					units = append(units, unit)
				}
			}
		}
		for _, unit := range units {
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
	}
}

func setProfile(ctx context.Context, runner *run.Runner, r root, toplevel string, log *os.File) error {
	return runner.Run(ctx, run.Command{Argv: []string{"nix-env", "-p", r.path(systemProfile), "--set", toplevel}, Out: log, Err: log})
}

// keepCurrent makes currentConfiguration point at the bundle, as a GC root: a link anywhere below gcroots to a link to a
// store path is one for every Nix. Without a bundle, as when somebody returns to a generation that has none any more, it
// takes the link away: no configuration is better than another one's.
func keepCurrent(r root, bundle nix.StorePath) error {
	if bundle == "" {
		return removeLink(r.path(currentConfiguration))
	}
	link, root := r.path(currentConfiguration), r.path(filepath.Join(gcRoots, "current-configuration"))
	for _, dir := range []string{filepath.Dir(link), filepath.Dir(root)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := replaceLink(string(bundle), link); err != nil {
		return err
	}
	return replaceLink(currentConfiguration, root)
}

func removeLink(link string) error {
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// profile is what the system profile stands for.
type profile struct {
	toplevel   string // "": nothing
	generation int    // its number; 0: it is no link to a generation
}

var generationLink = regexp.MustCompile(`^system-([0-9]+)-link$`)

func (r root) readProfile() profile {
	p := profile{toplevel: r.storePath(systemProfile)}
	target, err := os.Readlink(r.path(systemProfile))
	if err != nil {
		return p
	}
	if m := generationLink.FindStringSubmatch(filepath.Base(target)); m != nil {
		p.generation, _ = strconv.Atoi(m[1])
	}
	return p
}
