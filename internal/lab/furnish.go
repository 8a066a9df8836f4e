package lab

import (
	"crypto/rand"
	"encoding/hex"
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

	// lightInit is PID 1 of a target without systemd.
	lightInit = "/etc/lab/init"
)

const lightInitScript = `#!/bin/sh
mkdir -p /run/sshd
rm -f /nix/var/nix/daemon-socket/socket
nix-daemon --daemon </dev/null >/var/log/nix-daemon.log 2>&1 &
exec /usr/sbin/sshd -D -E ` + sshdLog + "\n"

// bootScript is what a boot loader, stage 2 and systemd's first transaction are on a real machine: it makes the system
// that /boot/default names the running one.
const bootScript = `#!/bin/sh
set -eu
[ -s /boot/default ] || exit 0
read -r toplevel </boot/default
ln -sfn "$toplevel" /run/booted-system
"$toplevel/activate"
ln -sfn "$toplevel" /run/current-system
systemctl daemon-reload
systemctl --no-block start default.target
`

const bootUnit = `[Unit]
Description=Start the system that /boot/default names
After=nix-daemon.socket systemd-tmpfiles-setup.service
Before=ssh.service multi-user.target

[Service]
Type=oneshot
RemainAfterExit=yes
Environment=PATH=` + hostPath + `
ExecStart=/etc/lab/boot
`

// A target builds and downloads nothing; its Nix fails at once if it is asked to.
const targetNixConf = `max-jobs = 0
substituters =
sandbox = false
build-users-group =
extra-platforms =
`

const sshdConf = `HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 200:30:400
`

// fakeUname answers as a machine of the given CPU would; the real one comes from the kernel and tells the truth.
const fakeUname = `#!/bin/sh
[ "$*" = -m ] && echo %s && exit
exec /usr/bin/uname "$@"
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
	hostKey := filepath.Join(t.Root(), "etc/ssh/ssh_host_ed25519_key")
	if err := makeKey(hostKey, t.name); err != nil {
		return err
	}
	if public, err = os.ReadFile(hostKey + ".pub"); err != nil {
		return err
	}
	t.hostKey = strings.TrimSpace(string(public))
	id := make([]byte, 16)
	rand.Read(id)

	nixConf, sshd := targetNixConf, sshdConf
	if t.opts.System != nativeSystem {
		nixConf += "system = " + t.opts.System + "\n"
	}
	if t.opts.Suite != "bookworm" {
		// A test that gives a wrong password must not lock out the next one. Older versions have no such thing.
		sshd += "PerSourcePenalties no\n"
	}
	files := map[string]string{
		"etc/machine-id":                      hex.EncodeToString(id) + "\n",
		"etc/hostname":                        t.name + "\n",
		"etc/hosts":                           "127.0.0.1 localhost\n127.0.1.1 " + t.name + "\n",
		"etc/nix/nix.conf":                    nixConf,
		"etc/ssh/sshd_config.d/lab.conf":      sshd,
		"etc/default/ssh":                     "SSHD_OPTS='-E " + sshdLog + "'\n",
		"etc/systemd/system/lab-boot.service": bootUnit,
		sshdLog:                               "",
		sudoLog:                               "",
	}
	modes := map[string]string{
		lightInit:      lightInitScript,
		"etc/lab/boot": bootScript,
	}
	secret := map[string]string{
		"etc/sudoers.d/lab": sudoers,
		"etc/doas.conf":     doasConf,
	}
	if !t.opts.DebianDaemon {
		files["etc/tmpfiles.d/nix-daemon.conf"] = "d /nix/var/nix/daemon-socket 0755 root root\n" +
			"d /nix/var/nix/gcroots/per-user 1777\nd /nix/var/nix/profiles/per-user 1777\n"
	}
	if !t.opts.NotNixOS {
		files["etc/NIXOS"] = ""
		files["etc/nixos/README"] = "Empty: this machine gets its system from elsewhere.\n"
	}
	if cpu, _, _ := strings.Cut(t.opts.System, "-"); t.opts.System != nativeSystem {
		modes["usr/local/bin/uname"] = fmt.Sprintf(fakeUname, cpu)
	}
	for mode, group := range map[fs.FileMode]map[string]string{0o644: files, 0o755: modes, 0o400: secret} {
		for name, text := range group {
			if err := t.place(name, text, mode); err != nil {
				return err
			}
		}
	}
	wants := filepath.Join(t.Root(), "etc/systemd/system/multi-user.target.wants/lab-boot.service")
	return os.Symlink("/etc/systemd/system/lab-boot.service", wants)
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
