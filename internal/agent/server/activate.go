package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

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
	job.Failed = s.failedBefore()
	dir, status, err := s.runJob(ctx, r.Job, &job, r.Offset)
	if err != nil {
		return nil, err
	}
	result := &agent.ActivateResult{
		Status: status.Status, Error: status.Error, Current: s.root().storePath("/run/current-system"), Log: filepath.Join(dir, "log"),
	}
	if status.Status != 0 {
		for _, unit := range failedUnits(ctx, s.runner, s.root()) {
			if !slices.Contains(job.Failed, unit) {
				result.Failed = append(result.Failed, unit)
			}
		}
	}
	return result, nil
}

func (s *server) commit(ctx context.Context, r agent.Request) (*agent.CommitResult, error) {
	job := s.newJob(JobCommit, r)
	dir, status, err := s.runJob(ctx, r.Job, &job, r.Offset)
	if err != nil {
		return nil, err
	}
	result := &agent.CommitResult{Generation: status.Generation, Status: status.Status, Error: status.Error, Log: filepath.Join(dir, "log")}
	return result, nil
}

func (s *server) newJob(kind JobKind, r agent.Request) Job {
	return Job{
		Kind: kind, Toplevel: r.Toplevel, Bundle: r.Bundle, Action: r.Action, Locale: os.Getenv("LOCALE_ARCHIVE"),
		Who: s.opts.Who, Session: s.opts.Session,
	}
}

// commitJob makes the bundle what the target is: the raw toplevel in the system profile, the boot loader written from it,
// the bundle as GC root. Action "root" moves only the GC root, for a bundle whose toplevel is committed already. What was
// there before is there until the last step: a boot loader that cannot be written puts the profile, and itself, back.
func commitJob(ctx context.Context, r root, job Job, log *os.File) jobStatus {
	runner := new(run.Runner)
	if job.Action != "root" {
		before := r.readProfile()
		if before.toplevel != string(job.Toplevel) {
			if err := setProfile(ctx, runner, r, string(job.Toplevel), log); err != nil {
				return jobStatus{Status: -1, Error: run.Clean(err.Error())}
			}
		}
		status := switchTo(ctx, r, job, "boot", log)
		if status.Status != 0 {
			if problem := putBack(ctx, runner, r, job, before, log); problem != nil {
				status.Error = strings.TrimPrefix(status.Error+"; "+run.Clean(problem.Error()), "; ")
			}
			return status
		}
	}
	if err := keepCurrent(r, job.Bundle); err != nil {
		return jobStatus{Status: -1, Error: run.Clean(err.Error())}
	}
	_ = os.Remove(r.path(filepath.Join(gcRoots, "pending")))
	return jobStatus{Generation: r.readProfile().generation}
}

// putBack makes the profile what it was, by its generation's number and not by making another one, and lets the system that
// it stands for write the boot loader again, which may be half of each.
func putBack(ctx context.Context, runner *run.Runner, r root, job Job, before profile, log *os.File) error {
	if before.toplevel == "" || before.toplevel == string(job.Toplevel) {
		return nil
	}
	var err error
	if before.generation > 0 {
		err = runner.Run(ctx, run.Command{
			Argv: []string{"nix-env", "-p", r.path(systemProfile), "--switch-generation", strconv.Itoa(before.generation)}, Out: log, Err: log,
		})
	} else {
		err = setProfile(ctx, runner, r, before.toplevel, log)
	}
	if err != nil {
		return fmt.Errorf("the system profile could not be put back: %w", err)
	}
	job.Toplevel = nix.StorePath(before.toplevel)
	if status := switchTo(ctx, r, job, "boot", log); status.Status != 0 {
		return fmt.Errorf("the boot loader could not be put back: exit status %d %s", status.Status, status.Error)
	}
	return nil
}

func setProfile(ctx context.Context, runner *run.Runner, r root, toplevel string, log *os.File) error {
	return runner.Run(ctx, run.Command{Argv: []string{"nix-env", "-p", r.path(systemProfile), "--set", toplevel}, Out: log, Err: log})
}

// keepCurrent makes currentConfiguration point at the bundle, as a GC root: a link anywhere below gcroots to a link to a
// store path is one for every Nix.
func keepCurrent(r root, bundle nix.StorePath) error {
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

// failedUnits names the units that are in the failed state.
func failedUnits(ctx context.Context, runner *run.Runner, r root) []string {
	if !r.exists(systemdRuns) {
		return nil
	}
	out, err := runner.Output(ctx, run.Command{Argv: []string{"systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager", "--full"}})
	if err != nil {
		return nil
	}
	var units []string
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(strings.TrimLeft(line, "●* ")); len(fields) > 0 {
			units = append(units, fields[0])
		}
	}
	return units
}
