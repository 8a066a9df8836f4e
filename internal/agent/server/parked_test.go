package server

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/delta"
	"ferry/internal/nix"

	"golang.org/x/sys/unix"
)

// berth is a machine on which a ship of a large path has lost its connection.
type berth struct {
	*fakeMachine
	store machine.Root
	large item
	small item // which was sent before it
}

// noise is what no compression makes smaller.
func noise(seed uint64, size int) string {
	text := make([]byte, size)
	random := rand.NewChaCha8(sha256.Sum256([]byte(strconv.FormatUint(seed, 10))))
	_, _ = random.Read(text)
	return string(text)
}

func newBerth(t *testing.T) *berth {
	t.Helper()
	m := newMachine(t)
	b := &berth{fakeMachine: m, store: useRealNix(t, m), small: newItem(t, "small", "small")}
	b.large = newItem(t, "large", noise(1, 8<<20), b.small.header.Path)
	return b
}

// breakOff ships until the connection is lost, at about half of the large path.
func (b *berth) breakOff(opts Options) {
	b.T.Helper()
	f := b.connect(opts)
	b.sendHalf(f, compress(b.T, stream(b.T, true, b.small, b.large)))
}

func (b *berth) sendHalf(f *ferry, text []byte) {
	b.T.Helper()
	f.send(agent.Request{Method: agent.MethodShip})
	go func() {
		for {
			if _, _, err := f.wire.Read(); err != nil {
				return
			}
		}
	}()
	if _, err := f.wire.DataWriter().Write(text[:len(text)/2]); err != nil {
		b.T.Fatal(err)
	}
	_ = f.in.Close()
	if err := <-f.ended; err == nil {
		b.T.Error("the agent ended without an error")
	}
	f.ended <- nil
}

// rest is the large path as a stream that goes on where it was broken off.
func (b *berth) rest(offset uint64) []byte {
	b.T.Helper()
	x := b.large
	x.header.Offset, x.nar = offset, x.nar[offset:]
	return compress(b.T, stream(b.T, true, x))
}

// parked is what the agent has of the large path, which has to be about half of it.
func (b *berth) parked(f *ferry) uint64 {
	b.T.Helper()
	k := f.hello.Parked
	if k == nil {
		b.T.Fatal("nothing was parked")
	}
	if k.Path != b.large.header.Path || k.NarHash != b.large.header.NarHash || k.Offset < 3<<20 || k.Offset > 5<<20 {
		b.T.Fatalf("kept is %+v", *k)
	}
	return k.Offset
}

// processes are those that have to do with the machine's store, by their command lines.
func (b *berth) processes() (lines []string, pids []int) {
	b.T.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		b.T.Fatal(err)
	}
	for _, folder := range folders {
		environment, _ := os.ReadFile(folder + "/environ")
		line, _ := os.ReadFile(folder + "/cmdline")
		pid, _ := strconv.Atoi(filepath.Base(folder))
		if pid != os.Getpid() && len(line) > 0 && bytes.Contains(environment, []byte(b.store.Dir)) {
			lines, pids = append(lines, strings.ReplaceAll(string(line), "\x00", " ")), append(pids, pid)
		}
	}
	return lines, pids
}

// until waits until f holds.
func (b *berth) until(what string, f func() bool) {
	b.T.Helper()
	for start := time.Now(); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			lines, _ := b.processes()
			b.T.Fatalf("not %s: %q", what, lines)
		}
	}
}

// nothingLeft waits until no process and no socket is left.
func (b *berth) nothingLeft() {
	b.T.Helper()
	b.until("gone", func() bool {
		lines, _ := b.processes()
		sockets, _ := os.ReadDir(b.Path(parkedFolder))
		return len(lines) == 0 && len(sockets) == 0
	})
}

func (f *ferry) leave() {
	_ = f.in.Close()
	<-f.ended
	f.ended <- nil
}

