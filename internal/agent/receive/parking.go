package receive

import (
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

	"golang.org/x/sys/unix"
)

// parkedFolder has the socket of the process that holds a nix-store in the middle of a path, named after the agent's program: root's
// alone, as the socket's other end has to be root.
const parkedFolder = machine.RunFolder + "/kept"

// ParkLimit is how long a nix-store is parked. A link that is gone for longer is not worth a path that nobody else may write.
const ParkLimit = 10 * time.Minute

// parkedState is what the next agent has to know of a nix-store that is parked.
type parkedState struct {
	agent.Parked
	Minor int `json:"minor"` // of its protocol's version
}

// valid tells whether it is the state of a path that can be gone on with.
func (k parkedState) valid() bool {
	_, err := nix.ParseStorePath(string(k.Path))
	return err == nil && k.Offset > 0 && k.Offset < k.NarSize
}

// isOf tells whether a header goes on with the path where it was broken off.
func (k parkedState) isOf(h *agent.ShipHeader) bool {
	return h.Path == k.Path && h.NarHash == k.NarHash && h.NarSize == k.NarSize && h.Offset == k.Offset
}

// What the next agent says to the parking process. If it ends without a word, the parking process waits for another one.
const (
	parkedTake = 't' // it is mine
	parkedEnd  = 'e' // nobody wants it
)

// parking is a process that holds the pipes of a nix-store in the middle of a path for the next agent.
type parking struct {
	socket string
	state  []byte
	files  parkedFiles
	gone   chan struct{} // closed when nix-store has ended
}

// parkedFiles are what belongs to a parked nix-store: the ends of its pipes, what it says on standard error, and the process.
type parkedFiles struct{ in, out, stderr, process *os.File }

func (f parkedFiles) all() []*os.File { return []*os.File{f.in, f.out, f.stderr, f.process} }

func (f parkedFiles) close() {
	for _, file := range f.all() {
		if file != nil {
			_ = file.Close()
		}
	}
}

// newParkedFiles makes them of descriptors, in the order of all.
func newParkedFiles(fds []int) parkedFiles {
	named := func(i int, name string) *os.File {
		unix.CloseOnExec(fds[i])
		// A pipe that is polled can be closed while somebody waits for it.
		_ = unix.SetNonblock(fds[i], i < 2)
		return os.NewFile(uintptr(fds[i]), name)
	}
	return parkedFiles{named(0, "nix-store's input"), named(1, "nix-store's output"), named(2, "nix-store's errors"), named(3, "nix-store")}
}

// parkingFile is the first descriptor of a parking process\x27s [parkedFiles]; it says on its standard output that it is ready.
const parkingFile = 3

// RunParking holds the nix-store whose files the process was started with until an agent comes to the socket and takes it, or for
// limit. state is for that agent.
func RunParking(ctx context.Context, socket, state string, limit time.Duration) error {
	k := &parking{socket: socket, state: []byte(state), files: newParkedFiles([]int{parkingFile, parkingFile + 1, parkingFile + 2, parkingFile + 3}), gone: make(chan struct{})}
	defer k.files.close()
	listener, err := listenParked(socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() {
		machine.AwaitEnd(k.files.process, -1)
		close(k.gone)
	}()
	calls := make(chan *net.UnixConn)
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			calls <- conn
		}
	}()
	if _, err := os.Stdout.Write([]byte{parkedTake}); err != nil {
		return k.end()
	}
	over := time.After(limit)
	for {
		select {
		case <-ctx.Done():
			return k.end()
		case <-over:
			return k.end()
		case <-k.gone:
			return nil
		case conn := <-calls:
			switch k.offer(ctx, conn) {
			case parkedTake:
				// It is gone from the file system before the next agent may want to park something itself.
				_ = listener.Close()
				return conn.Close()
			case parkedEnd:
				err := k.end()
				_ = listener.Close()
				return errors.Join(err, conn.Close())
			}
			_ = conn.Close()
		}
	}
}

// listenParked listens at a path in a folder of its own.
func listenParked(socket string) (*net.UnixListener, error) {
	folder := filepath.Dir(socket)
	if err := machine.OwnFolder(folder, 0o700); err != nil {
		return nil, err
	}
	_ = os.Remove(socket)
	return net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
}

// offer gives an agent all there is and returns what it says; 0: nothing.
func (k *parking) offer(ctx context.Context, conn *net.UnixConn) byte {
	if !isOurs(conn) {
		return 0
	}
	var fds []int
	for _, file := range k.files.all() {
		fds = append(fds, machine.FD(file))
	}
	_ = conn.SetWriteDeadline(time.Now().Add(parkedPatience))
	if _, _, err := conn.WriteMsgUnix(append(k.state, '\n'), unix.UnixRights(fds...), nil); err != nil {
		return 0
	}
	answer := make(chan byte, 1)
	go func() {
		var word [1]byte
		_, _ = conn.Read(word[:])
		answer <- word[0]
	}()
	select {
	case word := <-answer:
		return word
	case <-k.gone:
		return parkedEnd
	case <-ctx.Done():
		return parkedEnd
	}
}

// end ends nix-store: at the end of its input, or else at once.
func (k *parking) end() error {
	_ = k.files.in.Close()
	select {
	case <-k.gone:
	case <-time.After(storeGrace):
		if err := unix.PidfdSendSignal(machine.FD(k.files.process), unix.SIGKILL, nil, 0); err != nil {
			return fmt.Errorf("end nix-store: %w", err)
		}
		<-k.gone
	}
	return nil
}

// isOurs tells whether the process at the other end is of the same user, root.
func isOurs(conn *net.UnixConn) bool { return machine.PeerUID(conn) == os.Geteuid() }

// parseParked reads what a parking process says of its nix-store.
func parseParked(text []byte) (parkedState, error) {
	var state parkedState
	if err := json.Unmarshal(text, &state); err != nil {
		return state, err
	}
	if !state.valid() {
		return state, errors.New("it is not the state of a path")
	}
	return state, nil
}
