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
	// laneLimit is how long a piece that was announced may take. It was on its way before: a link that is silent for as long is given
	// up by ssh first.
	laneLimit = time.Minute
	// laneGreetingLimit is how long who comes to the socket may take to say what for.
	laneGreetingLimit = 5 * time.Second
)

// lanes are the lanes of one ship: connections of the login user's to a socket. Nothing that they bring is believed; see
// [agent.LanePiece].
type lanes struct {
	listener *net.UnixListener
	uid      int // the login user
	token    string
	limit    time.Duration

	mu     sync.Mutex
	joined [agent.MaxLanes]*net.UnixConn
	closed bool
}

// openLanes lets lanes join the ship that r asks for, if it is to have some, and says that it has begun. Without a socket, or a login user, none
// can join, and nothing else is different.
func (s *Receiver) openLanes(ctx context.Context, r agent.Request, stream *agent.DataReader) (closed func()) {
	if r.Lanes == "" {
		return func() {}
	}
	// At once: ferry measures the round trip by it.
	_ = s.opts.Wire.WriteJSON(agent.FrameProgress, agent.Progress{Begun: true})
	l, err := listenLanes(s.opts.Root.Path(agent.LaneSocket), s.opts.LoginUID(), r.Lanes)
	if err != nil {
		return func() {}
	}
	stream.Lane = l.read
	stop := context.AfterFunc(ctx, l.close)
	return func() {
		stop()
		l.close()
	}
}

// laneLost is the answer to a ship that a lane has ended. It names the path that is kept, with which ferry can go on at once.
func (s *Receiver) laneLost(lane *agent.LaneError) error {
	refused := &agent.ResponseError{Kind: agent.KindLane, Text: run.Clean(lane.Error())}
	if s.kept = findKept(s.opts.Root, s.opts.Program); s.kept != nil {
		refused.Kept = &s.kept.state.Kept
	}
	return refused
}

// listenLanes makes the socket, which is the login user's alone. What an agent that was killed has left there goes.
func listenLanes(socket string, uid int, token string) (*lanes, error) {
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
	l := &lanes{listener: listener, uid: uid, token: token, limit: laneLimit}
	go l.accept()
	return l, nil
}

// accept hears who comes, one after another.
func (l *lanes) accept() {
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

// admit takes a connection as the lane that it says it is.
func (l *lanes) admit(conn *net.UnixConn) bool {
	if machine.PeerUID(conn) != l.uid {
		return false
	}
	_ = conn.SetDeadline(time.Now().Add(laneGreetingLimit))
	var greeting [agent.LaneGreeting]byte
	if _, err := io.ReadFull(conn, greeting[:]); err != nil {
		return false
	}
	n := int(greeting[len(greeting)-1])
	if subtle.ConstantTimeCompare(greeting[:len(greeting)-1], []byte(l.token)) != 1 || n >= agent.MaxLanes {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.joined[n] != nil {
		return false
	}
	// Before the answer, behind which the first piece may be announced.
	l.joined[n] = conn
	if _, err := conn.Write(greeting[len(greeting)-1:]); err != nil {
		l.joined[n] = nil
		return false
	}
	return true
}

// read fills p with what a lane brings. It takes not longer than the limit.
func (l *lanes) read(n int, p []byte) error {
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

// close ends the lanes, and with each the program that carries it here.
func (l *lanes) close() {
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

// Lane joins in and out with the socket of an agent that ships, until either ends. It needs no privileges but to be the login user.
func Lane(ctx context.Context, socket string, in io.Reader, out io.Writer) error {
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
