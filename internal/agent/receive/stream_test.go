package receive

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/nix"
	"ferry/internal/run"

	"github.com/klauspost/compress/zstd"
)

// TestAFullDiskIsNoFaultOfABase has a nix-store that dies for that reason at a path with a base.
func TestAFullDiskIsNoFaultOfABase(t *testing.T) {
	header := agent.ShipHeader{Path: newSystem, Bases: []nix.StorePath{oldSystem}}
	for stderr, blamed := range map[string]bool{
		"error: hash mismatch importing path":            true,
		"error: bad archive: unknown file type":          true,
		"error: sized: unexpected end-of-file":           true,
		"error: creating file 'x': File exists":          true,
		"error: write: No space left on device":          false,
		"error: writing: Disk quota exceeded":            false,
		"error: path '/nix/store/x' is not valid":        false,
		"error: database or disk is full (in db.sqlite)": false,
		"": false,
	} {
		if got := refusedBase(nil, header, &run.Error{Stderr: stderr}) != nil; got != blamed {
			t.Errorf("%q: the base is blamed: %v", stderr, got)
		}
	}
	if refusedBase(nil, agent.ShipHeader{Path: newSystem}, &run.Error{Stderr: "error: hash mismatch"}) != nil {
		t.Error("a whole path is said to have a wrong base")
	}
}

// FuzzFeed reads a stream of paths as ferry may send it and one that is no ferry: whatever it is, it ends, and reads no base but
// those that are in the store.
func FuzzFeed(f *testing.F) {
	seed := func(bases string, chunks ...byte) {
		text := append(header(fmt.Sprintf(`{"path":"%s","nar_hash":"sha256:%s","nar_size":104,"bases":[%s]}`, newSystem, strings.Repeat("0", 64), bases)), chunks...)
		f.Add(append(text, 0, 0, 0, 0))
	}
	seed(`"`+string(oldSystem)+`"`, 1, 104<<2&0x7f|3, 0, 0, 0)
	seed(`"/nix/store/../../etc/passwd"`, 0)
	seed("", bytes.Repeat([]byte{'x'}, 104)...)
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, text []byte) {
		// A nix-store that takes everything.
		hello := []byte("\xcb\xee\x52\x54\x00\x00\x00\x00\x07\x02\x00\x00\x00\x00\x00\x00")
		serve, err := nix.NewServe(bytes.NewReader(hello), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		feeder := &feeder{ctx: context.Background(), in: bufio.NewReader(bytes.NewReader(text)), serve: serve, expect: func(nix.StorePath) error { return nil }}
		sent := make(chan *agent.ShipHeader, len(text)/4+1)
		if first, err := readHeader(feeder.in); err == nil {
			_ = feeder.feed(first, sent)
		}
		close(sent)
		for h := range sent {
			for _, p := range append(h.Bases, h.Path) {
				if _, err := nix.ParseStorePath(string(p)); err != nil {
					t.Errorf("%q went through", p)
				}
			}
		}
	})
}

func FuzzReadHeader(f *testing.F) {
	f.Add(header(`{"path":"` + string(newSystem) + `","nar_size":5,"references":["` + string(oldSystem) + `"]}`))
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := readHeader(bytes.NewReader(text))
		if err != nil || h == nil {
			return
		}
		for _, p := range append(slices.Clone(h.References), h.Path) {
			if _, err := nix.ParseStorePath(string(p)); err != nil {
				t.Errorf("%q went through", p)
			}
		}
	})
}

func FuzzReadPaths(f *testing.F) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(z.EncodeAll([]byte(string(newSystem)+"\n"+string(oldSystem)+"\n"), nil))
	f.Add(z.EncodeAll([]byte("/nix/store/../etc\n"), nil))
	f.Add([]byte("(\xb5/\xfd"))
	f.Fuzz(func(t *testing.T, text []byte) {
		paths, err := ReadPaths(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, p := range paths {
			if _, err := nix.ParseStorePath(string(p)); err != nil {
				t.Errorf("%q went through", p)
			}
		}
	})
}

const (
	oldSystem nix.StorePath = "/nix/store/00000000000000000000000000000000-old"
	newSystem nix.StorePath = "/nix/store/11111111111111111111111111111111-new"
)

// header is a header as it stands in the stream.
func header(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}
