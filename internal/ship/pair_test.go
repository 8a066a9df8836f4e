package ship

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/delta"
	"ferry/internal/nix"

	"github.com/klauspost/compress/zstd"
)

func TestWithoutVersion(t *testing.T) {
	for name, want := range map[string]string{
		"openssl-3.0.11":              "openssl-",
		"openssl-3.0.11-bin":          "openssl--bin",
		"glibc-2.38-44":               "glibc-",
		"python3.11-requests-2.31.0":  "python3.11-requests-",
		"unit-sshd.service":           "unit-sshd.service",
		"source":                      "source",
		"nixos-system-web-24.05pre-g": "nixos-system-web--g",
		"linux-6.6.1-modules":         "linux--modules",
		"a-":                          "a-",
		"x-1":                         "x-",
	} {
		if got := withoutVersion(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestPairs(t *testing.T) {
	sized := func(name string, size uint64) nix.PathInfo {
		info := infoOf(name)
		info.NarSize = size
		return info
	}
	other := sized("source", 9000)
	other.Path = nix.StorePath("/nix/store/" + strings.Repeat("a", 32) + "-source")
	third := sized("source", 5000)
	third.Path = nix.StorePath("/nix/store/" + strings.Repeat("b", 32) + "-source")
	p := newPairs([]nix.PathInfo{
		sized("glibc-2.37", 30_000), sized("glibc-2.37-bin", 1000), sized("curl-8.1", 700), sized("source", 800_000), other, third,
	})
	for name, c := range map[string]struct {
		info nix.PathInfo
		want []nix.StorePath
	}{
		"the same name":                {sized("curl-8.1", 900), []nix.StorePath{pathOf("curl-8.1")}},
		"another version":              {sized("glibc-2.38", 900), []nix.StorePath{pathOf("glibc-2.37")}},
		"an output of it":              {sized("glibc-2.38-bin", 30_000), []nix.StorePath{pathOf("glibc-2.37-bin")}},
		"several: the nearest sizes":   {sized("source", 8000), []nix.StorePath{other.Path, third.Path}},
		"nothing of the kind is there": {sized("new-1.0", 8000), nil},
	} {
		if got := p.of(c.info); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestWhatTheTargetHasIsNotAskedAbout(t *testing.T) {
	store := closureStore{fakeStore{infos: []nix.PathInfo{infoOf("top", "lib"), infoOf("lib"), infoOf("old", "lib"), infoOf("elsewhere")}}}
	var asked []nix.StorePath
	to := askedTarget{&asked, []nix.StorePath{pathOf("top")}}
	plan, err := MakePlan(t.Context(), store, to, pathOf("top"), Options{Known: []nix.StorePath{pathOf("old"), pathOf("not here")}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(asked, []nix.StorePath{pathOf("top")}) || len(plan.Missing) != 1 || len(plan.Known) != 2 {
		t.Errorf("asked about %v, %+v", asked, plan)
	}
	asked = nil
	if plan, err = MakePlan(t.Context(), store, to, pathOf("old"), Options{Known: []nix.StorePath{pathOf("old")}}); err != nil || asked != nil || plan.Missing != nil {
		t.Errorf("with everything there: asked about %v, %+v, %v", asked, plan, err)
	}
	if plan, err = MakePlan(t.Context(), store, to, pathOf("top"), Options{Known: []nix.StorePath{pathOf("old")}, AskAll: true, NoDelta: true}); err != nil ||
		len(asked) != 2 || plan.Known != nil {
		t.Errorf("asked about %v, %+v, %v", asked, plan, err)
	}
}

// closureStore is a fakeStore that follows references.
type closureStore struct{ fakeStore }

func (s closureStore) Closure(paths []nix.StorePath) ([]nix.StorePath, error) {
	var closure []nix.StorePath
	for todo := slices.Clone(paths); len(todo) > 0; todo = todo[1:] {
		if slices.Contains(closure, todo[0]) {
			continue
		}
		closure = append(closure, todo[0])
		infos, err := s.PathInfos(todo[:1])
		if err != nil {
			return nil, err
		}
		for _, info := range infos {
			todo = append(todo, info.References...)
		}
	}
	return closure, nil
}

// askedTarget lacks some paths and notes what it is asked about.
type askedTarget struct {
	asked *[]nix.StorePath
	lacks []nix.StorePath
}

func (a askedTarget) Missing(_ context.Context, paths []nix.StorePath, _ bool) ([]nix.StorePath, error) {
	*a.asked = paths
	return slices.DeleteFunc(slices.Clone(paths), func(p nix.StorePath) bool { return !slices.Contains(a.lacks, p) }), nil
}

// TestStreamHasDifferences: what is sent of a path that is like an old one is little, and makes its NAR again; and the next
// node's stream is the same, from memory.
func TestStreamHasDifferences(t *testing.T) {
	useRealNix(t)
	noise := make([]byte, 2<<20)
	state := uint32(1)
	for i := range noise {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	old := add(t, "lib-1.0", string(noise))
	noise[1000]++
	next := add(t, "lib-1.1", string(noise))
	alone := add(t, "alone", strings.Repeat("alone", 1000))
	memory := &Memory{}
	var first []byte
	for round := range 2 {
		plan := makePlan(t, localStore(t, next, alone), fakeTarget{lacks: []nix.StorePath{next, alone}}, next)
		plan.Known = infosOf(t, old)
		plan.Memory = memory
		var sent []Sent
		var out bytes.Buffer
		s := &sender{plan: plan, sent: func(one Sent) { sent = append(sent, one) }}
		if err := s.write(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		if out.Len() > 2000 || s.differences != 1 || s.read.Load() != plan.Bytes || len(sent) != 2 {
			t.Fatalf("%d bytes, %d differences, %d of %d read, %+v", out.Len(), s.differences, s.read.Load(), plan.Bytes, sent)
		}
		z, err := zstd.NewReader(&out, zstd.WithDecoderMaxWindow(agent.ShipWindow))
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		stream, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			first = stream
			checkStream(t, stream, next, old, noise)
		} else if !bytes.Equal(first, stream) {
			t.Error("from memory it is another stream")
		}
	}
}

func checkStream(t *testing.T, stream []byte, next, old nix.StorePath, contents []byte) {
	t.Helper()
	far := bufio.NewReader(bytes.NewReader(stream))
	for range 2 {
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
		if header.Path != next {
			if len(header.Bases) > 0 {
				t.Errorf("%+v", header)
			}
			_, _ = io.CopyN(io.Discard, far, int64(header.NarSize))
			continue
		}
		if !slices.Equal(header.Bases, []nix.StorePath{old}) {
			t.Fatalf("%+v", header)
		}
		tree, err := delta.OpenTree(t.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		reader := tree.NewReader()
		defer reader.Close()
		var nar bytes.Buffer
		if err := delta.Decode(far, &nar, header.NarSize, []*delta.Reader{reader}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(nar.Bytes(), contents) {
			t.Error("another NAR comes out")
		}
	}
}

func infosOf(t *testing.T, paths ...nix.StorePath) []nix.PathInfo {
	t.Helper()
	infos, err := localStore(t, paths...).PathInfos(paths)
	if err != nil || len(infos) != len(paths) {
		t.Fatal(infos, err)
	}
	return infos
}

// TestSendTellsWhichPathCouldNotBeRebuilt: what the target makes of a difference has another hash, or its base is not there. It is
// told which path that is, so that it is sent as a whole, and the session goes on.
func TestSendTellsWhichPathCouldNotBeRebuilt(t *testing.T) {
	useRealNix(t)
	t.Setenv("FAKE_LOCK", "yes")
	text := strings.Repeat("0123456789abcdef", 10_000)
	old, before := add(t, "tool-1.0", text), add(t, "before", "before")
	next := add(t, "tool-1.1", text+"more")
	store, session := localStore(t, before, next), connect(t)
	tree, err := delta.OpenTree(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	info := infosOf(t, next)[0]
	encoder := delta.NewEncoder(tree, []*delta.Tree{tree})
	good, _, err := (&delta.Coder{}).Encode(t.Context(), encoder.Jobs()[0])
	if err != nil {
		t.Fatal(err)
	}
	// A NAR of the right size with something else in it.
	wrong := bytes.Clone(good)
	padded := append(append(wrong, 1, byte(info.NarSize-tree.Size())<<2), make([]byte, info.NarSize-tree.Size())...)
	for name, c := range map[string]struct {
		e    *encoded
		says string
	}{
		"another hash": {&encoded{bases: []nix.StorePath{old}, chunks: padded}, "refused"},
		"no such base": {&encoded{bases: []nix.StorePath{pathOf("gone")}, chunks: good}, "no such file"},
		// One copy of ten bytes at 2³⁰.
		"outside of a base": {&encoded{bases: []nix.StorePath{old}, chunks: []byte{7, 10<<2 | 3, 0, 0x80, 0x80, 0x80, 0x80, 0x04}}, "are wanted"},
	} {
		plan := makePlan(t, store, session, next)
		plan.Known = append(infosOf(t, old), nix.PathInfo{Path: pathOf("gone"), NarSize: 1})
		plan.Memory = &Memory{}
		plan.Memory.put(memoryKey(info, newPairs(plan.Known).of(info)), c.e)
		_, err := plan.Send(t.Context(), session, func(Progress) {}, nil)
		var base *WrongBaseError
		if !errors.As(err, &base) || base.Path != next || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	plan := makePlan(t, store, session, next)
	if len(plan.Missing) != 1 {
		t.Errorf("what came before is not there: %+v", plan.Missing)
	}
	plan.Known, plan.Whole = infosOf(t, old), map[nix.StorePath]bool{next: true}
	result, err := plan.Send(t.Context(), session, func(Progress) {}, nil)
	if err != nil || result.Paths != 1 || result.Differences != 0 {
		t.Errorf("as a whole: %+v, %v", result, err)
	}
}

func TestSendRebuildsAPathFromAnOldOne(t *testing.T) {
	useRealNix(t)
	t.Setenv("FAKE_LOCK", "yes")
	text := strings.Repeat("0123456789abcdef", 100_000)
	old, next := add(t, "tool-2.0", text), add(t, "tool-2.1", text[:500_000]+"something else"+text[500_000:])
	store, session := localStore(t, next), connect(t)
	plan := makePlan(t, store, session, next)
	plan.Known = infosOf(t, old)
	result, err := plan.Send(t.Context(), session, func(Progress) {}, nil)
	if err != nil || result.Paths != 1 || result.Differences != 1 || result.Wire > 1000 {
		t.Errorf("%+v, %v", result, err)
	}
}