// shipWhole ships everything, which has to work whatever was before.
func (b *berth) shipWhole(f *ferry) {
	b.T.Helper()
	if r := f.ship(compress(b.T, stream(b.T, true, b.small, b.large))); r.Error != nil || r.Ship.Registered != 2 {
		b.T.Errorf("%+v, %v", r.Ship, r.Error)
	}
}

// A path that a lost connection has broken off is gone on with where it was, by whichever deployment is next, over as many
// connections as it takes; and nothing is left.
func TestABrokenOffPathGoesOn(t *testing.T) {
	b := newBerth(t)
	b.breakOff(locked("s1"))
	f := b.connect(locked("s1"))
	offset := b.parked(f)
	if got := f.missing(b.small, b.large); !slices.Equal(got, []string{"large"}) {
		t.Errorf("missing: %q", got)
	}
	b.sendHalf(f, b.rest(offset))
	f = b.connect(locked("s2"))
	if k := f.hello.Parked; k == nil || k.Offset < offset+1<<20 {
		t.Fatalf("after %d bytes there are %+v", offset, k)
	}
	last := newItem(t, "last", "last", b.large.header.Path)
	x := b.large
	x.header.Offset, x.nar = f.hello.Parked.Offset, x.nar[f.hello.Parked.Offset:]
	if r := f.ship(compress(t, stream(t, true, x, last))); r.Error != nil || r.Ship.Registered != 2 {
		t.Fatalf("%+v, %v", r.Ship, r.Error)
	}
	if got := f.missing(b.small, b.large, last); got != nil {
		t.Errorf("missing: %q", got)
	}
	f.leave()
	b.nothingLeft()
}

