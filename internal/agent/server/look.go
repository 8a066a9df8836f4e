package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/run"

	"golang.org/x/sys/unix"
)

// lookLimit is how long systemd may take to answer somebody who only looks.
const lookLimit = 10 * time.Second

// look finds out how the machine is besides its facts. It works without root: what root alone may see is left out.
func (s *server) look(ctx context.Context) *agent.LookResult {
	r := s.root()
	limited, stop := context.WithTimeout(ctx, lookLimit)
	defer stop()
	current := r.storePath("/run/current-system")
	result := &agent.LookResult{
		Failed: []string{}, Lock: r.atWork(time.Now()), Armed: r.armed(),
		Reboot: r.rebootFiles(r.storePath("/run/booted-system"), current), Roots: r.rootTroubles(current),
	}
	result.BootFiles, result.BootSize = r.bootFiles(current)
	system, err := systemManager(s.runner, r).askTroubled(limited)
	if err != nil {
		result.UnitsError = run.Clean(err.Error())
	}
	units := append(system, ownFailedUnits(limited, s.runner, r)...)
	result.Failed = append(result.Failed, units[:min(len(units), agent.MaxFailed)]...)
	if bundle := r.currentBundle(); bundle != "" {
		nixpkgs := s.nixpkgsOf(limited, bundle)
		result.NixpkgsRevision, result.NixpkgsDate = nixpkgs.revision, nixpkgs.date
	}
	return result
}

// rebootFiles are those of agent.RebootFiles in which two toplevels differ.
func (r root) rebootFiles(booted, current string) []string {
	if booted == "" || current == "" || booted == current {
		return nil
	}
	var differ []string
	for _, name := range agent.RebootFiles {
		was, _ := os.Readlink(r.path(booted + "/" + name))
		is, _ := os.Readlink(r.path(current + "/" + name))
		if was != is {
			differ = append(differ, name)
		}
	}
	return differ
}

// bootFiles are kernel and initrd of a toplevel, and how large they are together, where they have to be copied to another file
// system.
func (r root) bootFiles(toplevel string) (files []string, size int64) {
	var boot, store syscall.Stat_t
	if toplevel == "" || syscall.Stat(r.path("/boot"), &boot) != nil || syscall.Stat(r.path("/nix/store"), &store) != nil || boot.Dev == store.Dev {
		return nil, 0
	}
	for _, name := range agent.BootFiles {
		file, err := os.Readlink(r.path(toplevel + "/" + name))
		if err != nil {
			continue
		}
		if info, err := os.Stat(r.path(file)); err == nil && info.Mode().IsRegular() {
			files, size = append(files, file), size+info.Size()
		}
	}
	return files, size
}

// runningRoot is the GC root of what runs: NixOS's own activation makes it.
const runningRoot = "/nix/var/nix/gcroots/current-system"

// rootTroubles says what is wrong with the GC roots that ferry and NixOS rely on.
func (r root) rootTroubles(current string) []agent.Trouble {
	var troubles []agent.Trouble
	add := func(fix, format string, args ...any) {
		troubles = append(troubles, agent.Trouble{Text: fmt.Sprintf(format, args...), Fix: fix})
	}
	kept, linked := r.storePath(currentRoot), r.storePath(currentConfiguration)
	info, err := os.Lstat(r.path(currentConfiguration))
	switch {
	case err != nil:
	case info.Mode()&os.ModeSymlink == 0:
		add("sudo mv "+currentConfiguration+" "+currentConfiguration+".old", "%s is in the way: it is no link", currentConfiguration)
	case linked == "":
		to, _ := os.Readlink(r.path(currentConfiguration))
		add("deploy again", "%s points at %s, which is not there any more", currentConfiguration, to)
	case kept != linked && r.currentBundle() == linked:
		add("sudo ln -sfn "+linked+" "+currentRoot, "the bundle may be collected: %s does not point at it", currentRoot)
	case kept != linked && r.noLink() == "":
		add("sudo ln -sfn "+kept+" "+currentConfiguration, "%s is not what was deployed last", currentConfiguration)
	}
	if r.exists(systemProfile) && r.storePath(systemProfile) == "" {
		add("deploy again", "%s points at nothing: the machine may not boot", systemProfile)
	}
	if current != "" && r.generationOf(current) == 0 && r.storePath(runningRoot) != current {
		add("sudo ln -sfn /run/current-system "+runningRoot, "what runs may be collected: it is no generation, and %s is missing", runningRoot)
	}
	return troubles
}

