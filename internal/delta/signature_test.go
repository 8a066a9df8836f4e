package delta

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func signatureOf(t *testing.T, tree *Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	if err := WriteSignature(t.Context(), w, tree); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bySignature encodes next knowing old by its signature only, and checks that next comes out.
func bySignature(t *testing.T, next, old string) Stats {
	t.Helper()
	tree, base := openTest(t, next), openTest(t, old)
	s, err := ReadSignature(t.Context(), bufio.NewReader(bytes.NewReader(signatureOf(t, base))), base.Path(), plenty())
	if err != nil {
		t.Fatal(err)
	}
	e := NewSignedEncoder(tree, []*Signature{s})
	var chunks []byte
	var stats Stats
	c := &Coder{}
	for _, j := range e.Jobs() {
		out, s, err := c.Encode(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		chunks, stats = append(chunks, out...), stats.Add(s)
	}
	got, err := decode(append(chunks, End()...), tree.Size(), []*Tree{base})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, narOf(t, next)) {
		t.Fatal("another NAR comes out")
	}
	return stats
}

func TestSignatureFindsWhatIsThere(t *testing.T) {
	text := string(noise(1, 500_000))
	for name, c := range map[string]struct {
		next  string
		added uint64
	}{
		"equal":              {text, 700},
		"a byte changed":     {text[:1000] + "x" + text[1001:], 2500},
		"a byte put in":      {text[:70_000] + "x" + text[70_000:], 2500},
		"bytes taken out":    {text[:70_000] + text[71_234:], 4500},
		"longer":             {text + "more", 2500},
		"shorter":            {text[:400_000], 2500},
		"halves exchanged":   {text[250_000:] + text[:250_000], 4500},
		"nothing of it":      {string(noise(2, 100_000)), 110_000},
		"only its last part": {string(noise(2, 10_000)) + text[499_000:], 14_000},
	} {
		t.Run(name, func(t *testing.T) {
			old := makeTree(t, map[string]string{"lib/x-1.0": text, "small": "x"})
			stats := bySignature(t, makeTree(t, map[string]string{"lib/x-1.1": c.next, "small": "x"}), old)
			if stats.Added > c.added {
				t.Errorf("%+v, want at most %d bytes added", stats, c.added)
			}
		})
	}
}

func TestSignatureOfAllShapes(t *testing.T) {
	all := shapes()
	delete(all, "names in odd order")
	var paths []string
	for _, files := range all {
		paths = append(paths, makeTree(t, files))
	}
	paths = append(paths, makeTree(t, library(oldHash, "1.2")), makeTree(t, library(newHash, "1.3")))
	for _, next := range paths {
		for _, old := range paths {
			bySignature(t, next, old)
		}
	}
}

func TestSignatureIsShort(t *testing.T) {
	tree := treeOf(t, library(oldHash, "1.2"))
	if n := len(signatureOf(t, tree)); uint64(n) > tree.Size()/50 {
		t.Errorf("%d bytes of %d", n, tree.Size())
	}
}

func TestNoSignature(t *testing.T) {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	if err := WriteNoSignature(w); err != nil || w.Flush() != nil {
		t.Fatal(err)
	}
	if s, err := ReadSignature(t.Context(), bufio.NewReader(&b), "x", plenty()); s != nil || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	path := makeTree(t, map[string]string{"a": string(noise(1, 1000))})
	tree := openTest(t, path)
	if err := os.Remove(filepath.Join(path, "a")); err != nil {
		t.Fatal(err)
	}
	if err := WriteSignature(t.Context(), w, tree); err == nil {
		t.Error("a file that is gone is signed")
	}
}

// plenty is room that no honest signature of a test exhausts.
func plenty() *Room { return &Room{Bytes: 64 << 20} }

// crafted is a signature of one file of zeros, as large as it can be said to be, all of whose blocks have the rolling hash of zeros, but not
// their other hash.
func crafted(name string, size uint64) []byte {
	var b bytes.Buffer
	block := blockSize(size)
	for _, n := range []uint64{1, size, uint64(len(name)) + 1} {
		b.Write(binary.AppendUvarint(nil, n))
	}
	b.WriteString(name)
	for _, n := range []uint64{0, size, uint64(block)} {
		b.Write(binary.AppendUvarint(nil, n))
	}
	weak := weakHash(make([]byte, block))
	for range (size + uint64(block) - 1) / uint64(block) {
		b.Write(binary.BigEndian.AppendUint32(nil, weak))
		b.Write(make([]byte, strongSize))
	}
	return append(b.Bytes(), 0)
}

// A signature that was made to look like the new contents everywhere costs no more work than an honest one.
func TestACraftedSignatureCostsNoMoreThanAnHonestOne(t *testing.T) {
	zeros := strings.Repeat("\x00", 256<<10)
	tree := openTest(t, makeTree(t, map[string]string{"a": zeros, "b-1": zeros, "b-2": zeros + "x", "c": string(noise(1, 100_000))}))
	for name, text := range map[string][]byte{
		"the same path":     crafted("a", 64<<20),
		"like several":      crafted("b-0", 64<<20),
		"of the same size":  crafted("a", 256<<10),
		"larger by far":     crafted("a", 1<<34),
		"with short blocks": crafted("a", smallestSigned),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ReadSignature(t.Context(), bufio.NewReader(bytes.NewReader(text)), tree.Path(), plenty())
			if err != nil {
				t.Fatal(err)
			}
			c := &Coder{}
			e := NewSignedEncoder(tree, []*Signature{s})
			for _, j := range e.Jobs() {
				if _, _, err := c.Encode(t.Context(), j); err != nil {
					t.Fatal(err)
				}
			}
			if c.match.hashed > workPerByte*tree.Size() {
				t.Errorf("%d bytes were hashed for a path of %d", c.match.hashed, tree.Size())
			}
		})
	}
}

