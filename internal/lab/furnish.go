package lab

import (
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	nativeSystem = "x86_64-linux"

	// Files of a target that the lab reads.
	sshdLog = "/var/log/sshd.log"
	sudoLog = "/var/log/sudo.log"

	// machineScript is the first program of a target.
	machineScript = "/etc/lab/machine"
	// leaseFile is where a target finds what the network would tell it.
	leaseFile = "/etc/lab/lease"
)

//go:embed machine.sh
var machineText string

// A target builds and downloads nothing; its Nix fails at once if it is asked to.
const targetNixConf = `max-jobs = 0
substituters =
sandbox = false
build-users-group =
extra-platforms =
`

// nixosDaemonTmpfiles lets everyone reach the Nix daemon. It takes the place of Debian's file of the same name.
const nixosDaemonTmpfiles = `d /nix/var/nix/daemon-socket 0755 root root
d /nix/var/nix/gcroots/per-user 1777
d /nix/var/nix/profiles/per-user 1777
`

// sshdOptions hold on a target whatever its sshd_config says. Tests make many connections, and answer one kind of question.
const sshdOptions = "-E " + sshdLog + " -o UseDNS=no -o MaxStartups=200:30:400 -o KbdInteractiveAuthentication=no"

// fakeUname answers as a machine of the given CPU would; the real one comes from the kernel and tells the truth.
const fakeUname = `#!/bin/sh
[ "$*" = -m ] && echo %s && exit
exec busybox uname "$@"
`

// furnish writes into the machine's root what makes it this machine and not just its base.
func (t *Target) furnish() error {
	public, err := os.ReadFile(t.run.keyFile() + ".pub")
	if err != nil {
		return err
	}
	if err := addUsers(t.Root(), targetUsers(), string(public)); err != nil {
		return fmt.Errorf("users: %w", err)
	}
	if err := t.makeHostKey(); err != nil {
		return fmt.Errorf("host key: %w", err)
	}
	// Debian's managers of users see /etc/systemd/user by this name first; NixOS has no such link.
	if err := os.Remove(filepath.Join(t.Root(), "etc/xdg/systemd/user")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !t.opts.DebianDaemon {
		// tmpfiles keeps it so, where there is systemd.
		if err := os.Chmod(filepath.Join(t.Root(), "nix/var/nix/daemon-socket"), 0o755); err != nil {
			return err
		}
	}
	for mode, files := range t.files() {
		for name, text := range files {
			if err := t.place(name, text, mode); err != nil {
				return err
			}
		}
	}
	return nil
}

// files are the files of the machine that its base does not have or has differently, by mode.
func (t *Target) files() map[fs.FileMode]map[string]string {
	id := make([]byte, 16)
	rand.Read(id)
	sshd := sshdOptions
	if t.opts.Suite != "bookworm" {
		// A test that gives a wrong password must not lock out the next one. Older versions have no such thing.
		sshd += " -o PerSourcePenalties=no"
	}
	readable := map[string]string{
		"etc/machine-id":   hex.EncodeToString(id) + "\n",
		"etc/hostname":     t.name + "\n",
		"etc/hosts":        "127.0.0.1 localhost\n127.0.1.1 " + t.name + "\n",
		"etc/nix/nix.conf": targetNixConf,
		"etc/default/ssh":  fmt.Sprintf("SSHD_OPTS='%s'\n", sshd),
		leaseFile:          t.link.lease(),
		sshdLog:            "",
		sudoLog:            "",
	}
	programs := map[string]string{machineScript: machineText}
	if t.opts.System != nativeSystem {
		cpu, _, _ := strings.Cut(t.opts.System, "-")
		readable["etc/nix/nix.conf"] += "system = " + t.opts.System + "\n"
		programs["usr/bin/uname"] = fmt.Sprintf(fakeUname, cpu)
	}
	if !t.opts.DebianDaemon {
		readable["etc/tmpfiles.d/nix-daemon.conf"] = nixosDaemonTmpfiles
	}
	if !t.opts.NotNixOS {
		readable["etc/NIXOS"] = ""
		readable["etc/nixos/README"] = "Empty: this machine gets its system from elsewhere.\n"
	}
	return map[fs.FileMode]map[string]string{
		0o644: readable,
		0o755: programs,
		0o400: {"etc/sudoers.d/lab": sudoers, "etc/doas.conf": doasConf},
	}
}

// makeHostKey makes the key by which the machine is recognised.
func (t *Target) makeHostKey() error {
	file := filepath.Join(t.Root(), "etc/ssh/ssh_host_ed25519_key")
	if err := makeKey(file, t.name); err != nil {
		return err
	}
	public, err := os.ReadFile(file + ".pub")
	t.hostKey = strings.TrimSpace(string(public))
	return err
}

// place writes one file of a machine that is off.
func (t *Target) place(name, text string, mode fs.FileMode) error {
	path := filepath.Join(t.Root(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// A file of the base keeps its mode otherwise.
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}
