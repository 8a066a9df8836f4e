package receive

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/run"
)

const (
	// chunkLimit is how long a chunk that was announced may take. It was on its way before: a link that is silent for as long is given
	// up by ssh first.
	chunkLimit = time.Minute
	// greetingLimit is how long who comes to the socket may take to say what for.
	greetingLimit = 5 * time.Second
)

// channels are the channels of one ship: connections of the login user's to a socket. Nothing that they bring is believed; see
// [agent.ChannelChunk].
type channels struct {
	listener *net.UnixListener
	uid      int // the login user
	token    string
	limit    time.Duration

	mu     sync.Mutex
	joined [agent.MaxChannels]*net.UnixConn
	closed bool
}

// openChannels lets channels join the ship that r asks for, if it is to have some, and says that it has begun. Without a socket, or a login user, none
// can join, and nothing else is different.
func (s *Receiver) openChannels(ctx context.Context, r agent.Request, stream *agent.DataReader) (closed func()) {
	if r.Channels == "" {
		return func() {}
	}
	// At once: ferry measures the round trip by it.
	_ = s.opts.Wire.WriteJSON(agent.FrameProgress, agent.Progress{Begun: true})
	l, err := listenChannels(s.opts.Root.Path(agent.ChannelSocket), s.opts.LoginUID(), r.Channels)
	if err != nil {
		return func() {}
	}
	stream.Channel = l.read
	stop := context.AfterFunc(ctx, l.close)
	return func() {
		stop()
		l.close()
	}
}

// channelLost is the answer to a ship that a channel has ended. It names the path that is parked, with which ferry can go on at once.
func (s *Receiver) channelLost(channel *agent.ChannelError) error {
	refused := &agent.ResponseError{Kind: agent.KindChannel, Text: run.Clean(channel.Error())}
	if s.parked = findParked(s.opts.Root, s.opts.Program); s.parked != nil {
		refused.Parked = &s.parked.state.Parked
	}
	return refused
}

// listenChannels makes the socket, which is the login user's alone. What an agent that was killed has left there goes.
func listenChannels(socket string, uid int, token string) (*channels, error) {
	if uid < 0 {
		return nil, errors.New("it is not known who the login user is")
	}
	if err := machine.OwnFolder(filepath.Dir(socket), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	err = os.Chmod(socket, 0o600)
	if err == nil {
		err = os.Lchown(socket, uid, -1)
	}
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	l := &channels{listener: listener, uid: uid, token: token, limit: chunkLimit}
	go l.accept()
	return l, nil
}

// accept hears who comes, one after another.
func (l *channels) accept() {
	for {
		conn, err := l.listener.AcceptUnix()
		if err != nil {
			return
		}
		if !l.admit(conn) {
			_ = conn.Close()
		}
	}
}

// admit takes a connection as the channel that it says it is.
func (l *channels) admit(conn *net.UnixConn) bool {
	if machine.PeerUID(conn) != l.uid {
		return false
	}
	_ = conn.SetDeadline(time.Now().Add(greetingLimit))
	var greeting [agent.ChannelGreeting]byte
	if _, err := io.ReadFull(conn, greeting[:]); err != nil {
		return false
	}
	n := int(greeting[len(greeting)-1])
	if subtle.ConstantTimeCompare(greeting[:len(greeting)-1], []byte(l.token)) != 1 || n >= agent.MaxChannels {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.joined[n] != nil {
		return false
	}
	// Before the answer, behind which the first chunk may be announced.
	l.joined[n] = conn
	if _, err := conn.Write(greeting[len(greeting)-1:]); err != nil {
		l.joined[n] = nil
		return false
	}
	return true
}

// read fills p with what a channel brings. It takes not longer than the limit.
func (l *channels) read(n int, p []byte) error {
	l.mu.Lock()
	conn := l.joined[n]
	l.mu.Unlock()
	if conn == nil {
		return errors.New("nobody has joined it")
	}
	_ = conn.SetReadDeadline(time.Now().Add(l.limit))
	_, err := io.ReadFull(conn, p)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it has ended")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("nothing comes any more")
	}
	return err
}

// close ends the channels, and with each the program that carries it here.
func (l *channels) close() {
	_ = l.listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, conn := range l.joined {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// Channel joins in and out with the socket of an agent that ships, until either ends. It needs no privileges but to be the login user.
func Channel(ctx context.Context, socket string, in io.Reader, out io.Writer) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return errors.New(run.Clean(fmt.Sprintf("connect to %s: %v", socket, Reason(err))))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	Widen(in)
	if _, err := io.WriteString(out, agent.Connected+"\n"); err != nil {
		return err
	}
	return Join(conn.(*net.UnixConn), in, out)
}

// Join joins a connection with in and out until the far side ends it.
func Join(conn interface {
	net.Conn
	CloseWrite() error
}, in io.Reader, out io.Writer) error {
	go func() {
		_, _ = io.Copy(conn, in)
		_ = conn.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(lingerTime))
	}()
	_, err := io.Copy(out, conn)
	return err
}

// Reason is err without the addresses in it, which a person who asked for a name did not ask for.
func Reason(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("no answer")
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// lingerTime is how long the far side may go on sending after the end of what it was sent: whoever asked may be gone.
const lingerTime = 2 * time.Second
