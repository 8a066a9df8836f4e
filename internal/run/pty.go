package run

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// OnTerminal starts c in a session of its own whose terminal, and standard input, output and error, is a new pseudo-terminal;
// c.In, c.Out, c.Err and c.Terminal are not used. Closing what it returns hangs the terminal up. Reading it gives end of file
// when the last process has let go of the terminal.
func (r *Runner) OnTerminal(ctx context.Context, c Command) (*Process, io.ReadWriteCloser, error) {
	c.OwnSession, c.OwnGroup = true, false
	p, err := r.prepare(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	far, near, err := openTerminal()
	if err != nil {
		return nil, nil, &Error{Argv: c.Argv, Status: -1, Err: err}
	}
	defer near.Close()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = near, near, near
	p.cmd.SysProcAttr.Setctty = true
	// What is ignored here would be ignored there: under nohup a closed terminal would end nothing.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	if _, err := p.start(); err != nil {
		far.Close()
		return nil, nil, err
	}
	return p, &terminal{far}, nil
}

// terminal is the far end of a pseudo-terminal. The file is not embedded: io.Copy would go around Read.
type terminal struct{ file *os.File }

func (t *terminal) Write(p []byte) (int, error) { return t.file.Write(p) }

func (t *terminal) Close() error { return t.file.Close() }

// Read gives end of file where the kernel says, by an input/output error, that nobody is on the terminal any more.
func (t *terminal) Read(p []byte) (int, error) {
	n, err := t.file.Read(p)
	if errors.Is(err, syscall.EIO) {
		err = io.EOF
	}
	return n, err
}
