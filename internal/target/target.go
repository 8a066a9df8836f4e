// Package target reaches a node: through the user's own OpenSSH, or this machine directly. One ssh master per target does
// the login; everything else rides on it, but for the proof that the target can still be reached (see [Dialer.Confirm]).
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
	// Asking, when set, is called before ssh, or an agent that ssh asks for a key, may use the terminal, and the function it
	// returns once it is ferry's alone again.
	Asking func() func()
	// Turn, when set, is held while ssh has the terminal: two that ask at once would get each other's answers.
	Turn sync.Locker
	// ConnectTimeout is how long a connection that confirms may take until the target's sshd speaks; 5 s if zero.
	ConnectTimeout time.Duration
}

// Channel is a program running on the target, with its standard input and output.
type Channel struct {
	In  io.WriteCloser
	Out io.ReadCloser

	dialer      *Dialer
	control     string // the path of ssh's socket; "": the target is this machine
	addr        Address
	stderr      io.Writer
	wait        func() error
	ready       func()
	cleanup     func()
	stop        context.CancelFunc
	interactive bool
}

// Start runs line, one command line for whatever login shell the target's user has, and gives its streams. Standard error,
// ssh's own included, goes to stderr as it comes; if stderr is a [fmt.Stringer], an error of ssh is looked for in what that
// says was written. Cancelling ctx ends the connection. The caller must call [Channel.Wait].
//
// Where ssh may ask, the login is first tried without: Start returns once that is through or has failed.
func (d *Dialer) Start(ctx context.Context, addr Address, line string, stderr io.Writer) (*Channel, error) {
	if addr.Local() {
		return d.startLocal(ctx, addr, line, stderr)
	}
	return d.startSSH(ctx, addr, line, stderr, "-T")
}

// startSSH runs line over ssh; tty are the arguments that say whether it has a terminal there.
func (d *Dialer) startSSH(ctx context.Context, addr Address, line string, stderr io.Writer, tty ...string) (*Channel, error) {
	control, cleanup, err := controlPath()
	if err != nil {
		return nil, err
	}
	c, err := d.login(ctx, addr, connection{control: control, persist: "no", tty: tty, line: line}, stderr, cleanup)
	if err == nil {
		c.control = control
	}
	return c, err
}

// terminal is where ssh may ask, or nil. A ferry in the background must not take the terminal from who is at work there.
func (d *Dialer) terminal() *os.File {
	if d.Terminal == nil {
		return nil
	}
	if d.Turn != nil {
		// While another ssh has the terminal, it is not ferry's; it will be.
		d.Turn.Lock()
		defer d.Turn.Unlock()
	}
	if !run.HasTerminal(d.Terminal) {
		return nil
	}
	return d.Terminal
}

func (d *Dialer) startLocal(ctx context.Context, addr Address, line string, stderr io.Writer) (*Channel, error) {
	// Without a terminal, as over ssh: sudo would put the agent on one, and doas would ask there.
	local := run.Command{Argv: []string{"/bin/sh", "-c", line}, Err: stderr, OwnSession: true}
	return d.start(ctx, addr, local, stderr, func() {}, func() {})
}

// start starts command, which is ssh or the local target's shell. When it cannot, ready and cleanup have been called.
func (d *Dialer) start(ctx context.Context, addr Address, command run.Command, stderr io.Writer, ready, cleanup func()) (*Channel, error) {
	ctx, stop := context.WithCancel(ctx)
	if command.Terminal != nil {
		// A Ctrl-Z at ssh's question would stop ssh alone, for ever: what is ignored here is ignored there.
		signal.Ignore(syscall.SIGTSTP)
		defer signal.Reset(syscall.SIGTSTP)
	}
	p, in, out, err := d.Runner.Pipe(ctx, command)
	if err != nil {
		ready()
		stop()
		cleanup()
		if !addr.Local() && run.NotFound(err) {
			err = &MissingError{Err: err}
		}
		return nil, err
	}
	return &Channel{
		In: in, Out: out, dialer: d, addr: addr, stderr: stderr, wait: sync.OnceValue(p.Wait), ready: ready, cleanup: cleanup, stop: stop,
	}, nil
}

// Command runs another command line on the target, over the connection that c has made and with no login of its own, and gives
// its streams, as [Dialer.Start] does. It ends with c's connection. It may be called from several goroutines.
func (c *Channel) Command(ctx context.Context, line string, stderr io.Writer) (*Channel, error) {
	if c.addr.Local() {
		return c.dialer.startLocal(ctx, c.addr, line, stderr)
	}
	// When the connection is gone, ssh must not make its own.
	argv := append(c.dialer.ssh("ControlMaster=no", "ControlPath="+c.control, "BatchMode=yes", "ProxyCommand=false"), "-T", "--", c.addr.String(), line)
	nothing := func() {}
	return c.dialer.start(ctx, c.addr, run.Command{Argv: argv, Err: stderr, OwnGroup: true}, stderr, nothing, nothing)
}

