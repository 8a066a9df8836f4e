package target

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"ferry/internal/run"
)

// Confirm logs in over a new connection, which shares nothing with any other, and runs script there: one command line for
// whatever login shell the target's user has, with input as its standard input. If ready is not empty, the input is sent when
// the script has said that: what the files of a login shell read is not the script's then. Nobody is asked for anything: a login
// that was [Channel.Interactive] is denied. An ssh that failed is an [*Error], a script that ended with another status than 0 a
// [*run.Error]. On the local target sh runs script.
func (d *Dialer) Confirm(ctx context.Context, addr Address, script, ready string, input []byte) error {
	if addr.Local() {
		return d.converse(ctx, run.Command{Argv: []string{"/bin/sh", "-c", script}, OwnSession: true}, ready, input)
	}
	return d.anew(ctx, addr, script, ready, input)
}

// converse runs a command to its end, and gives it its input when it has said ready.
func (d *Dialer) converse(ctx context.Context, command run.Command, ready string, input []byte) error {
	p, in, out, err := d.Runner.Pipe(ctx, command)
	if err != nil {
		return err
	}
	said := make(chan struct{})
	go func() {
		defer close(said)
		reader := bufio.NewReaderSize(out, maxSaid)
		reads := ready == ""
		for !reads {
			line, err := reader.ReadSlice('\n')
			reads = bytes.HasSuffix(bytes.TrimRight(line, "\r\n"), []byte(ready))
			// A line may be of any length.
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		if reads {
			// Who has ended takes nothing, and why is in how it ended.
			_, _ = in.Write(input)
		}
		_ = in.Close()
		_, _ = io.Copy(io.Discard, reader)
	}()
	select {
	case <-said:
	case <-ctx.Done():
		// What it has started may still hold its output.
		_ = out.Close()
		<-said
	}
	return p.Wait()
}

// maxSaid is how much is looked at at once of what a command says, in bytes.
const maxSaid = 4 << 10

// Answers proves what can be proved of a login that only a person can make: that a new connection comes through to the
// target's sshd, with the right host key, and that sshd answers a login, with a refusal. It asks nobody and runs nothing.
func (d *Dialer) Answers(ctx context.Context, addr Address) error {
	if addr.Local() {
		return nil
	}
	// Every login begins with the method none: the refusal names those that sshd would take.
	err := d.anew(ctx, addr, "exit", "", nil, "PreferredAuthentications=none")
	var refused *Error
	// If a proxy has ended it was that, such as the ssh to a jump host, which was refused.
	if errors.As(err, &refused) && refused.Kind == Denied && !strings.Contains(refused.err.Stderr, proxyEnded) {
		return nil
	}
	return err
}

// anew runs line over a new connection of its own. How the user logs in, and on which way, is for their configuration to say:
// whatever the first login has used must be used again.
func (d *Dialer) anew(ctx context.Context, addr Address, line, ready string, input []byte, options ...string) error {
	timeout := d.ConnectTimeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	argv := append(d.ssh(append(options,
		"ControlMaster=no",
		"ControlPath=none",
		"BatchMode=yes",
		"ConnectTimeout="+strconv.Itoa(int(math.Ceil(timeout.Seconds()))),
		// A question of the client's about the server's other keys, while it could be done.
		"UpdateHostKeys=no",
	)...), "-T", "--", addr.String(), line)
	command := alone(argv, nil)
	command.Grace = time.Second
	err := d.converse(ctx, command, ready, input)
	var failed *run.Error
	switch {
	case run.NotFound(err):
		return &MissingError{Err: err}
	case errors.Is(err, context.DeadlineExceeded) && errors.As(err, &failed):
		return &Error{Address: addr, Kind: TimedOut, Text: "no answer in time", err: failed}
	}
	return classify(addr, nil, err)
}
