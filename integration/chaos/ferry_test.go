package chaos_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// ferry is a ferry that was started.
type ferry struct {
	cmd   *exec.Cmd
	node  string
	file  string // with what it says
	ended chan struct{}
}

// start starts ferry for a node of the project, as for a person who has the password at hand.
func (m *machine) start(a action, node string, flags ...string) (*ferry, error) {
	switch a {
	case doRollback:
		return m.startCommand("rollback", node, flags...)
	case doReboot:
		return m.startCommand("deploy", node, append(flags, "--reboot", "--reboot-timeout=30s")...)
	}
	return m.startCommand("deploy", node, append(flags, "--action="+string(a))...)
}

func (m *machine) startCommand(command, node string, flags ...string) (*ferry, error) {
	args := append([]string{command, node, "--sudo-password-file", m.Password}, flags...)
	f := &ferry{node: node, ended: make(chan struct{})}
	f.cmd = m.Command(args...)
	// A file, and no pipe: what ferry leaves behind would be waited for.
	out, err := os.CreateTemp(m.T.TempDir(), "ferry-")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	f.file = out.Name()
	f.cmd.Stdout, f.cmd.Stderr = out, out
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		// How it ended is in the state of its process.
		_ = f.cmd.Wait()
		close(f.ended)
	}()
	return f, nil
}

// wait gives ferry's exit status, -1 if a signal has ended it; false if it has not ended by then.
func (f *ferry) wait(patience time.Duration) (status int, ended bool) {
	select {
	case <-f.ended:
	case <-time.After(patience):
		if !f.isOver() {
			return 0, false
		}
	}
	return f.cmd.ProcessState.ExitCode(), true
}

func (f *ferry) isOver() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

// signal sends a signal to a ferry that is there.
func (f *ferry) signal(s syscall.Signal) error {
	if f.isOver() {
		return errors.New("ferry has ended already")
	}
	return f.cmd.Process.Signal(s)
}

// end ends a ferry for good.
func (f *ferry) end() {
	_ = f.cmd.Process.Kill()
	<-f.ended
}

func (f *ferry) output() string {
	text, err := os.ReadFile(filepath.Clean(f.file))
	if err != nil {
		return err.Error()
	}
	return string(text)
}
