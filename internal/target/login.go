package target

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"ferry/internal/run"
)

// connection is an ssh connection that is a master.
type connection struct {
	control string   // the path of its socket
	persist string   // how long the master stays without a user: "no", or seconds
	tty     []string // the options that say whether it has a terminal there
	line    string   // what runs on the target
}

// argv is the ssh command that makes the connection c.
func (d *Dialer) argv(addr Address, c connection, mayAsk bool) []string {
	batch := "yes"
	if mayAsk {
		batch = "no"
	}
	argv := d.ssh(
		"ControlMaster=yes",
		"ControlPath="+c.control,
		"ControlPersist="+c.persist,
		"BatchMode="+batch,
		"ConnectTimeout=15",
		// A dead link is noticed after 30 s, also one that is dead only in one direction.
		"ServerAliveInterval=10",
		"ServerAliveCountMax=3",
	)
	return append(append(argv, c.tty...), "--", addr.String(), c.line)
}

// login makes a connection. Where there is a terminal the first try does without: most logins need nobody, and one that has
// needed nobody can be made again when nobody is there, to confirm. If it fails for want of a person, ssh gets the terminal.
func (d *Dialer) login(ctx context.Context, addr Address, c connection, stderr io.Writer, cleanup func()) (*Channel, error) {
	terminal := d.terminal()
	if terminal == nil {
		return d.start(ctx, addr, run.Command{Argv: d.argv(addr, c, false), Err: stderr, OwnGroup: true}, stderr, func() {}, cleanup)
	}
	back := func() {}
	if d.Asking != nil {
		back = d.Asking()
	}
	channel, err := d.loginAlone(ctx, addr, c, stderr, cleanup)
	if !errors.Is(err, errNeedsPerson) {
		back()
		return channel, err
	}
	turn := func() {}
	if d.Turn != nil {
		d.Turn.Lock()
		turn = d.Turn.Unlock
	}
	ready := sync.OnceFunc(func() {
		_ = run.TakeTerminal(terminal)
		turn()
		back()
	})
	channel, err = d.start(ctx, addr, run.Command{Argv: d.argv(addr, c, true), Err: stderr, OwnGroup: true, Terminal: terminal}, stderr, ready, cleanup)
	if err == nil {
		channel.interactive = true
	}
	return channel, err
}

// errNeedsPerson says that a login failed because nobody was asked.
var errNeedsPerson = errors.New("the login needs a person")

// LoginSeconds is how long a login may take that nobody is asked for. A sshd ends one after two minutes itself, and a person may have to
// touch a key.
const LoginSeconds = 150

// SlowLogin is a login that has taken longer.
func SlowLogin(addr Address) *Error {
	return &Error{Address: addr, Kind: TimedOut, Text: fmt.Sprintf("the login takes more than %d seconds", LoginSeconds)}
}

// loginPause is how often it is looked whether a login that says nothing is through.
const loginPause = 20 * time.Millisecond

// loginAlone makes a connection without asking anybody, and returns when the login is through or has failed. After
// errNeedsPerson nothing has come out of it, and cleanup has not been called.
func (d *Dialer) loginAlone(ctx context.Context, addr Address, c connection, stderr io.Writer, cleanup func()) (*Channel, error) {
	held := &heldWriter{to: stderr, until: func() bool {
		// ssh makes its socket when it is logged in, before anything of the far side comes through.
		_, err := os.Lstat(c.control)
		return err == nil
	}}
	channel, err := d.start(ctx, addr, alone(d.argv(addr, c, false), held), stderr, func() {}, cleanup)
	if err != nil {
		return nil, err
	}
	out := peek(channel.Out)
	channel.Out = out
	tick := time.NewTicker(loginPause)
	defer tick.Stop()
	waited := 0
	for !held.look() {
		select {
		case <-out.peeked:
			if out.err == nil {
				held.release()
				return channel, nil
			}
			// The end of its output is ssh's end, unless the far side has closed only that.
			if held.look() {
				return channel, nil
			}
			if err := channel.wait(); needsPerson(err, held.String()) && d.terminal() != nil {
				channel.stop()
				return nil, errNeedsPerson
			}
			held.release()
			return channel, nil
		case <-tick.C:
			if waited++; waited > LoginSeconds*int(time.Second/loginPause) {
				channel.Close()
				_ = channel.Wait()
				return nil, SlowLogin(addr)
			}
		}
	}
	return channel, nil
}

// alone is an ssh that asks nobody: in a session without a terminal, and with no other way to ask. BatchMode is not enough:
// the ssh of a ProxyJump does not have it, and would be stopped when it asks on a terminal that is not its own.
func alone(argv []string, stderr io.Writer) run.Command {
	return run.Command{Argv: argv, Err: stderr, OwnSession: true, Env: []string{"SSH_ASKPASS_REQUIRE=never"}}
}

// needsPerson tells whether a login without a person may have failed for want of one. What a proxy of ssh wanted is not known,
// not even what it said.
func needsPerson(err error, said string) bool {
	var failed *run.Error
	return errors.As(err, &failed) && failed.Status == 255 && (strings.Contains(said, denied) || strings.Contains(said, proxyEnded))
}

// maxHeld is how much may be said before a login is through, in bytes: a banner, not a flood.
const maxHeld = 64 << 10

// heldWriter holds back what ssh says before the login is through: if the login is made again, nobody is to know of it.
type heldWriter struct {
	to    io.Writer
	until func() bool

	mu     sync.Mutex
	held   bytes.Buffer
	passes bool
}

// Write holds p back or passes it on.
func (w *heldWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.passes && !w.until() && w.held.Len()+len(p) <= maxHeld {
		return w.held.Write(p)
	}
	w.pass()
	return w.to.Write(p)
}

// look tells whether what is said is passed on, from now on at the latest.
func (w *heldWriter) look() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.passes && w.until() {
		w.pass()
	}
	return w.passes
}

// release passes on what is held, and all that follows.
func (w *heldWriter) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pass()
}

func (w *heldWriter) pass() {
	w.passes = true
	_, _ = w.held.WriteTo(w.to)
}

// String is what is held.
func (w *heldWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held.String()
}

// peekedReader is a stream of which the beginning has been looked at.
type peekedReader struct {
	io.Closer
	buffer *bufio.Reader
	peeked chan struct{} // closed once there is a first byte, or err
	err    error         // why there is none
}

func peek(stream io.ReadCloser) *peekedReader {
	r := &peekedReader{Closer: stream, buffer: bufio.NewReader(stream), peeked: make(chan struct{})}
	go func() {
		_, r.err = r.buffer.Peek(1)
		close(r.peeked)
	}()
	return r
}

// Read waits for the first byte.
func (r *peekedReader) Read(p []byte) (int, error) {
	<-r.peeked
	if r.err != nil {
		return 0, r.err
	}
	return r.buffer.Read(p)
}
