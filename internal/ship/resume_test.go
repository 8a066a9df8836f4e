package ship

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"slices"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/delta"
	"ferry/internal/nix"

	"github.com/klauspost/compress/zstd"
)

// TestWhatTheTargetHasAPartOfComesFirst, and only if it is what is sent here, and may come first.
func TestWhatTheTargetHasAPartOfComesFirst(t *testing.T) {
	infos := []nix.PathInfo{infoOf("a"), infoOf("b", "there"), infoOf("c", "a", "b"), infoOf("there")}
	for i := range infos {
		infos[i].NarHash = "hash of " + infos[i].Path.Name()
	}
	of := func(name string, offset uint64) *agent.Parked {
		return &agent.Parked{Path: pathOf(name), NarHash: "hash of " + name, NarSize: 100, Offset: offset}
	}
	other := of("b", 40)
	other.NarHash = "another one"
	larger := of("b", 40)
	larger.NarSize++
	for name, c := range map[string]struct {
		kept       *agent.Parked
		substitute bool
		goesOn     bool
	}{
		"nothing":                       {nil, false, false},
		"a part":                        {of("b", 40), false, true},
		"the first":                     {of("a", 1), false, true},
		"what needs others":             {of("c", 40), false, false},
		"nothing of it":                 {of("b", 0), false, false},
		"all of it":                     {of("b", 100), false, false},
		"another hash":                  {other, false, false},
		"another size":                  {larger, false, false},
		"another path":                  {of("there", 40), false, false},
		"where the target fetches more": {of("b", 40), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			target := fakeTarget{lacks: []nix.StorePath{pathOf("a"), pathOf("b"), pathOf("c")}}
			plan, err := MakePlan(t.Context(), fakeStore{infos: infos}, target, pathOf("c"), Options{Parked: c.kept, Substitute: c.substitute})
			if err != nil {
				t.Fatal(err)
			}
			if (plan.Parked != nil) != c.goesOn || len(plan.Missing) != 3 {
				t.Fatalf("%+v", plan)
			}
			checkOrder(t, infos[:3], plan.Missing)
			if c.goesOn && (plan.Missing[0].Path != c.kept.Path || plan.Rest() != 300-c.kept.Offset) || !c.goesOn && plan.Rest() != 300 {
				t.Errorf("%d bytes are left of %+v", plan.Rest(), plan.Missing)
			}
		})
	}
}

// TestTheStreamGoesOn: what is sent of a path that the target has a part of is the rest, whole or as a difference, and a difference
// that is remembered for others is the whole one.
func TestTheStreamGoesOn(t *testing.T) {
	useRealNix(t)
	text := mixed(5, 4<<20)
	old := add(t, "going-1.0", text)
	next := add(t, "going-1.1", text[:1<<20]+mixed(6, 1<<20)+text[2<<20:3<<20]+mixed(7, 1<<20))
	var nar bytes.Buffer
	if err := nix.DumpPath(t.Context(), &nar, string(next)); err != nil {
		t.Fatal(err)
	}
	const offset = 3_500_000
	memory := &Memory{}
	for _, c := range []struct {
		name  string
		known []nix.StorePath
		kept  bool
		most  int
	}{
		{"whole", nil, true, 800_000},
		{"a difference", []nix.StorePath{old}, true, 800_000},
		{"all of the difference", []nix.StorePath{old}, false, 2_200_000},
		{"a difference that is known", []nix.StorePath{old}, true, 800_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := makePlan(t, localStore(t, next), fakeTarget{lacks: []nix.StorePath{next}}, next)
			plan.Memory = memory
			if len(c.known) > 0 {
				plan.Known = infosOf(t, c.known...)
			}
			from := uint64(0)
			if c.kept {
				from = offset
				plan.Parked = parkedOf(plan.Missing[0], from)
			}
			var out bytes.Buffer
			s := &sender{plan: plan}
			if err := s.write(t.Context(), &out); err != nil {
				t.Fatal(err)
			}
			if out.Len() > c.most || c.kept && s.read.Load() > uint64(nar.Len())-from+2<<20 {
				t.Errorf("%d bytes, %d read", out.Len(), s.read.Load())
			}
			header, got := onlyPath(t, &out)
			begin := header.Offset
			if len(header.Bases) > 0 {
				begin = header.Start
			}
			if header.Offset != from || !slices.Equal(header.Bases, c.known) || !bytes.Equal(got, nar.Bytes()[begin:]) {
				t.Errorf("%+v: %d bytes", header, len(got))
			}
		})
	}
}

// onlyPath reads a stream of one path: its header, and what it has of the NAR.
func onlyPath(t *testing.T, stream io.Reader) (header agent.ShipHeader, nar []byte) {
	t.Helper()
	z, err := zstd.NewReader(stream, zstd.WithDecoderMaxWindow(agent.ShipWindow))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	in := bufio.NewReader(z)
	var length uint32
	if err := binary.Read(in, binary.BigEndian, &length); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(in, text); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &header); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if len(header.Bases) == 0 {
		_, err = io.CopyN(&out, in, int64(header.NarSize-header.Offset))
	} else {
		var readers []*delta.Reader
		for _, base := range header.Bases {
			tree, err := delta.OpenTree(t.Context(), base)
			if err != nil {
				t.Fatal(err)
			}
			reader := tree.NewReader()
			defer reader.Close()
			readers = append(readers, reader)
		}
		err = delta.Decode(in, &out, header.NarSize-header.Start, readers)
	}
	if err != nil {
		t.Fatal(err)
	}
	if end, err := io.ReadAll(in); err != nil || !bytes.Equal(end, make([]byte, 4)) {
		t.Errorf("behind it: %q, %v", end, err)
	}
	return header, out.Bytes()
}

// parkedOf says that a target has so many bytes of a path.
func parkedOf(info nix.PathInfo, offset uint64) *agent.Parked {
	return &agent.Parked{Path: info.Path, NarHash: info.NarHash, NarSize: info.NarSize, Offset: offset}
}