// The rest may be a difference, which begins where its pieces do, whatever the first part was.
func TestTheRestMayBeADifference(t *testing.T) {
	b := newBerth(t)
	files := map[string]string{"data": noise(2, 9<<20), "end": "new"}
	base := addBase(t, "resumed-base", map[string]string{"data": files["data"], "end": "old"})
	b.large = newDifference(t, "large", files, "")
	b.breakOff(locked("s1"))
	f := b.connect(locked("s2"))
	offset := b.parked(f)
	x := b.large
	folder := makeFolder(t, "large", files)
	next, err := delta.OpenTree(t.Context(), nix.StorePath(folder))
	if err != nil {
		t.Fatal(err)
	}
	old, err := delta.OpenTree(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	encoder := delta.NewEncoder(next, []*delta.Tree{old})
	for name, jobs := range map[string][]delta.Job{"all": encoder.Jobs(), "the rest": encoder.JobsFrom(offset)} {
		if name == "the rest" && jobs[0].Begin() != offset {
			t.Errorf("the rest begins at %d, and not at %d", jobs[0].Begin(), offset)
		}
		if f.hello.Parked == nil {
			// The second of them.
			b.large = newItemOf("large-2", b.large.nar)
			x = b.large
			b.breakOff(locked("s3"))
			f = b.connect(locked("s4"))
			offset = b.parked(f)
			if name == "the rest" {
				jobs = encoder.JobsFrom(offset)
			}
		}
		x.header.Bases, x.header.Offset, x.header.Start, x.nar = []nix.StorePath{base}, offset, jobs[0].Begin(), nil
		for _, job := range jobs {
			chunks, _, err := new(delta.Coder).Encode(t.Context(), job)
			if err != nil {
				t.Fatal(err)
			}
			x.nar = append(x.nar, chunks...)
		}
		x.nar = append(x.nar, delta.End()...)
		if r := f.ship(compress(t, stream(t, true, x))); r.Error != nil || r.Ship.Registered != 1 {
			t.Errorf("%s: %+v, %v", name, r.Ship, r.Error)
		}
		f.hello.Parked = nil
		f.leave()
	}
	b.nothingLeft()
}

// The names are short: they are in the path of a socket. Whatever becomes of what is kept, the next ship brings everything, and nothing is left.
func TestParkedInVain(t *testing.T) {
	for name, c := range map[string]struct {
		do func(b *berth) *ferry
	}{
		"ferry begins again": {func(b *berth) *ferry {
			f := b.connect(locked("s2"))
			b.parked(f)
			return f
		}},
		"another version comes": {func(b *berth) *ferry {
			program := b.Path("/agent-of-another-version")
			mine, err := os.Executable()
			if err == nil {
				err = os.Symlink(mine, program)
			}
			if err != nil {
				b.T.Fatal(err)
			}
			opts := locked("s2")
			opts.Program = program
			f := b.connect(opts)
			if f.hello.Parked != nil {
				b.T.Errorf("%+v", f.hello.Parked)
			}
			return f
		}},
		"it is killed": {func(b *berth) *ferry {
			lines, pids := b.processes()
			for i, line := range lines {
				if strings.Contains(line, " keep ") {
					_ = syscall.Kill(pids[i], syscall.SIGKILL)
				}
			}
			b.until("killed", func() bool {
				left, _ := b.processes()
				return len(left) == 0
			})
			f := b.connect(locked("s2"))
			if f.hello.Parked != nil {
				b.T.Errorf("%+v", f.hello.Parked)
			}
			return f
		}},
		"nix-store is killed": {func(b *berth) *ferry {
			lines, pids := b.processes()
			for i, line := range lines {
				if strings.HasPrefix(line, "nix-store ") {
					_ = syscall.Kill(pids[i], syscall.SIGKILL)
				}
			}
			b.nothingLeft()
			return b.connect(locked("s2"))
		}},
		"the target substitutes": {func(b *berth) *ferry {
			f := b.connect(locked("s2"))
			b.parked(f)
			paths := compress(b.T, []byte(string(b.large.header.Path)+"\n"))
			if r := f.request(agent.Request{Method: agent.MethodMissing, Substitute: true}, paths); r.Error != nil || len(r.Missing) != 1 {
				b.T.Errorf("%+v", r)
			}
			return f
		}},
		"something is changed": {func(b *berth) *ferry {
			f := b.connect(locked("s2"))
			b.parked(f)
			if r, _ := f.ask(activation("dry-activate")); r.Error != nil {
				b.T.Error(r.Error)
			}
			return f
		}},
		"it goes on elsewhere": {func(b *berth) *ferry {
			f := b.connect(locked("s2"))
			offset := b.parked(f)
			if r := f.ship(b.rest(offset - 1)); r.Error == nil || !strings.Contains(r.Error.Text, "nothing is kept") {
				b.T.Errorf("%+v, %v", r.Ship, r.Error)
			}
			return f
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBerth(t)
			b.breakOff(locked("s1"))
			f := c.do(b)
			b.shipWhole(f)
			f.leave()
			b.nothingLeft()
		})
	}
}

func TestParkedForItsTime(t *testing.T) {
	b := newBerth(t)
	t.Setenv("FERRY_TEST_KEEP", "1ms")
	b.breakOff(locked("s1"))
	b.nothingLeft()
	f := b.connect(locked("s2"))
	b.shipWhole(f)
	f.leave()
	b.nothingLeft()
}

// An agent that looks and goes leaves it to the next.
func TestWhatIsParkedWaitsForTheOneThatWantsIt(t *testing.T) {
	b := newBerth(t)
	b.breakOff(locked("s1"))
	for range 2 {
		f := b.connect(locked("s2"))
		b.parked(f)
		f.leave()
	}
	f := b.connect(locked("s3"))
	if r := f.ship(b.rest(b.parked(f))); r.Error != nil || r.Ship.Registered != 1 {
		t.Errorf("%+v, %v", r.Ship, r.Error)
	}
	f.leave()
	b.nothingLeft()
}

// What was sent first may have been wrong: then the path is told, and is taken when it comes as a whole.
func TestAWrongBeginningIsTold(t *testing.T) {
	b := newBerth(t)
	right := b.large
	b.large.nar = slices.Clone(right.nar)
	b.large.nar[1<<20] ^= 1
	b.breakOff(locked("s1"))
	b.large = right
	f := b.connect(locked("s2"))
	r := f.ship(b.rest(b.parked(f)))
	if r.Error == nil || r.Error.Kind != agent.KindBase || r.Error.Path != right.header.Path {
		t.Errorf("%+v, %+v", r.Ship, r.Error)
	}
	b.shipWhole(f)
	f.leave()
	b.nothingLeft()
}

// A small path, or one that ferry itself has ended, is not worth a process.
func TestWhatIsNotParked(t *testing.T) {
	for name, c := range map[string]struct {
		size int
		ends bool
	}{
		"small":              {1 << 20, false},
		"ferry has ended it": {8 << 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBerth(t)
			b.large = newItem(t, "large", noise(3, c.size))
			text := compress(t, stream(t, true, b.large))
			f := b.connect(locked("s1"))
			if c.ends {
				if r := f.ship(text[:len(text)/2]); r.Error == nil {
					t.Errorf("%+v", r.Ship)
				}
				f.leave()
			} else {
				b.sendHalf(f, text)
			}
			b.nothingLeft()
			if f := b.connect(locked("s2")); f.hello.Parked != nil {
				t.Errorf("%+v", f.hello.Parked)
			}
		})
	}
}

