package target

import (
	"context"
	"io"

	"ferry/internal/run"
)

// Session runs the user's own ssh to addr, with their streams and terminal: a login shell, or argv if it is not empty, as ssh
// runs it. Another exit status than 0 is a [*run.Error].
func (d *Dialer) Session(ctx context.Context, addr Address, argv []string, in io.Reader, out, errw io.Writer) error {
	command := append(append([]string{"ssh"}, d.config()...), "-o", "StrictHostKeyChecking=yes")
	if len(argv) > 0 {
		argv = []string{run.QuoteAll(argv)}
	}
	command = append(append(command, "--", addr.String()), argv...)
	err := d.Runner.Run(ctx, run.Command{Argv: command, In: in, Out: out, Err: errw})
	if run.NotFound(err) {
		return &MissingError{Err: err}
	}
	return err
}
