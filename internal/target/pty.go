package target

import (
	"context"
	"io"
	"sync"

	"ferry/internal/run"
)

// StartOnTerminal is [Dialer.Start] for a program that asks for a password on a terminal: it gets a pseudo-terminal there,
// where its standard error goes as well, so that only ssh's own comes to stderr. The terminal is as a terminal is: line must
// make it raw before it is 8-bit clean. Closing the channel's In hangs up on this machine; over ssh it says nothing.
func (d *Dialer) StartOnTerminal(ctx context.Context, addr Address, line string, stderr io.Writer) (*Channel, error) {
	if !addr.Local() {
		// Without an escape character: what ferry sends is no typing. What the user's configuration says of it counts less.
		return d.startSSH(ctx, addr, line, stderr, "-tt", "-e", "none")
	}
	ctx, stop := context.WithCancel(ctx)
	p, terminal, err := d.Runner.OnTerminal(ctx, run.Command{Argv: []string{"/bin/sh", "-c", line}})
	if err != nil {
		stop()
		return nil, err
	}
	return &Channel{In: terminal, Out: terminal, dialer: d, addr: addr, stderr: stderr, wait: sync.OnceValue(p.Wait), ready: func() {}, cleanup: func() {}, stop: stop}, nil
}