// Another user gets nothing, even if the folder would let them in, and ends nothing.
func TestWhatIsParkedIsRootsAlone(t *testing.T) {
	b := newBerth(t)
	b.breakOff(locked("s1"))
	folder := b.Path(parkedFolder)
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v, %v", info, err)
	}
	sockets, err := filepath.Glob(folder + "/*")
	if err != nil || len(sockets) != 1 {
		t.Fatalf("%q, %v", sockets, err)
	}
	if err := askAs(65534, sockets[0]); !errors.Is(err, unix.EACCES) {
		t.Errorf("another user may connect: %v", err)
	}
	openTo(t, sockets[0], 0o777)
	if err := askAs(65534, sockets[0]); err != nil {
		t.Errorf("another user: %v", err)
	}
	// An agent uses no folder that others may write to.
	openTo(t, sockets[0], 0o755)
	f := b.connect(locked("s2"))
	if r := f.ship(b.rest(b.parked(f))); r.Error != nil {
		t.Error(r.Error)
	}
}

// openTo gives a mode to a file and to all above it.
func openTo(t *testing.T, file string, mode os.FileMode) {
	t.Helper()
	for ; file != "/" && file != os.TempDir(); file = filepath.Dir(file) {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// askAs connects as another user, which is nothing but an end.
func askAs(user int, socket string) error {
	said := make(chan error)
	go func() {
		// The thread is another user's from now on: it ends with the goroutine. The main thread does not, and /proc says whose the
		// process is by it: while it is held here, the next goroutine has another one.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			said <- connectAs(user, socket)
			return
		}
		said <- askAs(user, socket)
		runtime.UnlockOSThread()
	}()
	return <-said
}

func connectAs(user int, socket string) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(user), uintptr(user), uintptr(user)); errno != 0 {
		return errno
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return err
	}
	_, _ = unix.Write(fd, []byte{parkedEnd})
	text, rights := make([]byte, 100), make([]byte, 100)
	n, more, _, _, err := unix.Recvmsg(fd, text, rights, 0)
	if n > 0 || more > 0 {
		return errors.New("it was told " + string(text[:n]))
	}
	if errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

// Who answers at the socket and is no parking process is not believed.
func TestAStrangeParkingProcessIsNotBelieved(t *testing.T) {
	for name, says := range map[string]string{
		"nothing":    "",
		"no state":   "{}\n",
		"not a path": `{"path":"/etc/passwd","nar_size":10,"offset":5}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Write(parkedFolder+"/.keep", "")
			program, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			listener, err := net.Listen("unix", m.Path(parkedFolder+"/"+filepath.Base(program)))
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Write([]byte(says))
					_ = conn.Close()
				}
			}()
			if f := m.connect(locked("s1")); f.hello.Parked != nil {
				t.Errorf("%+v", f.hello.Parked)
			}
		})
	}
}
