package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/agent/units"
	"ferry/internal/run"
)

// lookLimit is how long systemd may take to answer somebody who only looks.
const lookLimit = 10 * time.Second

// look finds out how the machine is besides its facts. It works without root: what root alone may see is left out.
func (s *server) look(ctx context.Context) *agent.LookResult {
	r := s.root()
	limited, stop := context.WithTimeout(ctx, lookLimit)
	defer stop()
	current := r.StorePath("/run/current-system")
	result := &agent.LookResult{
		Failed: []string{}, Lock: shownAtWork(r, time.Now()), Armed: findArmed(r),
		Reboot: rebootFiles(r, r.StorePath("/run/booted-system"), current), Roots: rootTroubles(r, current),
	}
	result.BootFiles, result.BootSize = bootFiles(r, current)
	system, err := units.System(s.runner, r).AskTroubled(limited)
	if err != nil {
		result.UnitsError = run.Clean(err.Error())
	}
	units := append(system, units.OwnTroubled(limited, s.runner, r)...)
	result.Failed = append(result.Failed, units[:min(len(units), agent.MaxFailed)]...)
	if bundle := currentBundle(r); bundle != "" {
		nixpkgs := s.nixpkgsOf(limited, bundle)
		result.NixpkgsRevision, result.NixpkgsDate = nixpkgs.revision, nixpkgs.date
	}
	return result
}

// rebootFiles are those of agent.RebootFiles in which two toplevels differ.
func rebootFiles(r machine.Root, booted, current string) []string {
	if booted == "" || current == "" || booted == current {
		return nil
	}
	var differ []string
	for _, name := range agent.RebootFiles {
		was, _ := os.Readlink(r.Path(booted + "/" + name))
		is, _ := os.Readlink(r.Path(current + "/" + name))
		if was != is {
			differ = append(differ, name)
		}
	}
	return differ
}

// bootFiles are kernel and initrd of a toplevel, and how large they are together, where they have to be copied to another file
// system.
func bootFiles(r machine.Root, toplevel string) (files []string, size int64) {
	var boot, store syscall.Stat_t
	if toplevel == "" || syscall.Stat(r.Path("/boot"), &boot) != nil || syscall.Stat(r.Path("/nix/store"), &store) != nil || boot.Dev == store.Dev {
		return nil, 0
	}
	for _, name := range agent.BootFiles {
		file, err := os.Readlink(r.Path(toplevel + "/" + name))
		if err != nil {
			continue
		}
		if info, err := os.Stat(r.Path(file)); err == nil && info.Mode().IsRegular() {
			files, size = append(files, file), size+info.Size()
		}
	}
	return files, size
}

// runningRoot is the GC root of what runs: NixOS's own activation makes it.
const runningRoot = "/nix/var/nix/gcroots/current-system"

// rootTroubles says what is wrong with the GC roots that ferry and NixOS rely on.
func rootTroubles(r machine.Root, current string) []agent.Trouble {
	var troubles []agent.Trouble
	add := func(fix, format string, args ...any) {
		troubles = append(troubles, agent.Trouble{Text: fmt.Sprintf(format, args...), Fix: fix})
	}
	kept, linked := r.StorePath(currentRoot), r.StorePath(currentConfiguration)
	info, err := os.Lstat(r.Path(currentConfiguration))
	switch {
	case err != nil:
	case info.Mode()&os.ModeSymlink == 0:
		add("sudo mv "+currentConfiguration+" "+currentConfiguration+".old", "%s is in the way: it is no link", currentConfiguration)
	case linked == "":
		to, _ := os.Readlink(r.Path(currentConfiguration))
		add("deploy again", "%s points at %s, which is not there any more", currentConfiguration, to)
	case kept != linked && currentBundle(r) == linked:
		add("sudo ln -sfn "+linked+" "+currentRoot, "the bundle may be collected: %s does not point at it", currentRoot)
	case kept != linked && noLink(r) == "":
		add("sudo ln -sfn "+kept+" "+currentConfiguration, "%s is not what was deployed last", currentConfiguration)
	}
	if r.Exists(systemProfile) && r.StorePath(systemProfile) == "" {
		add("deploy again", "%s points at nothing: the machine may not boot", systemProfile)
	}
	if current != "" && generationOf(r, current) == 0 && r.StorePath(runningRoot) != current {
		add("sudo ln -sfn /run/current-system "+runningRoot, "what runs may be collected: it is no generation, and %s is missing", runningRoot)
	}
	return troubles
}

// findArmed is the rollback that the machine would do by itself; nil: none.
func findArmed(r machine.Root) *agent.Armed {
	if t, err := readTrial(r); err == nil && t != nil {
		return &agent.Armed{Toplevel: t.New, Reboot: true}
	}
	dirs, err := filepath.Glob(r.Path(filepath.Join(machine.RunFolder, "*-"+string(JobSwitch))))
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		s, err := readShown(dir)
		if err != nil || hasEnded(dir) || neverBegan(dir) {
			continue
		}
		a := &agent.Armed{Toplevel: s.Toplevel, Who: s.Who, Phase: agent.Phase(cmp.Or(string(s.Phase), string(agent.Arming)))}
		if a.Phase == agent.Waiting || a.Phase == agent.Confirmed {
			a.Left = int(max(0, s.Deadline-machine.Uptime()) / 1000)
		}
		return a
	}
	return nil
}

// hasEnded tells whether a job has a status, which only root may read.
func hasEnded(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, statusFile))
	return err == nil
}

// neverBegan tells whether a job was written down by an agent that was gone before it could start it.
func neverBegan(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, begunFile)); err == nil {
		return false
	}
	info, err := os.Stat(filepath.Join(dir, jobFile))
	return err == nil && time.Since(info.ModTime()) > beginGrace
}

// shownAtWork is the deployment that holds one of the locks; nil: none does. The lock files are root's alone, because whoever may
// open one may hold it. So it is the kernel that is asked, and the rest is read where everyone may.
func shownAtWork(r machine.Root, now time.Time) *agent.Lock {
	for _, file := range []string{workFile, lockFile} {
		pid := r.LockHolder(file)
		if pid == 0 {
			continue
		}
		if text, err := os.ReadFile(r.Path(file)); err == nil {
			var held holding
			if json.Unmarshal(text, &held) == nil {
				return &held.Lock
			}
		}
		return holderByCommand(r, pid, now)
	}
	return nil
}

// holderByCommand finds out who deploys from the command line of the agent or job that holds a lock.
func holderByCommand(r machine.Root, pid int, now time.Time) *agent.Lock {
	text, err := os.ReadFile(r.Path(fmt.Sprintf("/proc/%d/cmdline", pid)))
	if err != nil {
		return &agent.Lock{}
	}
	argv := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	if i := slices.Index(argv, "--as"); i >= 0 && i+1 < len(argv) {
		return &agent.Lock{Who: argv[i+1], Since: r.StartTime(pid, now)}
	}
	if len(argv) != 3 || filepath.Dir(argv[2]) != machine.RunFolder {
		return &agent.Lock{}
	}
	s, err := readShown(r.Path(argv[2]))
	if err != nil {
		return &agent.Lock{}
	}
	s.Since = r.Modified(filepath.Join(argv[2], jobFile))
	return &s.Lock
}
