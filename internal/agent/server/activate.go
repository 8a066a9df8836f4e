package server

import (
	"context"
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
	job := Job{Kind: JobActivate, Toplevel: r.Toplevel, Bundle: r.Bundle, Action: r.Action, Locale: os.Getenv("LOCALE_ARCHIVE")}
	job.Failed = failedUnits(ctx, s.runner)
	dir, status, err := s.runJob(ctx, r.Job, job, r.Offset)
	if err != nil {
		return nil, err
	}
	result := &agent.ActivateResult{
		Status: status.Status, Error: status.Error, Current: root{}.storePath("/run/current-system"), Log: filepath.Join(dir, "log"),
	}
	for _, unit := range failedUnits(ctx, s.runner) {
		if !slices.Contains(job.Failed, unit) {
			result.Failed = append(result.Failed, unit)
		}
	}
	return result, nil
}

func (s *server) commit(ctx context.Context, r agent.Request) (*agent.CommitResult, error) {
	job := Job{Kind: JobCommit, Toplevel: r.Toplevel, Bundle: r.Bundle, Action: r.Action, Locale: os.Getenv("LOCALE_ARCHIVE")}
	dir, status, err := s.runJob(ctx, r.Job, job, r.Offset)
	if err != nil {
		return nil, err
	}
	result := &agent.CommitResult{Generation: status.Generation, Status: status.Status, Error: status.Error, Log: filepath.Join(dir, "log")}
	return result, nil
}

// commitJob makes the bundle what the target is: the raw toplevel in the system profile, the boot loader written from it,
// the bundle as GC root. Action "root" moves only the GC root, for a bundle whose toplevel is committed already. What was
// there before is there until the last step: a failure on the way puts the profile back.
func commitJob(ctx context.Context, job Job, log *os.File) jobStatus {
	runner := new(run.Runner)
	before := root{}.storePath(systemProfile)
	status := jobStatus{}
	if job.Action != "root" {
		if before != string(job.Toplevel) {
			if err := setProfile(ctx, runner, string(job.Toplevel), log); err != nil {
				return jobStatus{Status: -1, Error: run.Clean(err.Error())}
			}
		}
		if status = switchTo(ctx, job, "boot", log); status.Status != 0 {
			if before != "" && before != string(job.Toplevel) {
				if err := setProfile(ctx, runner, before, log); err != nil {
					status.Error = strings.TrimSpace(status.Error + " and the system profile could not be put back: " + run.Clean(err.Error()))
				}
			}
			return status
		}
	}
	if err := keepCurrent(ctx, runner, job.Bundle, log); err != nil {
		return jobStatus{Status: -1, Error: run.Clean(err.Error())}
	}
	_ = os.Remove(filepath.Join(pendingRoots, "pending"))
	status.Generation = generation()
	return status
}

func setProfile(ctx context.Context, runner *run.Runner, toplevel string, log *os.File) error {
	return runner.Run(ctx, run.Command{Argv: []string{"nix-env", "-p", systemProfile, "--set", toplevel}, Out: log, Err: log})
}

// keepCurrent makes currentConfiguration point at the bundle, as a GC root. Nix itself does it, so that the root is of the
// kind that this target's Nix knows.
func keepCurrent(ctx context.Context, runner *run.Runner, bundle nix.StorePath, log *os.File) error {
	if err := os.MkdirAll(filepath.Dir(currentConfiguration), 0o755); err != nil {
		return err
	}
	return runner.Run(ctx, run.Command{
		Argv: []string{"nix-store", "--realise", string(bundle), "--add-root", currentConfiguration, "--indirect"}, Err: log,
	})
}

var generationLink = regexp.MustCompile(`^system-([0-9]+)-link$`)

// generation is the number of the system profile's current generation, 0 if it has none.
func generation() int {
	target, err := os.Readlink(systemProfile)
	if err != nil {
		return 0
	}
	m := generationLink.FindStringSubmatch(filepath.Base(target))
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// failedUnits names the units that are in the failed state.
func failedUnits(ctx context.Context, runner *run.Runner) []string {
	if !exists("/run/systemd/system") {
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
