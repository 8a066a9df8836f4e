package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// power is a machine being on: from power on to power off or cut, reboots included.
type power struct {
	done chan struct{} // closed when the machine is off

	mu     sync.Mutex
	cmd    *exec.Cmd // what holds the machine up: nspawn or unshare
	leader int       // PID 1 of the machine, seen from the lab
	count  int       // how many boots have begun
	off    bool      // it has been told to go off: do not boot it again
}

// rebootStatus is how nspawn says that the machine wants to be booted again.
const rebootStatus = 133

// startPower boots the machine and returns once its PID 1 exists.
func (t *Target) startPower() (*power, error) {
	p := &power{done: make(chan struct{})}
	if err := t.boot(p); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		for {
			// How it ended shows in the status, which decides whether that was a reboot.
			_ = p.cmd.Wait()
			if p.cmd.ProcessState.ExitCode() != rebootStatus || t.boot(p) != nil {
				return
			}
		}
	}()
	return p, nil
}

// boot starts the machine once.
func (t *Target) boot(p *power) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return errors.New("has been told to go off")
	}
	if err := t.link.reset(); err != nil {
		return err
	}
	console, err := os.OpenFile(t.consoleFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	// A newer nspawn that was killed leaves this mounted and then refuses the name.
	export := "/run/systemd/nspawn/unix-export/" + t.name
	if err := unix.Unmount(export, unix.MNT_DETACH); err == nil {
		if err := os.Remove(export); err != nil {
			return err
		}
	}
	cmd := t.bootCommand()
	cmd.Stdout, cmd.Stderr = console, console
	cgroup, err := t.run.makeCgroup(t.name)
	if err != nil {
		return err
	}
	if t.opts.Memory > 0 {
		if err := t.run.limitMemory(cmd, t.name, t.opts.Memory); err != nil {
			return err
		}
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	leader, err := awaitLeader(cmd.Process.Pid, t.Root())
	if err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait(), errors.New(t.consoleTail()))
	}
	p.cmd, p.leader = cmd, leader
	p.count++
	return nil
}

// bootCommand is what holds the machine up: it ends when the machine goes off, and lives in the machine's network.
func (t *Target) bootCommand() *exec.Cmd {
	var cmd *exec.Cmd
	if t.opts.NoSystemd {
		cmd = exec.Command("nsenter", "--net="+t.link.path(), "--",
			"unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc="+t.Root()+"/proc",
			"--", "chroot", t.Root(), machineScript, "light")
	} else {
		cmd = exec.Command("systemd-nspawn", "--quiet", "--directory="+t.Root(), "--machine="+t.name, "--hostname="+t.name,
			"--register=no", "--keep-unit", "--network-namespace-path="+t.link.path(), "--capability=CAP_NET_ADMIN",
			"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe", "--", machineScript, "boot")
	}
	cmd.Env = []string{"PATH=" + hostPath, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "LC_ALL=C.UTF-8"}
	return cmd
}

// hostPath finds the lab's own tools, and the machine's before any NixOS is on it.
const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// awaitLeader waits until the process that holds a machine up has a child that is the machine's PID 1.
func awaitLeader(holder int, root string) (int, error) {
	deadline := time.Now().Add(processLimit)
	for time.Now().Before(deadline) {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", holder, holder))
		if err != nil {
			return 0, fmt.Errorf("the machine did not start: %w", err)
		}
		for _, child := range strings.Fields(string(children)) {
			pid, err := strconv.Atoi(child)
			if err == nil && isLeader(pid, root) {
				return pid, nil
			}
		}
		if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", holder)); err != nil || bytes.Contains(state, []byte(") Z ")) {
			return 0, errors.New("the machine did not start")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, fmt.Errorf("the machine did not start in %v", processLimit)
}

// isLeader says whether a process is PID 1 of its namespace and already has the machine's root as its own. Until then,
// what is run next to it would run on the lab's own files.
func isLeader(pid int, root string) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	first := false
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "NSpid:" {
			first = f[len(f)-1] == "1"
		}
	}
	want, err := os.Stat(root)
	if err != nil {
		return false
	}
	have, err := os.Stat(fmt.Sprintf("/proc/%d/root", pid))
	return first && err == nil && os.SameFile(want, have)
}

func (p *power) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *power) boots() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

func (p *power) pidOne() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leader
}

// cut ends the machine at once and returns when all its processes are gone.
func (p *power) cut() error {
	p.mu.Lock()
	p.off = true
	// nspawn first, so that it does not see its machine end and start to tidy. The leader would live on without it, and
	// keep its name and its interface.
	if p.running() {
		for _, pid := range []int{p.cmd.Process.Pid, p.leader} {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	leader := p.leader
	p.mu.Unlock()
	select {
	case <-p.done:
	case <-time.After(processLimit):
		return errors.New("the machine could not be killed")
	}
	return waitGone(leader)
}
