package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/machine"
	"ferry/internal/nix"
	"ferry/internal/run"

	"github.com/klauspost/compress/zstd"
)

// useRealNix gives the agents that follow this machine's Nix, with an empty store below the folder it returns.
func useRealNix(t *testing.T, m *fakeMachine) (store machine.Root) {
	t.Helper()
	store = machine.Root{Dir: t.TempDir()}
	conf := t.TempDir()
	settings := "sandbox = false\nbuild-users-group =\nsubstituters =\n"
	if err := os.WriteFile(filepath.Join(conf, "nix.conf"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"nix-store", "nix-env"} {
		if err := os.Remove(m.Path("/bin/" + program)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("NIX_CONF_DIR", conf)
	t.Setenv("NIX_USER_CONF_FILES", "")
	t.Setenv("NIX_REMOTE", "local?root="+store.Dir)
	t.Cleanup(func() {
		paths := filepath.Join(store.Dir, "nix", "store")
		if _, err := os.Lstat(paths); err != nil {
			return
		}
		// A store's files may not be written to, nor its folders removed from. Its database changes until Nix has ended.
		if err := new(run.Runner).Run(context.Background(), run.Command{Argv: []string{"chmod", "-R", "u+w", paths}}); err != nil {
			t.Error(err)
		}
	})
	return store
}

// item is a path to ship.
type item struct {
	header agent.ShipHeader
	nar    []byte
}

// newItem makes a path with content, called name.
func newItem(t *testing.T, name, content string, references ...nix.StorePath) item {
	t.Helper()
	file := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	var nar bytes.Buffer
	if err := nix.DumpPath(t.Context(), &nar, file); err != nil {
		t.Fatal(err)
	}
	i := newItemOf(name, nar.Bytes())
	i.header.References = references
	return i
}

// newItemOf makes a path of a NAR, called name.
func newItemOf(name string, nar []byte) item {
	sum := sha256.Sum256([]byte(name))
	digits := make([]byte, 32)
	for i := range digits {
		digits[i] = "0123456789abcdfghijklmnpqrsvwxyz"[sum[i]%32]
	}
	return item{agent.ShipHeader{
		Path: nix.StorePath("/nix/store/" + string(digits) + "-" + name), NarHash: nix.NarHashOf(sha256.Sum256(nar)), NarSize: uint64(len(nar)),
	}, nar}
}

// stream is items as ferry sends them, not compressed. Without end it stops behind the last one.
func stream(t *testing.T, end bool, items ...item) []byte {
	t.Helper()
	var b []byte
	for _, i := range items {
		header, err := json.Marshal(i.header)
		if err != nil {
			t.Fatal(err)
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(header)))
		b = append(append(b, header...), i.nar...)
	}
	if end {
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

func compress(t *testing.T, text []byte, options ...zstd.EOption) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// request sends r and its stream while the answer is read, as ferry does.
func (f *ferry) request(r agent.Request, text []byte) agent.Response {
	f.t.Helper()
	f.send(r)
	sent := make(chan error, 1)
	go func() {
		data := f.wire.DataWriter()
		_, err := data.Write(text)
		if err == nil {
			err = data.Close()
		}
		sent <- err
	}()
	response, _ := f.answer()
	if err := <-sent; err != nil {
		f.t.Fatal(err)
	}
	return response
}

func (f *ferry) ship(text []byte) agent.Response {
	f.t.Helper()
	return f.request(agent.Request{Method: agent.MethodShip}, text)
}

// missing asks which of items are not there, by name.
func (f *ferry) missing(items ...item) []string {
	f.t.Helper()
	var list strings.Builder
	for _, i := range items {
		fmt.Fprintln(&list, i.header.Path)
	}
	r := f.request(agent.Request{Method: agent.MethodMissing}, compress(f.t, []byte(list.String())))
	if r.Error != nil {
		f.t.Fatal(r.Error)
	}
	var names []string
	for _, i := range r.Missing {
		names = append(names, items[i].header.Path.Name())
	}
	return names
}

func TestShipRegistersPathsWithRealNix(t *testing.T) {
	m := newMachine(t)
	store := useRealNix(t, m)
	a := newItem(t, "a", "small")
	items := []item{a, newItem(t, "b", strings.Repeat("large", 1<<20), a.header.Path)}
	for i := range 100 {
		items = append(items, newItem(t, fmt.Sprint("c", i), fmt.Sprint(i), a.header.Path, items[1].header.Path))
	}
	f := m.connect(locked("s1"))
	if got := f.missing(items...); len(got) != len(items) {
		t.Errorf("missing: %q", got)
	}
	r := f.request(agent.Request{Method: agent.MethodShip, Root: a.header.Path}, compress(t, stream(t, true, items...)))
	if r.Error != nil || r.Ship.Registered != len(items) || r.Ship.Peak == 0 {
		t.Fatalf("%+v, %v", r.Ship, r.Error)
	}
	if text, err := os.ReadFile(store.Path(string(items[5].header.Path))); err != nil || string(text) != "3" {
		t.Errorf("in the store: %q, %v", text, err)
	}
	if got := f.missing(items...); got != nil {
		t.Errorf("missing: %q", got)
	}
	// Shipped again it is taken and ignored.
	if r := f.ship(compress(t, stream(t, true, a))); r.Error != nil || r.Ship.Registered != 1 {
		t.Errorf("again: %+v, %v", r.Ship, r.Error)
	}
	if got := m.StorePath(machine.GCRoots + "/pending"); got != "" && got != string(a.header.Path) {
		t.Errorf("pending is %q", got)
	}
	if to, err := os.Readlink(m.Path(machine.GCRoots + "/pending")); err != nil || to != string(a.header.Path) {
		t.Errorf("pending is %q, %v", to, err)
	}
}

// The agent's memory has a limit that the window of the stream fills by a third. Buffers that are larger than they have to be
// bring it so near to that limit that it does nothing but collect garbage.
func TestAShipNeedsFewBuffers(t *testing.T) {
	m := newMachine(t)
	useRealNix(t, m)
	f := m.connect(locked("s1"))
	text := compress(t, stream(t, true, newItem(t, "small", "small")))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if r := f.ship(text); r.Error != nil {
		t.Fatal(r.Error)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("a ship of one small path has allocated %d bytes", got)
	}
}

// What arrives whole before a failure is registered, the failure is told, and the same agent takes the next ship.
func TestShipThatFailsKeepsWhatArrived(t *testing.T) {
	m := newMachine(t)
	useRealNix(t, m)
	f := m.connect(locked("s1"))
	type ship struct {
		a, b, c item
		whole   []byte
	}
	for name, x := range map[string]struct {
		sent    func(s ship) []byte
		says    string
		missing string // of a, b, c; "?" if it may be any
	}{
		"a wrong hash": {func(s ship) []byte {
			s.c.header.NarHash = s.a.header.NarHash
			return compress(t, stream(t, true, s.a, s.b, s.c))
		}, "hash mismatch", "c"},
		"a reference that is not there": {func(s ship) []byte {
			s.c.header.References = []nix.StorePath{newSystem}
			return compress(t, stream(t, true, s.a, s.b, s.c))
		}, "is not valid", "c"},
		"no size": {func(s ship) []byte {
			s.c.header.NarSize = 0
			return compress(t, stream(t, true, s.a, s.b, s.c))
		}, "cannot be the size", "c"},
		"cut off in a NAR":         {func(s ship) []byte { return compress(t, s.whole[:len(s.whole)-200_000]) }, "stream of paths: unexpected EOF", "bc"},
		"cut off before the end":   {func(s ship) []byte { return compress(t, stream(t, false, s.a, s.b)) }, "stream of paths: EOF", "c"},
		"cut off in compression":   {func(s ship) []byte { return compress(t, s.whole)[:60] }, "stream of paths: ", "?"},
		"not compressed":           {func(s ship) []byte { return s.whole }, "stream of paths: ", "abc"},
		"nothing":                  {func(ship) []byte { return nil }, "stream of paths: EOF", "abc"},
		"a header too long":        {func(s ship) []byte { return compress(t, append(stream(t, false, s.a), 0xff, 0, 0, 0)) }, "the limit is", "bc"},
		"a header that is no JSON": {func(s ship) []byte { return compress(t, append(stream(t, false, s.a), header("{{")...)) }, "invalid character", "bc"},
		"a path outside the store": {func(s ship) []byte {
			return compress(t, append(stream(t, false, s.a), header(`{"path":"/etc/passwd"}`)...))
		}, "is not in /nix/store", "bc"},
		"a window that is too large": {func(s ship) []byte {
			return compress(t, bytes.Repeat(s.whole, 20), zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
		}, "window", "abc"},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := strings.ReplaceAll(name, " ", "-") + "."
			s := ship{a: newItem(t, prefix+"a", name), b: newItem(t, prefix+"b", strings.Repeat(name, 50_000)), c: newItem(t, prefix+"c", "c")}
			s.whole = stream(t, true, s.a, s.b, s.c)
			r := f.ship(x.sent(s))
			if r.Error == nil || !strings.Contains(strings.Join(append(r.Error.Stderr, r.Error.Text), "\n"), x.says) {
				t.Errorf("%+v, %v", r.Ship, r.Error)
			}
			missing := strings.ReplaceAll(strings.Join(f.missing(s.a, s.b, s.c), ""), prefix, "")
			if x.missing != "?" && missing != x.missing {
				t.Errorf("missing: %q", missing)
			}
			if r := f.ship(compress(t, s.whole)); r.Error != nil || r.Ship.Registered != 3 {
				t.Errorf("the next ship: %+v, %v", r.Ship, r.Error)
			}
		})
	}
}

func header(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

// A connection that is lost in the middle of a ship must not leave an agent that holds the lock.
func TestServeEndsWhenTheConnectionIsLostInTheMiddleOfAShip(t *testing.T) {
	m := newMachine(t)
	useRealNix(t, m)
	a, b := newItem(t, "a", "a"), newItem(t, "b", strings.Repeat("b", 1<<20))
	whole := compress(t, stream(t, true, a, b))
	f := m.connect(locked("s1"))
	f.send(agent.Request{Method: agent.MethodShip})
	go func() { _, _ = io.Copy(io.Discard, pipeOf{f}) }()
	if _, err := f.wire.DataWriter().Write(whole[:len(whole)-20]); err != nil {
		t.Fatal(err)
	}
	_ = f.in.Close()
	if err := <-f.ended; err == nil {
		t.Error("it ended without an error")
	}
	f.ended <- nil
	if got := m.connect(locked("s2")).missing(a, b); !slices.Equal(got, []string{"b"}) {
		t.Errorf("missing: %q", got)
	}
}

// A nix-store that waits for something before it greets, as for a lock, must not keep an agent whose ferry is gone: that has the lock.
func TestANixStoreThatDoesNotAnswerIsGivenUp(t *testing.T) {
	const mute = `#!/bin/sh
case $1 in
--version) echo "nix-store (Nix) 2.99.0";;
--serve) echo $$ >>"$FERRY_TEST_ROOT/serving"; cat >/dev/null; exec sleep 600;;
esac
`
	t.Run("when ferry is gone", func(t *testing.T) {
		m := newMachine(t)
		m.Program("/bin/nix-store", mute)
		f := m.connect(locked("s1"))
		for serving := false; !serving; {
			_, err := os.Stat(filepath.Join(m.Dir, "serving"))
			serving = err == nil
			time.Sleep(10 * time.Millisecond)
		}
		_ = f.in.Close()
		select {
		case <-f.ended:
			f.ended <- nil
		case <-time.After(time.Minute):
			t.Fatal("the agent goes on")
		}
		m.connect(locked("s2"))
	})
	t.Run("after a while", func(t *testing.T) {
		m := newMachine(t)
		m.Program("/bin/nix-store", mute)
		options := locked("s1")
		options.opening = 100 * time.Millisecond
		r := m.connect(options).request(agent.Request{Method: agent.MethodMissing}, compress(t, nil))
		if r.Error == nil || !strings.Contains(r.Error.Text, "has not answered within 100ms") {
			t.Errorf("%+v", r.Error)
		}
		if text, err := os.ReadFile(filepath.Join(m.Dir, "serving")); err != nil || bytes.Count(text, []byte("\n")) != 1 {
			t.Errorf("it was started as %q, %v", text, err)
		}
	})
}

// pipeOf reads the frames of an agent that nobody looks at.
type pipeOf struct{ f *ferry }

func (p pipeOf) Read(b []byte) (int, error) {
	_, _, err := p.f.wire.Read()
	return 0, err
}

func TestShipTellsWhatNixStoreSaysWhenItDies(t *testing.T) {
	for name, script := range map[string]string{
		"before it greets": `echo "error: disk is full" >&2; exit 1`,
		"in the middle":    `printf '\142\164\000\000\000\000\000\000\005\002\000\000\000\000\000\000'; head -c 300 >/dev/null; echo "error: writing: No space left on device" >&2; exit 1`,
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.Program("/bin/nix-store", "#!/bin/sh\n[ \"$1\" != --version ] || exit 0\n"+script+"\n")
			f := m.connect(locked("s1"))
			for range 2 {
				r := f.ship(compress(t, stream(t, true, newItem(t, "a", strings.Repeat("a", 4<<20)))))
				if r.Error == nil || r.Error.Kind != agent.KindDiskFull || r.Error.Command == "" {
					t.Errorf("%+v, %#v", r.Ship, r.Error)
				}
			}
		})
	}
}

func TestMissingRefusesWhatIsNoPath(t *testing.T) {
	m := newMachine(t)
	useRealNix(t, m)
	f := m.connect(locked("s1"))
	for name, c := range map[string]struct{ text, says string }{
		"outside the store": {"/etc/passwd\n", "is not in /nix/store"},
		"endless line":      {strings.Repeat("x", 1<<20), "token too long"},
		"too many":          {strings.Repeat(string(newSystem)+"\n", 100_001), "more than 100000 paths"},
	} {
		if r := f.request(agent.Request{Method: agent.MethodMissing}, compress(t, []byte(c.text))); r.Error == nil || !strings.Contains(r.Error.Text, c.says) {
			t.Errorf("%s: %+v, %v", name, r.Missing, r.Error)
		}
	}
	if r := f.request(agent.Request{Method: agent.MethodMissing}, []byte("not compressed")); r.Error == nil {
		t.Errorf("%+v", r.Missing)
	}
	if got := f.missing(newItem(t, "a", "a")); !slices.Equal(got, []string{"a"}) {
		t.Errorf("after that: %q", got)
	}
}
