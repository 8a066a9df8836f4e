package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// initStage is PID 1 of the run: it makes the namespaces a fit place, starts the inside process and returns its status.
// When it returns, the kernel ends whatever still runs in there.
func initStage() (int, error) {
	// What is written into machines must be readable there, however careful the user is with their own files.
	unix.Umask(0o022)
	r := run{scratch: os.Getenv(envScratch)}
	if err := r.mountAll(); err != nil {
		return 0, fmt.Errorf("lab namespace: %w", err)
	}
	if err := r.startNetwork(); err != nil {
		return 0, fmt.Errorf("lab network: %w", err)
	}
	if err := r.registerAarch64(); err != nil {
		return 0, fmt.Errorf("aarch64 emulation: %w", err)
	}
	if err := r.makeKeys(); err != nil {
		return 0, fmt.Errorf("ssh key: %w", err)
	}
	return reapUntil(stageCommand(stageInside, r.scratch))
}

// mountAll gives the run its own /proc and /run, and a scratch folder that overlays can be made on.
func (r run) mountAll() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// nspawn and ip-netns keep their names in /run, and a system manager of the host would answer there.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(r.scratch, &fs); err != nil {
		return fmt.Errorf("%s: %w", r.scratch, err)
	}
	// Inside a container the temporary folder is often an overlay itself, on which no other can stand.
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		if err := unix.Mount("tmpfs", r.scratch, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", r.scratch, err)
		}
	}
	return nil
}

// reapUntil starts cmd and waits for every child, adopted orphans included, until cmd itself has ended.
func reapUntil(cmd *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = unix.Kill(cmd.Process.Pid, s.(unix.Signal))
		}
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case pid == cmd.Process.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == cmd.Process.Pid && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}

// makeKeys makes the key with which building machines log in to target machines.
func (r run) makeKeys() error {
	if err := os.MkdirAll(filepath.Dir(r.keyFile()), 0o755); err != nil {
		return err
	}
	return makeKey(r.keyFile(), "lab")
}

func (r run) keyFile() string { return filepath.Join(r.scratch, "keys/id_ed25519") }

// makeKey makes an ssh key pair path, path.pub without a passphrase.
func makeKey(path, comment string) error {
	return quietly(exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path))
}
