package server

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/bootloader"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

// gatherFacts finds out what the target is like, without an evaluation and as much at once as possible: ferry waits for it.
func gatherFacts(ctx context.Context, runner *run.Runner, r machine.Root) agent.Facts {
	facts := agent.Facts{
		Machine:         processorName(),
		NixOS:           isNixOS(r),
		Current:         r.StorePath("/run/current-system"),
		Booted:          r.StorePath("/run/booted-system"),
		Profile:         r.StorePath(systemProfile),
		Bundle:          currentBundle(r),
		NoLink:          noLink(r),
		Emptied:         emptiedFolders(r),
		StoreFree:       free(r.Path("/nix/store")),
		BootFree:        free(r.Path("/boot")),
		StoreCompresses: compresses(r.Path("/nix/store")),
		BootID:          r.Line("/proc/sys/kernel/random/boot_id"),
		Time:            time.Now().Unix(),
	}
	if facts.Bundle != "" {
		facts.Committed = r.StorePath(facts.Bundle + "/profile")
	}
	addOrigin(r, &facts)
	if facts.Current != "" {
		facts.InitInterface = agent.Verbatim(r.Text(facts.Current + "/init-interface-version"))
		facts.Inhibitors = agent.Verbatim(r.Text(facts.Current + "/switch-inhibitors"))
	}
	facts.Host, _ = os.Hostname()
	facts.System = nixSystem(r, facts.Machine)
	var group sync.WaitGroup
	group.Go(func() {
		facts.Nix, facts.NixError = nixVersion(ctx, runner)
	})
	group.Go(func() {
		if r.Exists(machine.SystemdRuns) {
			facts.Systemd = systemdVersion(ctx, runner)
		}
	})
	facts.BootOnce = bootloader.FindName(r)
	group.Wait()
	if facts.BootOnce == bootloader.SystemdBoot && facts.Systemd < bootloader.OneShotSystemd {
		facts.BootOnce = ""
	}
	return facts
}

// isNixOS is the test that switch-to-configuration itself makes.
func isNixOS(r machine.Root) bool {
	if r.Exists("/etc/NIXOS") {
		return true
	}
	text, err := os.ReadFile(r.Path("/etc/os-release"))
	return err == nil && nixosRelease.Match(text)
}

var nixosRelease = regexp.MustCompile(`(?m)^ID="?nixos"?$`)

func processorName() string {
	var u syscall.Utsname
	if syscall.Uname(&u) != nil {
		return ""
	}
	var b strings.Builder
	for _, c := range u.Machine {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

// nixSystem is what this machine's Nix calls its system: the running NixOS says it, else nix.conf may, else it follows from
// the machine. Asking Nix itself would be an evaluation.
func nixSystem(r machine.Root, machine string) string {
	if s := r.Line("/run/current-system/system"); s != "" {
		return s
	}
	if conf, err := os.ReadFile(r.Path("/etc/nix/nix.conf")); err == nil {
		for line := range strings.Lines(string(conf)) {
			if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "system" {
				return strings.TrimSpace(value)
			}
		}
	}
	switch {
	case machine == "arm64":
		machine = "aarch64"
	case len(machine) == 4 && machine[0] == 'i' && machine[2:] == "86":
		machine = "i686"
	case strings.HasPrefix(machine, "armv7"), machine == "armv8l":
		machine = "armv7l"
	case strings.HasPrefix(machine, "armv6"):
		machine = "armv6l"
	}
	return machine + "-linux"
}

// busyFor is how long a Nix whose database somebody else has locked, or makes just now, is asked again: it looks there even
// for its version.
const busyFor = 10 * time.Second

// busy tells whether a Nix that failed may succeed by itself: another process holds the database, or is the first one on this
// machine and has made the file of the schema's number, but not yet written the number.
func busy(err error) bool {
	return strings.Contains(err.Error(), "is busy") || strings.Contains(err.Error(), "db/schema' is corrupt")
}

func nixVersion(ctx context.Context, runner *run.Runner) (version, problem string) {
	var out []byte
	var err error
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		out, err = runner.Output(ctx, run.Command{Argv: []string{"nix-store", "--version"}})
		if err == nil || !busy(err) || time.Since(start) > busyFor {
			break
		}
	}
	if run.NotFound(err) {
		return "", "nix-store is not in PATH"
	}
	if err != nil {
		return "", err.Error()
	}
	_, version, _ = strings.Cut(strings.TrimSpace(string(out)), ") ")
	return version, ""
}

func systemdVersion(ctx context.Context, runner *run.Runner) int {
	out, err := runner.Output(ctx, run.Command{Argv: []string{"systemctl", "--version"}})
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(out))
	if len(fields) < 2 {
		return 0
	}
	// 252, 258.1, 261~rc2
	digits := strings.IndexFunc(fields[1]+".", func(r rune) bool { return r < '0' || r > '9' })
	n, _ := strconv.Atoi(fields[1][:digits])
	return n
}

// free is how many bytes can still be written below p; 0 if that is not known.
func free(p string) int64 {
	var st syscall.Statfs_t
	if syscall.Statfs(p, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

// compresses tells whether the file system of p is one that may compress what it stores. The numbers are from linux/magic.h
// and, for the two that are not there, from OpenZFS and bcachefs.
func compresses(p string) bool {
	var st syscall.Statfs_t
	if syscall.Statfs(p, &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case 0x9123683e, // btrfs
		0xf2f52010, // f2fs
		0x2fc12fc1, // zfs
		0xca451a4e: // bcachefs
		return true
	}
	return false
}

// removeOldAgents removes the agents of other versions of ferry, what interrupted installations left, an hour after, and the
// programs of switches that have ended, or that a reboot has ended. What is armed keeps its own.
func removeOldAgents(r machine.Root, program string) {
	folder := filepath.Dir(program)
	if folder != r.Path(agent.Folder) {
		return
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := e.Name()
		if name == filepath.Base(program) {
			continue
		}
		if strings.HasPrefix(name, armedAgent) {
			dir := r.Path(filepath.Join(machine.RunFolder, strings.TrimPrefix(name, armedAgent)+"-"+string(JobSwitch)))
			if _, ended, _ := readStatus(dir); ended || !fileExists(filepath.Join(dir, jobFile)) {
				_ = os.Remove(filepath.Join(folder, name))
			}
			continue
		}
		if strings.HasPrefix(name, "agent-") || strings.HasPrefix(name, ".new-") && olderThan(e, time.Hour) {
			_ = os.Remove(filepath.Join(folder, name))
		}
	}
}

func olderThan(e fs.DirEntry, age time.Duration) bool {
	info, err := e.Info()
	return err == nil && time.Since(info.ModTime()) > age
}
