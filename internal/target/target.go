// Package target reaches a node: through the user's own OpenSSH, or this machine directly. One ssh master per target does
// the login; everything else rides on it.
package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"ferry/internal/run"
)

// Dialer holds what all connections of one ferry process share.
type Dialer struct {
	Runner *run.Runner
	// SSHConfig is the configuration file for ssh -F; the user's own if empty.
	SSHConfig string
	// Terminal is the controlling terminal that ssh may ask for a password or a passphrase on. Without one, ssh never asks.
	Terminal *os.File
	// Asking, when set, is called before ssh gets the terminal, and the function it returns once ferry has it back.
	Asking func() func()
}

// Channel is a program running on the target, with its standard input and output.
type Channel struct {
	In  io.WriteCloser
	Out io.ReadCloser

	addr    Address
	stderr  io.Writer
	process *run.Process
	ready   func()
	cleanup func()
	stop    context.CancelFunc
}

// Start runs line, one command line for whatever login shell the target's user has, and gives its streams. Standard error,
// ssh's own included, goes to stderr as it comes; if stderr is a [fmt.Stringer], an error of ssh is looked for in what that
// says was written. Cancelling ctx ends the connection. The caller must call [Channel.Wait].
func (d *Dialer) Start(ctx context.Context, addr Address, line string, stderr io.Writer) (*Channel, error) {
	if addr.Local() {
		return d.startLocal(ctx, addr, line, stderr)
	}
	control, cleanup, err := controlPath()
	if err != nil {
		return nil, err
	}
	terminal := d.terminal()
	argv := append(d.master(control, terminal != nil, "no"), "-T", "--", addr.String(), line)
	return d.start(ctx, addr, argv, terminal, stderr, cleanup)
}

// terminal is where ssh may ask, or nil. A ferry in the background must not take the terminal from who is at work there.
func (d *Dialer) terminal() *os.File {
	if d.Terminal == nil || !run.HasTerminal(d.Terminal) {
		return nil
	}
	return d.Terminal
}

func (d *Dialer) startLocal(ctx context.Context, addr Address, line string, stderr io.Writer) (*Channel, error) {
	ctx, stop := context.WithCancel(ctx)
	// Without a terminal, as over ssh: sudo would put the agent on one, and doas would ask there.
	p, in, out, err := d.Runner.Pipe(ctx, run.Command{Argv: []string{"/bin/sh", "-c", line}, Err: stderr, OwnSession: true})
	if err != nil {
		stop()
		return nil, err
	}
	return &Channel{In: in, Out: out, addr: addr, stderr: stderr, process: p, ready: func() {}, cleanup: func() {}, stop: stop}, nil
}

func (d *Dialer) start(ctx context.Context, addr Address, argv []string, terminal *os.File, stderr io.Writer, cleanup func()) (*Channel, error) {
	ctx, stop := context.WithCancel(ctx)
	ready := func() {}
	if terminal != nil {
		back := func() {}
		if d.Asking != nil {
			back = d.Asking()
		}
		var once sync.Once
		ready = func() {
			once.Do(func() {
				_ = run.TakeTerminal(terminal)
				back()
			})
		}
	}
	if terminal != nil {
		// A Ctrl-Z at ssh's question would stop ssh alone, for ever: what is ignored here is ignored there.
		signal.Ignore(syscall.SIGTSTP)
		defer signal.Reset(syscall.SIGTSTP)
	}
	p, in, out, err := d.Runner.Pipe(ctx, run.Command{Argv: argv, Err: stderr, OwnGroup: true, Terminal: terminal})
	if err != nil {
		ready()
		stop()
		cleanup()
		if run.NotFound(err) {
			err = &MissingError{Err: err}
		}
		return nil, err
	}
	return &Channel{In: in, Out: out, addr: addr, stderr: stderr, process: p, ready: ready, cleanup: cleanup, stop: stop}, nil
}

// Ready tells the channel that the far side has answered: the login is over and the terminal is ferry's again.
func (c *Channel) Ready() { c.ready() }

// Close ends the connection without waiting for the far side; what [Channel.Wait] gives afterwards does not say any more
// how the far side would have ended. It may be called from anywhere, again, and while In is being written to.
func (c *Channel) Close() {
	_ = c.In.Close()
	c.stop()
}

// Wait waits until the program on the target has ended and gives the terminal back. A connection that could not be made,
// or broke, is an [*Error]; a program that ended with another status than 0 is a [*run.Error].
func (c *Channel) Wait() error {
	err := c.process.Wait()
	c.ready()
	c.stop()
	c.cleanup()
	return c.classify(err)
}

