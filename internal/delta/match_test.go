package delta

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// apply does operations on one old file as Decode does, without a tree.
func apply(t *testing.T, chunks, old []byte, size int) []byte {
	t.Helper()
	tree := treeOf(t, map[string]string{"": string(old)})
	reader := tree.NewReader()
	defer reader.Close()
	var out bytes.Buffer
	in := bufio.NewReader(bytes.NewReader(append(bytes.Clone(chunks), End()...)))
	if err := Decode(in, &out, uint64(size), []*Reader{reader}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// contentAt is where the contents of a tree of one file begin.
func contentAt(t *testing.T) uint64 {
	t.Helper()
	return treeOf(t, map[string]string{"": "x"}).entries[0].content
}

func TestDiffFindsWhatIsThere(t *testing.T) {
	old := noise(1, 300_000)
	at := contentAt(t)
	insert := func(where int, what []byte) []byte {
		return append(append(bytes.Clone(old[:where]), what...), old[where:]...)
	}
	hashes := bytes.Clone(old)
	for i := 100; i+32 < len(hashes); i += 500 {
		copy(hashes[i:], noise(uint64(i), 32))
	}
	far := append(bytes.Clone(old[200_000:]), old[:200_000]...)
	for name, c := range map[string]struct {
		next  []byte
		added uint64 // at most
		ops   int    // at most
	}{
		"equal":                      {old, 0, 1},
		"a byte changed":             {append(append(bytes.Clone(old[:1000]), old[1000]^1), old[1001:]...), 1, 3},
		"a hash every 500 bytes":     {hashes, 600 * 32, 1201},
		"bytes inserted":             {insert(777, noise(2, 100)), 100, 3},
		"bytes removed":              {append(bytes.Clone(old[:5000]), old[5333:]...), 32, 3},
		"halves exchanged":           {far, 0, 2},
		"at the end":                 {append(bytes.Clone(old), "more"...), 4, 2},
		"the last byte changed":      {append(bytes.Clone(old[:len(old)-1]), old[len(old)-1]^1), 1, 2},
		"four before the last byte":  {append(append(bytes.Clone(old[:len(old)-4]), old[len(old)-4]^1), old[len(old)-3:]...), 1, 3},
		"shorter":                    {old[:1234], 0, 1},
		"empty":                      {nil, 0, 0},
		"nothing in common":          {noise(3, 100_000), 100_000, 1},
		"shorter than a block":       {[]byte("abc"), 3, 1},
		"the same again":             {append(bytes.Clone(old), old...), 0, 2},
		"a hash, and bytes inserted": {append(append(bytes.Clone(hashes[:5000]), noise(9, 50)...), hashes[5000:]...), 600*32 + 50 + 40, 1210},
	} {
		t.Run(name, func(t *testing.T) {
			w := &writer{}
			(&matcher{out: w}).diff(c.next, old, 0, at)
			chunks := w.end()
			if got := apply(t, chunks, old, len(c.next)); !bytes.Equal(got, c.next) {
				t.Fatal("it is not what it was")
			}
			if w.stats.Added > c.added || w.stats.Ops > c.ops {
				t.Errorf("%+v, want at most %d bytes added in %d operations", w.stats, c.added, c.ops)
			}
		})
	}
}

// TestDiffOfAnythingIsExact: whatever is done to old contents, what the operations make is the new ones.
func TestDiffOfAnythingIsExact(t *testing.T) {
	at := contentAt(t)
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		// Few letters make repetitions, and matches by chance.
		letters := 1 + r.IntN(256)
		old := make([]byte, r.IntN(5000))
		for i := range old {
			old[i] = byte(r.IntN(letters))
		}
		next := bytes.Clone(old)
		for range r.IntN(30) {
			a, b := r.IntN(len(next)+1), r.IntN(len(next)+1)
			a, b = min(a, b), max(a, b)
			switch r.IntN(4) {
			case 0:
				next = append(next[:a], next[b:]...)
			case 1:
				next = append(bytes.Clone(next[:a]), append(noise(seed, r.IntN(60)), next[a:]...)...)
			case 2:
				next = append(bytes.Clone(next), next[a:b]...)
			case 3:
				if a < len(next) {
					next[a] ^= byte(r.IntN(256))
				}
			}
			next = next[:min(len(next), 20_000)]
		}
		w := &writer{}
		(&matcher{out: w}).diff(next, old, 0, at)
		if got := apply(t, w.end(), old, len(next)); !bytes.Equal(got, next) {
			t.Fatalf("seed %d: it is not what it was", seed)
		}
		if w.stats.Added+w.stats.Copied != uint64(len(next)) {
			t.Fatalf("seed %d: %+v of %d bytes", seed, w.stats, len(next))
		}
	}
}

func TestChunksAreBounded(t *testing.T) {
	old := noise(1, 8<<20)
	next := bytes.Clone(old)
	for i := 0; i < len(next); i += 40 {
		next[i] ^= 1
	}
	next = append(next, noise(4, 3<<20)...)
	w := &writer{}
	(&matcher{out: w}).diff(next, old, 0, contentAt(t))
	chunks := w.end()
	if got := apply(t, chunks, old, len(next)); !bytes.Equal(got, next) {
		t.Fatal("it is not what it was")
	}
}

func BenchmarkDiff(b *testing.B) {
	old := noise(1, 16<<20)
	for _, every := range []int{0, 4096, 256} {
		next := bytes.Clone(old)
		for i := 0; every > 0 && i+32 < len(next); i += every {
			copy(next[i:], noise(uint64(i), 32))
		}
		b.Run(fmt.Sprint("a hash every ", every), func(b *testing.B) {
			b.SetBytes(int64(len(next)))
			for b.Loop() {
				(&matcher{out: &writer{}}).diff(next, old, 0, 0)
			}
		})
	}
	b.Run("nothing in common", func(b *testing.B) {
		next := noise(5, 16<<20)
		b.SetBytes(int64(len(next)))
		for b.Loop() {
			(&matcher{out: &writer{}}).diff(next, old, 0, 0)
		}
	})
}
