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
	"ferry/internal/disk"
	"ferry/internal/nix"
	"ferry/internal/run"
)

// systemdRuns is there where PID 1 is systemd.
const systemdRuns = "/run/systemd/system"

// root is where the machine's files are looked up: "" on a target, a folder in a test.
type root struct {
	dir  string
	disk disk.Disk
}

func (r root) path(p string) string { return r.dir + p }

func (r root) line(p string) string {
	data, err := os.ReadFile(r.path(p))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

// maxText is how much of a file of the running system is told, in bytes.
const maxText = 64 << 10

// text is the content of a file of a system, or "" if there is none, or too much of it.
func (r root) text(p string) string {
	text, _ := newInspectedFiles(r).read(p, storeFolder)
	if len(text) > maxText {
		return ""
	}
	return text
}

// storePath is the store path that a chain of links ends at, or "" if it ends elsewhere or nowhere.
func (r root) storePath(p string) string {
	for range 40 {
		if _, err := nix.ParseStorePath(p); err == nil && r.exists(p) {
			return p
		}
		to, err := os.Readlink(r.path(p))
		if err != nil {
			return ""
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(p), to)
		}
		p = filepath.Clean(to)
	}
	return ""
}

func (r root) exists(p string) bool {
	_, err := os.Lstat(r.path(p))
	return err == nil
}

// gatherFacts finds out what the target is like, without an evaluation and as much at once as possible: ferry waits for it.
func gatherFacts(ctx context.Context, runner *run.Runner, r root) agent.Facts {
	facts := agent.Facts{
		Machine:         machine(),
		NixOS:           r.isNixOS(),
		Current:         r.storePath("/run/current-system"),
		Booted:          r.storePath("/run/booted-system"),
		Profile:         r.storePath(systemProfile),
		Bundle:          r.currentBundle(),
		NoLink:          r.noLink(),
		Emptied:         r.emptied(),
		StoreFree:       free(r.path("/nix/store")),
		BootFree:        free(r.path("/boot")),
		StoreCompresses: compresses(r.path("/nix/store")),
		BootID:          r.line("/proc/sys/kernel/random/boot_id"),
		Time:            time.Now().Unix(),
	}
	if facts.Bundle != "" {
		facts.Committed = r.storePath(facts.Bundle + "/profile")
	}
	r.addOrigin(&facts)
	if facts.Current != "" {
		facts.InitInterface = agent.Verbatim(r.text(facts.Current + "/init-interface-version"))
		facts.Inhibitors = agent.Verbatim(r.text(facts.Current + "/switch-inhibitors"))
	}
	facts.Host, _ = os.Hostname()
	facts.System = r.system(facts.Machine)
	var group sync.WaitGroup
	group.Go(func() {
		facts.Nix, facts.NixError = nixVersion(ctx, runner)
	})
	group.Go(func() {
		if r.exists(systemdRuns) {
			facts.Systemd = systemdVersion(ctx, runner)
		}
	})
	facts.BootOnce = r.bootOnce()
	group.Wait()
	if facts.BootOnce == (systemdBoot{}).name() && facts.Systemd < oneShotSystemd {
		facts.BootOnce = ""
	}
	return facts
}

// isNixOS is the test that switch-to-configuration itself makes.
func (r root) isNixOS() bool {
	if r.exists("/etc/NIXOS") {
		return true
	}
	text, err := os.ReadFile(r.path("/etc/os-release"))
	return err == nil && nixosRelease.Match(text)
}

var nixosRelease = regexp.MustCompile(`(?m)^ID="?nixos"?$`)

func machine() string {
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

// system is what this machine's Nix calls its system: the running NixOS says it, else nix.conf may, else it follows from
// the machine. Asking Nix itself would be an evaluation.
func (r root) system(machine string) string {
	if s := r.line("/run/current-system/system"); s != "" {
		return s
	}
	if conf, err := os.ReadFile(r.path("/etc/nix/nix.conf")); err == nil {
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
func removeOldAgents(r root, program string) {
	folder := filepath.Dir(program)
	if folder != r.path(agent.Folder) {
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
			dir := r.path(filepath.Join(jobsFolder, strings.TrimPrefix(name, armedAgent)+"-"+string(JobSwitch)))
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
