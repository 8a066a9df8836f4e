package lab

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os/exec"
	"strconv"
	"strings"
)

// Command is a command to be run as root in the machine, without ssh and without leaving a trace in its logs. The
// machine must be on, else the command fails when it is started. Killing it, as the end of ctx does, does not kill what
// runs in the machine.
func (t *Target) Command(ctx context.Context, argv ...string) *exec.Cmd {
	on := t.current()
	if on == nil {
		cmd := exec.CommandContext(ctx, argv[0])
		cmd.Err = fmt.Errorf("%s: is off", t.name)
		return cmd
	}
	return t.commandIn(ctx, on, argv...)
}

func (t *Target) commandIn(ctx context.Context, on *power, argv ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(on.pidOne()), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"}
	if !t.opts.NoSystemd {
		enter = append(enter, "--cgroup")
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(append(enter, "--"), argv...)...)
	cmd.Env = []string{"PATH=/run/current-system/sw/bin:" + hostPath, "HOME=/root", "USER=root", "LC_ALL=C.UTF-8"}
	return cmd
}

// Output runs a command as Command does and returns its standard output. The error of a command that fails has the end
// of its standard error.
func (t *Target) Output(ctx context.Context, argv ...string) ([]byte, error) {
	cmd := t.Command(ctx, argv...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %s: %w: %s", t.name, strings.Join(argv, " "), err, lastLines(stderr.String(), 10))
	}
	return out, nil
}

// Inside is where a file of the running machine is found from the test, with what the machine has mounted itself; "" while it is
// off. An absolute link on the way leads out of the machine: it is for files of which that is known.
func (t *Target) Inside(path string) string {
	on := t.current()
	if on == nil {
		return ""
	}
	return fmt.Sprintf("/proc/%d/root%s", on.pidOne(), path)
}

// ReadFile reads a file of the machine as it sees it.
func (t *Target) ReadFile(ctx context.Context, path string) ([]byte, error) {
	return t.Output(ctx, "cat", "--", path)
}

// WriteFile writes a file of the machine, as root, with the folders above it.
func (t *Target) WriteFile(ctx context.Context, path string, data []byte, mode fs.FileMode) error {
	cmd := t.Command(ctx, "install", "-D", "-m", strconv.FormatUint(uint64(mode.Perm()), 8), "/dev/stdin", path)
	cmd.Stdin = bytes.NewReader(data)
	if err := quietly(cmd); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	return nil
}
