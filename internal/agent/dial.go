package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"ferry/internal/run"
	"ferry/internal/target"
)

// Connected is the line, without its newline, that `ferry-agent dial` and `ferry-agent lane` say when they are connected; the bytes of the connection
// follow. A login shell may print things before it.
const Connected = "ferry-agent/1 connected"

// Dial connects from the target to address, HOST:PORT with the target's names and routes, by TCP. It runs the installed agent
// as the login user on the connection that is there already, and may be called while a request goes on, from several
// goroutines. When the session ends, so does what Dial gave.
func (s *Session) Dial(ctx context.Context, address string) (net.Conn, error) {
	program, err := s.installed()
	if err != nil {
		return nil, err
	}
	return dial(ctx, s.channel, program, "dial", address)
}

// installed is where the agent is on the target, as it says itself: by that path nobody but root can put something else in its
// place. Another link may lead to it, which whoever has its folder can move.
func (s *Session) installed() (string, error) {
	programs, err := Programs()
	if err != nil {
		return "", err
	}
	machine := s.Hello.Facts.Machine
	p, found := programOf(machine, programs)
	if !found {
		return "", fmt.Errorf("ferry has no agent for a %q machine", machine)
	}
	program := string(s.Hello.Program)
	if !path.IsAbs(program) || path.Clean(program) != program || run.Clean(program) != program || path.Base(program) != "agent-"+p.Hash {
		return "", fmt.Errorf("the agent does not say where it is, but %q", run.Clean(program))
	}
	return program, nil
}

// dial runs the agent's program on the far end of channel, to dial an address or as a channel to a socket.
func dial(ctx context.Context, channel *target.Channel, program, word, address string) (net.Conn, error) {
	// What becomes of ctx once it is connected does not concern the connection.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	stderr := &run.Tail{Limit: 16 << 10}
	c, err := channel.Command(life, run.QuoteAll([]string{program, word, address}), stderr)
	if err != nil {
		stop()
		return nil, err
	}
	conn := &dialed{channel: c, address: address, out: bufio.NewReaderSize(c.Out, maxLine)}
	conn.end = sync.OnceValue(func() error {
		defer stop()
		return c.Wait()
	})
	connecting := context.AfterFunc(ctx, c.Close)
	err = awaitConnected(conn.out)
	if !connecting() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil {
		return conn, nil
	}
	if !errors.Is(err, errEnded) {
		_ = conn.Close()
		return nil, err
	}
	return nil, dialError(conn.end(), stderr.String())
}

// dialError is why the agent's program ended, or ssh, before it was connected.
func dialError(ended error, said string) error {
	var connect *target.Error
	lines := run.LastLines(said, 1)
	switch {
	case ended == nil:
		return errEnded
	case errors.As(ended, &connect) || len(lines) == 0:
		return ended
	}
	return errors.New(strings.TrimPrefix(lines[0], "ferry-agent: "))
}

// awaitConnected reads up to the end of the line that says Connected.
func awaitConnected(out *bufio.Reader) error {
	for said := 0; said <= maxGreeting; {
		line, err := readLine(out)
		if err != nil {
			return err
		}
		if strings.HasSuffix(line, Connected) {
			return nil
		}
		said += len(line) + 1
	}
	return &StartError{Text: "the target's login shell prints without end; nothing may be printed by it when it is not interactive"}
}

// dialed is a connection that the target has made: the standard input and output of the agent there.
type dialed struct {
	channel *target.Channel
	address string
	out     *bufio.Reader
	end     func() error
}

func (d *dialed) Read(p []byte) (int, error) { return d.out.Read(p) }

func (d *dialed) Write(p []byte) (int, error) { return d.channel.In.Write(p) }

// Close ends the connection at once; the programs that carry it, here and there, follow.
func (d *dialed) Close() error {
	d.channel.Close()
	// Its other end may be held by ssh's master until the target's end is told.
	_ = d.channel.Out.Close()
	go func() { _ = d.end() }()
	return nil
}

// CloseWrite ends what is sent.
func (d *dialed) CloseWrite() error { return d.channel.In.Close() }

func (d *dialed) LocalAddr() net.Addr  { return dialedAddress("target") }
func (d *dialed) RemoteAddr() net.Addr { return dialedAddress(d.address) }

func (d *dialed) SetDeadline(t time.Time) error {
	return errors.Join(d.SetReadDeadline(t), d.SetWriteDeadline(t))
}

func (d *dialed) SetReadDeadline(t time.Time) error {
	if pipe, ok := d.channel.Out.(interface{ SetReadDeadline(time.Time) error }); ok {
		return pipe.SetReadDeadline(t)
	}
	return os.ErrNoDeadline
}

func (d *dialed) SetWriteDeadline(t time.Time) error {
	if pipe, ok := d.channel.In.(interface{ SetWriteDeadline(time.Time) error }); ok {
		return pipe.SetWriteDeadline(t)
	}
	return os.ErrNoDeadline
}

// dialedAddress is an address as the target knows it.
type dialedAddress string

func (dialedAddress) Network() string  { return "tcp" }
func (a dialedAddress) String() string { return string(a) }
