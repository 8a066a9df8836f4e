package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	binfmtMount = "/proc/sys/fs/binfmt_misc"
	// binfmtConf is what Debian's qemu-user-static would register at boot.
	binfmtConf = "/usr/lib/binfmt.d/qemu-aarch64.conf"
)

// registerAarch64 makes this machine run aarch64 programs, in machines and build sandboxes too. Registrations are the
// kernel's and not a namespace's, so a run makes one of its own unless the host has a permanent one: another run's goes
// away when that run ends.
func (r run) registerAarch64() error {
	if err := mountBinfmt(); err != nil {
		return err
	}
	conf, err := os.ReadFile(binfmtConf)
	if err != nil {
		return fmt.Errorf("%w (is qemu-user-static installed?)", err)
	}
	rule, err := parseBinfmt(string(conf))
	if err != nil {
		return fmt.Errorf("%s: %w", binfmtConf, err)
	}
	if hostRuns(rule) {
		return nil
	}
	rule[1] = r.id()
	return writeBinfmt("register", strings.Join(rule, ":"))
}

// unregisterAarch64 takes back what registerAarch64 did, if it did.
func (r run) unregisterAarch64() error {
	if err := mountBinfmt(); err != nil {
		return err
	}
	err := writeBinfmt(r.id(), "-1")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// writeBinfmt writes to a file that the kernel made there.
func writeBinfmt(name, text string) error {
	f, err := os.OpenFile(filepath.Join(binfmtMount, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// mountBinfmt makes the kernel's list of interpreters visible in this mount namespace, which must be private.
func mountBinfmt() error {
	if _, err := os.Stat(filepath.Join(binfmtMount, "register")); err == nil {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("binfmt_misc", binfmtMount, "binfmt_misc", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", binfmtMount, err)
	}
	return nil
}

// parseBinfmt splits the first rule of a binfmt.d file into its fields: "", name, type, offset, magic, mask,
// interpreter, flags. The flag F, which opens the interpreter now and so works where its path does not, is made sure of.
func parseBinfmt(conf string) ([]string, error) {
	for line := range strings.Lines(conf) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		fields := strings.Split(line, line[:1])
		if len(fields) != 8 {
			return nil, fmt.Errorf("%d fields instead of 8 in %q", len(fields), line)
		}
		if !strings.Contains(fields[7], "F") {
			fields[7] += "F"
		}
		return fields, nil
	}
	return nil, errors.New("no rule in it")
}

// hostRuns says whether something that is not a lab has registered an interpreter for the same files, with flag F.
func hostRuns(rule []string) bool {
	magic := []byte("magic " + strings.ReplaceAll(rule[4], `\x`, "") + "\n")
	entries, _ := os.ReadDir(binfmtMount)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "ferry-lab-") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(binfmtMount, entry.Name()))
		if err != nil || !bytes.HasPrefix(text, []byte("enabled\n")) || !bytes.Contains(text, magic) {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if flags, ok := strings.CutPrefix(line, "flags: "); ok && strings.Contains(flags, "F") {
				return true
			}
		}
	}
	return false
}