// armed is the way back that the machine would take by itself; nil: none.
func (r root) armed() *agent.Armed {
	if t, err := readTrial(r); err == nil && t != nil {
		return &agent.Armed{Toplevel: t.New, Reboot: true}
	}
	dirs, err := filepath.Glob(r.path(filepath.Join(jobsFolder, "*-"+string(JobSwitch))))
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		s, err := readShown(dir)
		if err != nil || hasEnded(dir) || neverBegan(dir) {
			continue
		}
		a := &agent.Armed{Toplevel: s.Toplevel, Who: s.Who, Phase: agent.Phase(orWord(string(s.Phase), string(agent.Arming)))}
		if a.Phase == agent.Waiting || a.Phase == agent.Confirmed {
			a.Left = int(max(0, s.Deadline-uptime()) / 1000)
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

// atWork is the deployment that holds one of the locks; nil: none does. The lock files are root's alone, because whoever may
// open one may hold it. So it is the kernel that is asked, and the rest is read where everyone may.
func (r root) atWork(now time.Time) *agent.Lock {
	for _, file := range []string{workFile, lockFile} {
		pid := r.lockHolder(file)
		if pid == 0 {
			continue
		}
		if text, err := os.ReadFile(r.path(file)); err == nil {
			var held holding
			if json.Unmarshal(text, &held) == nil {
				return &held.Lock
			}
		}
		return r.holderByCommand(pid, now)
	}
	return nil
}

// lockHolder is the process that holds a flock on a file, as /proc/locks tells everyone; 0: none does.
func (r root) lockHolder(name string) int {
	var st syscall.Stat_t
	if syscall.Stat(r.path(name), &st) != nil {
		return 0
	}
	file, err := os.Open(r.path("/proc/locks"))
	if err != nil {
		return 0
	}
	defer file.Close()
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 00:1a:1234 0 EOF; those that wait for it have "->" before the kind.
		fields := strings.Fields(scanner.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[3] != "WRITE" || fields[5] != inode {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 && pid != os.Getpid() {
			return pid
		}
	}
	return 0
}

// holderByCommand finds out who deploys from the command line of the agent or job that holds a lock.
func (r root) holderByCommand(pid int, now time.Time) *agent.Lock {
	text, err := os.ReadFile(r.path(fmt.Sprintf("/proc/%d/cmdline", pid)))
	if err != nil {
		return &agent.Lock{}
	}
	argv := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	if i := slices.Index(argv, "--as"); i >= 0 && i+1 < len(argv) {
		return &agent.Lock{Who: argv[i+1], Since: r.startTime(pid, now)}
	}
	if len(argv) != 3 || filepath.Dir(argv[2]) != jobsFolder {
		return &agent.Lock{}
	}
	s, err := readShown(r.path(argv[2]))
	if err != nil {
		return &agent.Lock{}
	}
	s.Since = r.modified(filepath.Join(argv[2], jobFile))
	return &s.Lock
}

// userHZ is the unit of times in /proc for programs, on every machine.
const userHZ = 100

// startTime is when a process began, in seconds since 1970; 0: not known.
func (r root) startTime(pid int, now time.Time) int64 {
	ticks := r.startTicks(pid)
	up, _, _ := strings.Cut(r.line("/proc/uptime"), " ")
	seconds, upErr := strconv.ParseFloat(up, 64)
	if ticks == 0 || upErr != nil {
		return 0
	}
	return now.Unix() - int64(seconds) + ticks/userHZ
}