// What an honest signature needs of the work is far from the bound, so that the bound costs no differences.
func TestTheBoundOnWorkIsNotMetByHonestSignatures(t *testing.T) {
	text := string(noise(1, 500_000))
	for name, next := range map[string]string{
		"equal": text, "shifted": "x" + text, "blocks mixed up": mixed(text, 1024), "something else": string(noise(2, 500_000)),
		"zeros": strings.Repeat("\x00", 500_000),
	} {
		old, tree := openTest(t, makeTree(t, map[string]string{"a": text})), openTest(t, makeTree(t, map[string]string{"a": next}))
		s, err := ReadSignature(t.Context(), bufio.NewReader(bytes.NewReader(signatureOf(t, old))), old.Path(), plenty())
		if err != nil {
			t.Fatal(err)
		}
		c := &Coder{}
		for _, j := range NewSignedEncoder(tree, []*Signature{s}).Jobs() {
			if _, _, err := c.Encode(t.Context(), j); err != nil {
				t.Fatal(err)
			}
		}
		if c.match.hashed > workPerByte/2*tree.Size() {
			t.Errorf("%s: %d bytes were hashed for a path of %d", name, c.match.hashed, tree.Size())
		}
	}
}

// mixed is text with its blocks in another order, and something between them.
func mixed(text string, block int) string {
	var b strings.Builder
	for at := len(text) - len(text)%block - block; at >= 0; at -= block {
		b.WriteString(text[at:at+block] + "~")
	}
	return b.String()
}

// However small the files are said to be, and however well that is compressed, what is kept in memory has an end.
func TestSignaturesTakeNoMoreMemoryThanTheyMay(t *testing.T) {
	begin := binary.AppendUvarint([]byte{1}, 1<<40)
	file := func(name string, size uint64) []byte {
		text := append(binary.AppendUvarint(nil, uint64(len(name))+1), name...)
		for _, n := range []uint64{0, size, uint64(blockSize(size))} {
			text = binary.AppendUvarint(text, n)
		}
		return text
	}
	sum := make([]byte, weakSize+strongSize)
	var files []byte
	for i := range 5000 {
		files = append(append(files, file(strconv.FormatInt(int64(i), 36), smallestSigned)...), sum...)
	}
	blocks := append(file("a", 200_000*largestBlocks), bytes.Repeat(sum, 200_000)...)
	one := append(append(slices.Clone(begin), 0), begin...)
	for name, text := range map[string]io.Reader{
		"files without end":  io.MultiReader(bytes.NewReader(begin), repeated(files)),
		"blocks without end": io.MultiReader(bytes.NewReader(append(slices.Clone(begin), file("a", 1<<37)...)), repeated(sum)),
		"many files":         repeated(append(append(slices.Clone(begin), files...), 0)),
		"many blocks":        repeated(append(append(slices.Clone(begin), blocks...), 0)),
		"many of one file":   repeated(append(append(slices.Clone(begin), append(file("a", smallestSigned), sum...)...), 0)),
		"many of none":       repeated(append(one, 0)),
	} {
		t.Run(name, func(t *testing.T) {
			const most = 8 << 20
			room, r := &Room{Bytes: most}, bufio.NewReader(text)
			var kept []*Signature
			before := heap()
			for {
				s, err := ReadSignature(t.Context(), r, "x", room)
				if errors.Is(err, ErrNoRoom) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				kept = append(kept, s)
			}
			if now := heap(); now > before+most+most/4 {
				t.Errorf("%d bytes live after %d were to be", now-before, most)
			}
			runtime.KeepAlive(kept)
		})
	}
}

// heap is how many bytes live.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// repeated reads p again and again.
func repeated(p []byte) io.Reader { return &repeater{p: p} }

type repeater struct {
	p  []byte
	at int
}

func (r *repeater) Read(p []byte) (int, error) {
	n := copy(p, r.p[r.at:])
	r.at = (r.at + n) % len(r.p)
	return n, nil
}

// Who reads or uses a signature does not outlive its context.
func TestASignatureIsLeftWhenTheContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	text := crafted("a", 64<<20)
	if _, err := ReadSignature(ctx, bufio.NewReader(bytes.NewReader(text)), "x", plenty()); !errors.Is(err, context.Canceled) {
		t.Errorf("reading: %v", err)
	}
	s, err := ReadSignature(t.Context(), bufio.NewReader(bytes.NewReader(text)), "x", plenty())
	if err != nil {
		t.Fatal(err)
	}
	m := matcher{out: &writer{}}
	m.signed(ctx, make([]byte, 1<<20), 0, &s.files[0], 0, 1<<20)
	if m.hashed != 0 {
		t.Errorf("%d bytes were hashed", m.hashed)
	}
}

func FuzzReadSignature(f *testing.F) {
	path := filepath.Join(f.TempDir(), "x")
	if err := os.WriteFile(path, noise(1, 3000), 0o644); err != nil {
		f.Fatal(err)
	}
	tree, err := openTree(f.Context(), path)
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	if err := WriteSignature(f.Context(), w, tree); err != nil || w.Flush() != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ReadSignature(t.Context(), bufio.NewReader(bytes.NewReader(text)), tree.Path(), plenty())
		if err != nil || s == nil {
			return
		}
		// Whatever it says, what is made with it stays inside of the NAR that it speaks of.
		e := NewSignedEncoder(tree, []*Signature{s})
		for _, j := range e.Jobs() {
			if _, _, err := (&Coder{}).Encode(t.Context(), j); err != nil {
				t.Error(err)
			}
		}
	})
}
