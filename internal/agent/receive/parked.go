package receive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"

	"golang.org/x/sys/unix"
)

// smallestParked is the smallest NAR in bytes of which a part is worth a process that waits.
const smallestParked = 4 << 20

// parkedPatience is how long an agent and a parking process wait for each other: both are on one machine, and have nothing else to do.
const parkedPatience = 10 * time.Second

// brokenOff is the path that a lost connection has left half sent; nil: there is none that is worth keeping.
func (f *feeder) brokenOff(stream *agent.DataReader) *parkedState {
	if f.cut == nil || !stream.Lost() || f.cut.Size < smallestParked {
		return nil
	}
	_, minor := f.serve.Version()
	state := &parkedState{
		Parked: agent.Parked{Path: f.current.Path, NarHash: f.current.NarHash, NarSize: f.current.NarSize, Offset: f.cut.Sent},
		Minor:  minor,
	}
	if !state.valid() {
		return nil
	}
	return state
}

// park hands a store's nix-store, which waits for the rest of a path, to a process that outlives this one. What is before the
// state's offset has been written to it, and it has answered all else.
func (s *Receiver) park(st *store, state parkedState) error {
	if s.opts.Program == "" {
		return errors.New("it is not known how this agent was started")
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	files, err := st.files()
	if err != nil {
		return err
	}
	defer files.process.Close()
	ready, says, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	socket := filepath.Join(s.opts.Root.Path(parkedFolder), filepath.Base(s.opts.Program))
	parking, err := run.Detach([]string{s.opts.Program, "keep", socket, string(text)}, append([]*os.File{nil, says, nil}, files.all()...)...)
	_ = says.Close()
	if err != nil {
		return err
	}
	// Until it listens, the next agent must not have the lock.
	_ = ready.SetReadDeadline(time.Now().Add(parkedPatience))
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		parking.Kill()
		return fmt.Errorf("the keeper does not say that it is ready: %w", err)
	}
	st.forget()
	return nil
}

// parked is a nix-store that a parking process holds, seen from the agent that may go on with it.
type parked struct {
	conn  *net.UnixConn
	state parkedState
	files parkedFiles
}

// findParked asks the parking process that the last agent has left, if it has left one. What an agent of another version has parked is ended: its
// nix-store has a path locked.
func findParked(r machine.Root, program string) *parked {
	folder := r.Path(parkedFolder)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	var found *parked
	for _, entry := range entries {
		socket := filepath.Join(folder, entry.Name())
		k, err := callParking(socket)
		switch {
		case err != nil:
			// It was killed, and nix-store with the pipe that only it has held.
			_ = os.Remove(socket)
		case entry.Name() == filepath.Base(program) && found == nil:
			found = k
		default:
			k.end()
		}
	}
	return found
}

// callParking hears from a parking process what it has. One that has something strange is told to end it.
func callParking(socket string) (*parked, error) {
	dialer := net.Dialer{Timeout: parkedPatience}
	conn, err := dialer.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	k := &parked{conn: conn.(*net.UnixConn)}
	_ = k.conn.SetDeadline(time.Now().Add(parkedPatience))
	if !isOurs(k.conn) {
		k.drop()
		return nil, errors.New("it is not root's")
	}
	if err := k.receive(); err != nil {
		k.end()
		return nil, err
	}
	return k, nil
}

func (k *parked) receive() error {
	text, rights := make([]byte, 8<<10), make([]byte, unix.CmsgSpace(4*len(k.files.all())))
	n, more, _, _, err := k.conn.ReadMsgUnix(text, rights)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:more])
	if err != nil {
		return err
	}
	var fds []int
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		fds = append(fds, got...)
	}
	if len(fds) != len(k.files.all()) {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return errors.New("it has other files than expected")
	}
	k.files = newParkedFiles(fds)
	k.state, err = parseParked(bytes.TrimSuffix(text[:n], []byte("\n")))
	return err
}

// say tells the parking process what is to become of its nix-store, and waits until it is done.
func (k *parked) say(word byte) error {
	_ = k.conn.SetDeadline(time.Now().Add(parkedPatience))
	if _, err := k.conn.Write([]byte{word}); err != nil {
		return err
	}
	if n, err := k.conn.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the keeper does not end")
	}
	return nil
}

// drop leaves nix-store to the parking process.
func (k *parked) drop() {
	_ = k.conn.Close()
	k.files.close()
}

// end ends nix-store, and returns when the path that it has is nobody's.
func (k *parked) end() {
	// Its pipe ends when nobody holds it any more.
	k.files.close()
	_ = k.say(parkedEnd)
	_ = k.conn.Close()
}

// take makes the nix-store this agent's.
func (k *parked) take(ctx context.Context, runner *run.Runner, halted time.Duration) (*store, error) {
	if err := k.say(parkedTake); err != nil {
		k.drop()
		return nil, err
	}
	_ = k.conn.Close()
	f := k.files
	s := &store{
		ctx: ctx, runner: runner, halted: halted, process: &adoptedProcess{f.process, f.stderr}, in: f.in, out: f.out, stderr: f.stderr,
		serve: nix.ContinueServe(f.out, f.in, k.state.Minor),
	}
	s.watch()
	return s, nil
}

// adoptedProcess is a nix-store that another agent has started.
type adoptedProcess struct{ process, stderr *os.File }

// Wait waits for its end. How it ended is not known: it is not a child of this process.
func (p *adoptedProcess) Wait() error {
	machine.AwaitEnd(p.process, -1)
	said := run.FileTail(p.stderr)
	_ = p.process.Close()
	return &run.Error{Argv: storeCommand(), Status: -1, Stderr: said, Err: errors.New("it has ended")}
}

// Kill ends it at once.
func (p *adoptedProcess) Kill() {
	_ = unix.PidfdSendSignal(machine.FD(p.process), unix.SIGKILL, nil, 0)
}

// newMemory is a file that is nowhere; nil if the kernel has none.
func newMemory(name string) *os.File {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		// Before Linux 6.3.
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}
