// Package run starts every process that ferry starts. A command is an argv slice until the last moment; what runs can be
// traced as a line that pastes into a shell; an error carries the command, its exit status and the end of its stderr.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Command is one process to run. The zero value of every field but Argv is useful.
type Command struct {
	Argv []string // program and arguments; the program is looked up in PATH
	Dir  string   // working directory; the caller's own if empty
	Env  []string // NAME=VALUE entries added to the environment; later ones win
	// Without tells which variables of this program's environment the process is not given; nil: it is given all.
	Without func(name string) bool
	In      io.Reader // standard input; empty if nil
	// Out receives standard output. If nil, Run discards it.
	Out io.Writer
	// Err receives standard error as it comes, besides the tail kept for the error. May be nil.
	Err io.Writer
	// ErrFile, when set, is standard error itself, and Err is not used: a file that others may go on writing to when this program
	// has ended. What an error tells of it is read from its end.
	ErrFile *os.File
	// Grace is how long the process may go on after SIGTERM when ctx ends, before it is killed; 5 s if zero.
	Grace time.Duration
	// Insist repeats the SIGTERM until the process has ended, for programs that may miss one, as Nix does when it arrives at
	// the wrong moment.
	Insist bool
	// OwnGroup puts the process in a process group of its own, so that a Ctrl-C at the terminal does not reach it. When ctx
	// ends, the whole group gets SIGTERM.
	OwnGroup bool
	// OwnSession is like OwnGroup, in a session of its own that has no terminal to ask on.
	OwnSession bool
	// Terminal, when set with OwnGroup, is the controlling terminal that the new group gets as its foreground, so that the
	// process may ask for a password there. The caller takes it back with [TakeTerminal].
	Terminal *os.File
	// User, when set, is whom the process runs as, without the other groups that this user may have.
	User *User
	// Peak, when set, is called when the process has ended, with the most memory that it had at once, in bytes.
	Peak func(bytes int64)
}

// User is a user by number, and the group of its own.
type User struct{ UID, GID uint32 }

// Runner runs commands and tells Trace about each one first. The zero value works and is silent.
type Runner struct {
	// Trace, when set, is called before every start with the command. It may be called from several goroutines at once.
	Trace func(argv []string)
}

// Error is a command that did not start or did not exit with status 0.
type Error struct {
	Argv   []string
	Status int    // exit status; -1 if it did not start or was ended by a signal
	Stderr string // the last 64 KiB of standard error
	Err    error  // what os/exec said
}

// Error names the program, how it ended and the last line it wrote to standard error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(program(e.Argv))
	b.WriteString(": ")
	if e.Status >= 0 {
		fmt.Fprintf(&b, "exit status %d", e.Status)
	} else {
		b.WriteString(e.Err.Error())
	}
	if line := lastLine(e.Stderr); line != "" {
		b.WriteString(": ")
		b.WriteString(line)
	}
	return b.String()
}

// Unwrap gives what os/exec said, among it exec.ErrNotFound and the context's error.
func (e *Error) Unwrap() error { return e.Err }

// NotFound tells whether err means that the program to run is not in PATH.
func NotFound(err error) bool { return errors.Is(err, exec.ErrNotFound) }

// LeftOutputOpen tells whether err means that the process ended with status 0, and that something it has started held its
// output open for longer than the command's Grace.
func LeftOutputOpen(err error) bool { return errors.Is(err, exec.ErrWaitDelay) }

// Signal is the signal that ended the process, 0 if it ended otherwise.
func (e *Error) Signal() syscall.Signal {
	var exit *exec.ExitError
	if errors.As(e.Err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return status.Signal()
		}
	}
	return 0
}

// CommandLine is the command as a line that pastes into a shell.
func (e *Error) CommandLine() string { return QuoteAll(e.Argv) }

// Check refuses a command that no process can be started from: without a program, or with a NUL byte in a word.
func (c Command) Check() error {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return errors.New("no program to run")
	}
	for _, a := range c.Argv {
		if strings.IndexByte(a, 0) >= 0 {
			return fmt.Errorf("%s: an argument contains a NUL byte", program(c.Argv))
		}
	}
	return nil
}

// Run runs c to its end. When ctx ends first, the process gets SIGTERM and, after c.Grace, SIGKILL. Every failure is an
// [*Error].
func (r *Runner) Run(ctx context.Context, c Command) error {
	p, err := r.Start(ctx, c)
	if err != nil {
		return err
	}
	return p.Wait()
}

// Output runs c to its end and returns what it wrote to standard output; c.Out is not used.
func (r *Runner) Output(ctx context.Context, c Command) ([]byte, error) {
	var out bytes.Buffer
	c.Out = &out
	err := r.Run(ctx, c)
	return out.Bytes(), err
}

