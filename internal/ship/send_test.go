package ship

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/server"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/target"

	"github.com/klauspost/compress/zstd"
)

// TestMain lets this test program act as ssh to a target whose agent is there already and has a store of its own.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "ssh" {
		if err := os.Setenv("NIX_REMOTE", os.Getenv("FAKE_STORE")); err == nil {
			_ = server.Serve(context.Background(), os.Stdin, os.Stdout, server.Options{Lock: os.Getenv("FAKE_LOCK") == "yes", Session: "s1"})
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// useRealNix gives the test this machine's Nix. What is added to the store stays there as garbage; the tests are run with a
// /nix of their own for that reason.
func useRealNix(t *testing.T) {
	t.Helper()
	conf := t.TempDir()
	settings := "sandbox = false\nbuild-users-group =\nsubstituters =\nbuilders =\n"
	if err := os.WriteFile(filepath.Join(conf, "nix.conf"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NIX_CONF_DIR", conf)
	t.Setenv("NIX_USER_CONF_FILES", "")
	t.Setenv("NIX_REMOTE", "")
}

// add puts text into the store under name.
func add(t *testing.T, name, text string) nix.StorePath {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := new(run.Runner).Output(t.Context(), run.Command{Argv: []string{"nix-store", "--add", file}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := nix.ParseStorePath(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// several is a store whose closure of anything is a list of paths, in front of a real one.
type several struct {
	*nix.Serve
	paths []nix.StorePath
}

func (s several) Closure([]nix.StorePath) ([]nix.StorePath, error) { return s.paths, nil }

func localStore(t *testing.T, paths ...nix.StorePath) several {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p, in, out, err := new(run.Runner).Pipe(ctx, run.Command{Argv: []string{"nix-store", "--serve"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = p.Wait(); cancel() })
	serve, err := nix.NewServe(out, in)
	if err != nil {
		t.Fatal(err)
	}
	return several{serve, paths}
}

// connect opens a session with a target that has an empty store.
func connect(t *testing.T) *agent.Session {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, store := t.TempDir(), t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "ssh")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("FAKE_STORE", "local?root="+store)
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	t.Cleanup(func() {
		paths := filepath.Join(store, "nix", "store")
		if _, err := os.Lstat(paths); err != nil {
			return
		}
		// A store's files may not be written to, nor its folders removed from. Its database changes until Nix has ended there.
		if err := new(run.Runner).Run(context.Background(), run.Command{Argv: []string{"chmod", "-R", "u+w", paths}}); err != nil {
			t.Error(err)
		}
	})
	addr, err := target.ParseAddress("pi")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	s, err := agent.Open(ctx, &target.Dialer{Runner: new(run.Runner)}, addr, agent.Options{Elevate: []string{"sudo"}, Session: "s1"})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); cancel() })
	return s
}

func makePlan(t *testing.T, store Store, to Target, root nix.StorePath) *Plan {
	t.Helper()
	plan, err := MakePlan(t.Context(), store, to, root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestStreamIsHeadersAndNARs(t *testing.T) {
	useRealNix(t)
	paths := []nix.StorePath{add(t, "small", "x"), add(t, "large", strings.Repeat("0123456789", 300_000))}
	plan := makePlan(t, localStore(t, paths...), fakeTarget{lacks: paths}, paths[0])
	var out bytes.Buffer
	s := &sender{plan: plan}
	if err := s.write(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if s.read.Load() != plan.Bytes || out.Len() > 100_000 {
		t.Errorf("read %d of %d bytes, wrote %d", s.read.Load(), plan.Bytes, out.Len())
	}
	far, err := zstd.NewReader(&out, zstd.WithDecoderMaxWindow(agent.ShipWindow))
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	for _, info := range plan.Missing {
		var length uint32
		if err := binary.Read(far, binary.BigEndian, &length); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, length)
		if _, err := io.ReadFull(far, text); err != nil {
			t.Fatal(err)
		}
		var header agent.ShipHeader
		if err := json.Unmarshal(text, &header); err != nil {
			t.Fatal(err)
		}
		if header.Path != info.Path || header.NarHash != info.NarHash || header.NarSize != info.NarSize {
			t.Errorf("%+v instead of %+v", header, info)
		}
		var nar bytes.Buffer
		if err := nix.DumpPath(t.Context(), &nar, string(info.Path)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, header.NarSize)
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, nar.Bytes()) {
			t.Errorf("%s: another NAR, %v", info.Path, err)
		}
	}
	if rest, err := io.ReadAll(far); err != nil || !bytes.Equal(rest, make([]byte, 4)) {
		t.Errorf("at the end: %v, %v", rest, err)
	}
}

func TestSendBringsPathsToARealStore(t *testing.T) {
	useRealNix(t)
	t.Setenv("FAKE_LOCK", "yes")
	var paths []nix.StorePath
	for i := range 20 {
		paths = append(paths, add(t, fmt.Sprint("path", i), strings.Repeat(fmt.Sprint(i), 50_000)))
	}
	store, session := localStore(t, paths...), connect(t)
	if lock := session.Hello.Facts.Lock; lock != nil {
		t.Fatalf("locked by %+v", lock)
	}
	plan := makePlan(t, store, session, store.paths[0])
	if len(plan.Missing) != 20 {
		t.Fatalf("%d are missing", len(plan.Missing))
	}
	var last Progress
	result, err := plan.Send(t.Context(), session, func(p Progress) {
		if p.Paths < last.Paths || p.Bytes < last.Bytes || p.Wire < last.Wire || p.TotalPaths != 20 || p.TotalBytes != plan.Bytes {
			t.Errorf("%+v after %+v", p, last)
		}
		last = p
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if result.Paths != 20 || result.Bytes != plan.Bytes || result.Wire == 0 || result.Wire > plan.Bytes/10 || result.Duration <= 0 || result.Peak == 0 {
		t.Errorf("%+v", result)
	}
	if last.Paths != 20 || last.Bytes != plan.Bytes || last.Wire != result.Wire {
		t.Errorf("in the end: %+v", last)
	}
	if again := makePlan(t, store, session, store.paths[0]); len(again.Missing) != 0 || again.Paths != 20 {
		t.Errorf("then: %+v", again)
	}
}

// A path that is gone or was changed since Nix registered it stops the ship with its name. What came before it is on the
// target, and the session goes on.
func TestSendNamesThePathThatVanished(t *testing.T) {
	useRealNix(t)
	t.Setenv("FAKE_LOCK", "yes")
	first, second := add(t, "first", strings.Repeat("1", 100_000)), add(t, "second", strings.Repeat("2", 100_000))
	store, session := localStore(t, first, second), connect(t)
	for name, damage := range map[string]func(*nix.PathInfo){
		"gone":    func(i *nix.PathInfo) { i.Path = pathOf("gone") },
		"larger":  func(i *nix.PathInfo) { i.NarSize -= 8 },
		"smaller": func(i *nix.PathInfo) { i.NarSize += 8 },
	} {
		t.Run(name, func(t *testing.T) {
			plan := makePlan(t, store, fakeTarget{lacks: []nix.StorePath{first, second}}, first)
			damage(&plan.Missing[1])
			result, err := plan.Send(t.Context(), session, func(Progress) {}, nil)
			var vanished *VanishedError
			if !errors.As(err, &vanished) || vanished.Path != plan.Missing[1].Path {
				t.Errorf("got %v", err)
			}
			if result.Paths > 1 {
				t.Errorf("%+v", result)
			}
		})
	}
	plan := makePlan(t, store, session, store.paths[0])
	if len(plan.Missing) != 1 || plan.Missing[0].Path != second {
		t.Fatalf("then: %+v", plan.Missing)
	}
	if _, err := plan.Send(t.Context(), session, func(Progress) {}, nil); err != nil {
		t.Error(err)
	}
}

func TestSendTellsWhatTheTargetRefuses(t *testing.T) {
	useRealNix(t)
	large := add(t, "large", strings.Repeat("x", 3_000_000))
	store, session := localStore(t, large), connect(t)
	plan := makePlan(t, store, session, store.paths[0])
	_, err := plan.Send(t.Context(), session, func(Progress) {}, nil)
	var refused *agent.ResponseError
	if !errors.As(err, &refused) || refused.Kind != agent.KindLocked {
		t.Errorf("without the lock: %v", err)
	}
	t.Setenv("FAKE_LOCK", "yes")
	session = connect(t)
	plan.Missing[0].NarHash = nix.NarHashOf([32]byte{})
	_, err = plan.Send(t.Context(), session, func(Progress) {}, nil)
	if !errors.As(err, &refused) || !strings.Contains(strings.Join(refused.Stderr, "\n"), "hash mismatch") {
		t.Errorf("with a wrong hash: %v", err)
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	useRealNix(t)
	t.Setenv("FAKE_LOCK", "yes")
	large := add(t, "large", strings.Repeat("x", 3_000_000))
	store, session := localStore(t, large), connect(t)
	plan := makePlan(t, store, session, store.paths[0])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := plan.Send(ctx, session, func(Progress) {}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// failing is a writer that fails after some bytes.
type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("the other side is gone")
	}
	return len(p), nil
}

func TestWriteTellsAFailingConnectionFromAVanishedPath(t *testing.T) {
	useRealNix(t)
	noise := make([]byte, 6<<20)
	state := uint32(1)
	for i := range noise {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	large := add(t, "noise", string(noise))
	plan := makePlan(t, localStore(t, large), fakeTarget{lacks: []nix.StorePath{large}}, large)
	err := (&sender{plan: plan}).write(t.Context(), &failing{left: 1 << 20})
	var vanished *VanishedError
	if err == nil || errors.As(err, &vanished) || !strings.Contains(err.Error(), "the other side is gone") {
		t.Errorf("got %v", err)
	}
}