func (c *Channel) classify(err error) error {
	var failed *run.Error
	if err == nil || c.addr.Local() || !errors.As(err, &failed) || errors.Is(err, context.Canceled) {
		return err
	}
	if text, ok := c.stderr.(fmt.Stringer); ok {
		said := *failed
		said.Stderr = text.String()
		failed = &said
	}
	// While ssh has the terminal, a Ctrl-C reaches ssh and not ferry. Once it is logged in, ssh catches it.
	if failed.Signal() == syscall.SIGINT || strings.Contains(failed.Stderr, "Killed by signal 2.") {
		return ErrInterrupted
	}
	if failed.Status == 255 || failed.Status < 0 {
		return connectError(c.addr, failed)
	}
	return failed
}

// ErrInterrupted says that the user pressed Ctrl-C while ssh was asking.
var ErrInterrupted = errors.New("interrupted")

// Master is a kept ssh connection that other programs, such as nix-copy-closure, may use. The caller must Close it.
type Master struct {
	// Args are the arguments that make ssh use the connection.
	Args []string

	channel *Channel
}

// Master logs in once and keeps the connection until Close.
func (d *Dialer) Master(ctx context.Context, addr Address, stderr io.Writer) (*Master, error) {
	if addr.Local() {
		return nil, fmt.Errorf("the local machine is reached without ssh")
	}
	control, remove, err := controlPath()
	if err != nil {
		return nil, err
	}
	users := append(d.config(), "-o", "ControlPath="+control, "-o", "ControlMaster=no")
	cleanup := func() {
		// A master that never was or is gone already is an error here and nothing else.
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		_ = d.Runner.Run(ctx, run.Command{Argv: append(append([]string{"ssh"}, users...), "-O", "exit", "--", addr.String())})
		remove()
	}
	// A program that answers at once and then waits for its end of file: its first byte says that the login is done. The
	// master itself leaves the terminal after the login (ControlPersist): it does the typing for programs on a terminal that
	// use it, and the kernel stops a background process that does.
	terminal := d.terminal()
	argv := append(d.master(control, terminal != nil, "10"), "-T", "--", addr.String(), "echo ferry; cat")
	c, err := d.start(ctx, addr, argv, terminal, stderr, cleanup)
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c.Out, make([]byte, 1)); err != nil {
		if err := c.Wait(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s: the login shell ended without an answer", addr)
	}
	c.Ready()
	go func() { _, _ = io.Copy(io.Discard, c.Out) }()
	return &Master{Args: users, channel: c}, nil
}

// Close ends the connection.
func (m *Master) Close() error {
	_ = m.channel.In.Close()
	return m.channel.Wait()
}

// config are the arguments that make ssh read the user's choice of configuration.
func (d *Dialer) config() []string {
	if d.SSHConfig == "" {
		return nil
	}
	return []string{"-F", d.SSHConfig}
}

// master is ssh and the options of a connection of its own. Options that a supported OpenSSH does not know are not used.
func (d *Dialer) master(control string, mayAsk bool, persist string) []string {
	argv := append([]string{"ssh"}, d.config()...)
	batch := "yes"
	if mayAsk {
		batch = "no"
	}
	for _, option := range []string{
		"ControlMaster=yes",
		"ControlPath=" + control,
		"ControlPersist=" + persist,
		"BatchMode=" + batch,
		"StrictHostKeyChecking=yes",
		"ConnectTimeout=15",
		// A dead link is noticed after 30 s, also one that is dead only in one direction.
		"ServerAliveInterval=10",
		"ServerAliveCountMax=3",
		"ClearAllForwardings=yes",
		// The target has no use for the user's keys and display.
		"ForwardAgent=no",
		"ForwardX11=no",
		"PermitLocalCommand=no",
		"RemoteCommand=none",
		"Compression=no",
		"LogLevel=INFO",
	} {
		argv = append(argv, "-o", option)
	}
	return argv
}

// controlPath makes a private folder with a name short enough for a socket (108 bytes, of which ssh itself needs 17 while
// it makes it) and gives a path in it.
func controlPath() (path string, cleanup func(), err error) {
	var dir string
	for _, base := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"} {
		if len(base) > 60 || !isPlainFolder(base) {
			continue
		}
		if dir, err = os.MkdirTemp(base, "ferry-"); err == nil {
			break
		}
	}
	if dir == "" {
		if err == nil {
			err = errors.New("no usable folder for temporary files")
		}
		return "", nil, fmt.Errorf("make a folder for the ssh connection: %w", err)
	}
	return filepath.Join(dir, "ssh"), func() { _ = os.RemoveAll(dir) }, nil
}

// isPlainFolder tells whether base is an absolute path that ssh and NIX_SSHOPTS take as it is: no spaces, no % and so on.
func isPlainFolder(base string) bool {
	for i := range len(base) {
		c := base[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("/._-", c) < 0 {
			return false
		}
	}
	return filepath.IsAbs(base)
}

// OpenTerminal opens the controlling terminal, or gives nil where there is none.
func OpenTerminal() *os.File {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return tty
}