// Process is a started command. The caller must call Wait.
type Process struct {
	cmd  *exec.Cmd
	tail *Tail
	file *os.File // instead of tail
	ctx  context.Context
	peak func(int64)
}

// Start starts c. A failure is an [*Error].
func (r *Runner) Start(ctx context.Context, c Command) (*Process, error) {
	p, err := r.prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	p.cmd.Stdin, p.cmd.Stdout = c.In, c.Out
	return p.start()
}

// Pipe starts c with its standard input and output as pipes; c.In and c.Out are not used. Closing the writer is end of
// file for the process; Wait closes the reader.
func (r *Runner) Pipe(ctx context.Context, c Command) (*Process, io.WriteCloser, io.ReadCloser, error) {
	p, err := r.prepare(ctx, c)
	if err != nil {
		return nil, nil, nil, err
	}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, nil, nil, &Error{Argv: c.Argv, Status: -1, Err: err}
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, nil, &Error{Argv: c.Argv, Status: -1, Err: err}
	}
	if _, err := p.start(); err != nil {
		return nil, nil, nil, err
	}
	return p, in, out, nil
}

func (r *Runner) prepare(ctx context.Context, c Command) (*Process, error) {
	if err := c.Check(); err != nil {
		return nil, &Error{Argv: c.Argv, Status: -1, Err: err}
	}
	if r != nil && r.Trace != nil {
		r.Trace(c.Argv)
	}
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Dir = c.Dir
	if len(c.Env) > 0 || c.Without != nil {
		cmd.Env = append(c.inherited(), c.Env...)
	}
	cmd.Cancel = func() error {
		if c.Insist {
			go insist(cmd.Process)
		}
		if c.OwnGroup || c.OwnSession {
			// The group is the process and what it started: a shell's commands, ssh's ProxyCommand.
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); !errors.Is(err, syscall.ESRCH) {
				return err
			}
			return os.ErrProcessDone
		}
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	cmd.WaitDelay = c.Grace
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = 5 * time.Second
	}
	if c.OwnGroup {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if c.Terminal != nil {
			cmd.SysProcAttr.Foreground = true
			cmd.SysProcAttr.Ctty = int(c.Terminal.Fd())
		}
	}
	if c.OwnSession {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	if c.User != nil {
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = new(syscall.SysProcAttr)
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.User.UID, Gid: c.User.GID}
	}
	tail := &Tail{Limit: stderrTail}
	cmd.Stderr = tail
	if c.Err != nil {
		cmd.Stderr = io.MultiWriter(tail, c.Err)
	}
	if c.ErrFile != nil {
		cmd.Stderr = c.ErrFile
	}
	return &Process{cmd: cmd, tail: tail, file: c.ErrFile, ctx: ctx, peak: c.Peak}, nil
}

// inherited is what the process gets of this program's environment.
func (c Command) inherited() []string {
	if c.Without == nil {
		return os.Environ()
	}
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return c.Without(name)
	})
}

// stderrTail is how much of standard error an error tells, in bytes.
const stderrTail = 64 << 10

// insist returns when p has been waited for, which os.Process remembers: no later process with its number is signalled.
func insist(p *os.Process) {
	for {
		time.Sleep(200 * time.Millisecond)
		if p.Signal(syscall.SIGTERM) != nil {
			return
		}
	}
}

func (p *Process) start() (*Process, error) {
	if err := p.cmd.Start(); err != nil {
		return nil, &Error{Argv: p.cmd.Args, Status: -1, Err: err}
	}
	return p, nil
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill ends the process at once.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// Signal sends sig to the process.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Stderr is the end of what the process has written to standard error so far.
func (p *Process) Stderr() string {
	if p.file != nil {
		return FileTail(p.file)
	}
	return p.tail.String()
}

// Wait waits for the end. If ctx ended the process, the error is also ctx's error.
func (p *Process) Wait() error {
	err := p.cmd.Wait()
	if p.peak != nil && p.cmd.ProcessState != nil {
		if usage, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			p.peak(int64(usage.Maxrss) * maxrssUnit)
		}
	}
	if err == nil {
		return nil
	}
	e := &Error{Argv: p.cmd.Args, Status: -1, Stderr: p.Stderr(), Err: err}
	if cause := p.ctx.Err(); cause != nil {
		e.Err = cause
		return e
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		e.Status = exit.ExitCode()
	}
	return e
}

func program(argv []string) string {
	if len(argv) == 0 || argv[0] == "" {
		return "command"
	}
	name := argv[0]
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name = name[i+1:]
	}
	return name
}

func lastLine(s string) string {
	s = strings.TrimRight(s, " \t\r\n")
	return Clean(s[strings.LastIndexByte(s, '\n')+1:])
}