// LoggedIn tells whether the login is through: what is heard from now on is the far side, and what is not is missing there.
func (c *Channel) LoggedIn() bool {
	if c.control == "" {
		return true
	}
	// ssh makes its socket when it is logged in, before anything of the far side comes through.
	_, err := os.Lstat(c.control)
	return err == nil
}

// Ready tells the channel that the far side has answered: the login is over and the terminal is ferry's again.
func (c *Channel) Ready() { c.ready() }

// Interactive tells whether the login was made with the terminal because it did not work without: a person was needed, and
// will be needed again for every other login.
func (c *Channel) Interactive() bool { return c.interactive }

// Close ends the connection without waiting for the far side; what [Channel.Wait] gives afterwards does not say any more
// how the far side would have ended. It may be called from anywhere, again, and while In is being written to.
func (c *Channel) Close() {
	_ = c.In.Close()
	c.stop()
}

// Wait waits until the program on the target has ended and gives the terminal back. A connection that could not be made,
// or broke, is an [*Error]; a program that ended with another status than 0 is a [*run.Error].
func (c *Channel) Wait() error {
	err := c.wait()
	c.ready()
	c.stop()
	c.cleanup()
	return classify(c.addr, c.stderr, err)
}

// classify makes of an ssh that failed the reason why. If stderr is a [fmt.Stringer], that is where ssh has said it.
func classify(addr Address, stderr io.Writer, err error) error {
	var failed *run.Error
	if err == nil || addr.Local() || !errors.As(err, &failed) || errors.Is(err, context.Canceled) {
		return err
	}
	if text, ok := stderr.(fmt.Stringer); ok {
		said := *failed
		said.Stderr = text.String()
		failed = &said
	}
	// While ssh has the terminal, a Ctrl-C reaches ssh and not ferry. Once it is logged in, ssh catches it.
	if failed.Signal() == syscall.SIGINT || strings.Contains(failed.Stderr, "Killed by signal 2.") {
		return ErrInterrupted
	}
	if failed.Status == 255 || failed.Status < 0 {
		return connectError(addr, failed)
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
	c, err := d.login(ctx, addr, connection{control: control, persist: "10", tty: []string{"-T"}, line: "echo ferry; cat"}, stderr, cleanup)
	if err != nil {
		return nil, err
	}
	c.control = control
	if err := c.answers(addr, masterPause); err != nil {
		return nil, err
	}
	c.Ready()
	go func() { _, _ = io.Copy(io.Discard, c.Out) }()
	return &Master{Args: users, channel: c}, nil
}

// shellSeconds is how long a master's login shell may say nothing, counted by masterPause.
const (
	shellSeconds = 60
	masterPause  = time.Second
)

// answers waits for the first byte of a master's login shell.
func (c *Channel) answers(addr Address, second time.Duration) error {
	first := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(c.Out, make([]byte, 1))
		first <- err
	}()
	ticker := time.NewTicker(second)
	defer ticker.Stop()
	login, shell := 0, 0
	for {
		select {
		case err := <-first:
			if err == nil {
				return nil
			}
			if err := c.Wait(); err != nil {
				return err
			}
			return fmt.Errorf("%s: the login shell ended without an answer", addr)
		case <-ticker.C:
		}
		switch {
		case c.LoggedIn():
			shell++
		case !c.interactive:
			login++
		}
		if login > LoginSeconds || shell > shellSeconds {
			c.Close()
			_ = c.Wait()
		}
		if login > LoginSeconds {
			return SlowLogin(addr)
		}
		if shell > shellSeconds {
			return fmt.Errorf("%s: the login shell has not run a command for %d seconds: does its ~/.bashrc start another shell, or read its input", addr, shellSeconds)
		}
	}
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

// ssh is ssh with options and with those that every connection has. Options that a supported OpenSSH does not know are not
// used.
func (d *Dialer) ssh(options ...string) []string {
	argv := append([]string{"ssh"}, d.config()...)
	for _, option := range append(options,
		"StrictHostKeyChecking=yes",
		// Two connections that learn new host keys at once rewrite known_hosts over each other, and keys of others are lost.
		"UpdateHostKeys=no",
		"ClearAllForwardings=yes",
		// The target has no use for the user's keys and display.
		"ForwardAgent=no",
		"ForwardX11=no",
		"PermitLocalCommand=no",
		"RemoteCommand=none",
		"LogLevel=INFO",
	) {
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
