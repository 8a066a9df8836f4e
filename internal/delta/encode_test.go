package delta

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// encode encodes one path against others to the end.
func encode(t *testing.T, next string, find bool, bases ...string) (chunks []byte, stats Stats, used []*Tree) {
	t.Helper()
	tree := openTest(t, next)
	var old []*Tree
	for _, b := range bases {
		old = append(old, openTest(t, b))
	}
	e := NewEncoder(tree, old)
	if find {
		e = NewEncoder(tree, nil)
		e.Find(NewFinder(old))
	}
	c := &Coder{}
	end := uint64(0)
	for _, j := range e.Jobs() {
		if j.begin != end {
			t.Fatalf("a job begins at %d, the last one ended at %d", j.begin, end)
		}
		end = j.end
		out, s, err := c.Encode(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		chunks, stats = append(chunks, out...), stats.Add(s)
	}
	if end != tree.Size() {
		t.Fatalf("the jobs end at %d of %d", end, tree.Size())
	}
	return append(chunks, End()...), stats, e.bases
}

func decode(chunks []byte, size uint64, bases []*Tree) ([]byte, error) {
	var readers []*Reader
	for _, b := range bases {
		r := b.NewReader()
		defer r.Close()
		readers = append(readers, r)
	}
	var out bytes.Buffer
	in := bufio.NewReader(bytes.NewReader(chunks))
	err := Decode(in, &out, size, readers)
	if err == nil {
		if rest, _ := io.ReadAll(in); len(rest) > 0 {
			err = fmt.Errorf("%d bytes are left over", len(rest))
		}
	}
	return out.Bytes(), err
}

// checkExact encodes, decodes and compares, and gives what was added.
func checkExact(t *testing.T, next string, find bool, bases ...string) Stats {
	t.Helper()
	chunks, stats, used := encode(t, next, find, bases...)
	want := narOf(t, next)
	got, err := decode(chunks, uint64(len(want)), used)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("another NAR comes out")
	}
	if stats.Added+stats.Copied != uint64(len(want)) {
		t.Fatalf("%+v of %d bytes", stats, len(want))
	}
	return stats
}

// program is like one: it has the hashes of others in it.
func program(seed uint64, size int, hash string) string {
	b := noise(seed, size)
	for i := 300; i+len(hash) < len(b); i += 700 {
		copy(b[i:], hash)
	}
	return string(b)
}

const oldHash, newHash = "00000000000000000000000000000000", "11111111111111111111111111111111"

// library is the files of a package that refers to another by its hash.
func library(hash, version string) map[string]string {
	return map[string]string{
		"bin/tool":                             "+x" + program(1, 90_000, hash),
		"lib/libx.so." + version:               program(2, 200_000, hash),
		"lib/libx.so":                          "-> libx.so." + version,
		"lib/python" + version + "/a.py":       program(3, 5_000, hash),
		"share/doc/x-" + version + "/README":   program(4, 20_000, "nothing"),
		"share/empty":                          "",
		"share/man/":                           "",
		"nix-support/propagated-build-inputs":  "/nix/store/" + hash + "-dep",
		"share/big":                            program(5, 3<<20, hash),
		"share/locale/de/LC_MESSAGES/x.mo":     program(6, 700, "nothing"),
		"share/locale/fr/LC_MESSAGES/x.mo":     program(7, 900, "nothing"),
		"share/utf-16":                         program(8, 4_000, spread(hash)),
		"share/a name with spaces and ümlauts": "x",
	}
}

// spread is a text in UTF-16.
func spread(s string) string { return strings.Join(strings.Split(s, ""), "\x00") + "\x00" }

func TestWhatChanged(t *testing.T) {
	old := makeTree(t, library(oldHash, "1.2.3"))
	size := uint64(len(narOf(t, old)))
	change := func(f func(files map[string]string)) map[string]string {
		files := library(oldHash, "1.2.3")
		f(files)
		return files
	}
	for name, c := range map[string]struct {
		files map[string]string
		added uint64 // at most
		find  bool   // the old tree is only for the finder
	}{
		"nothing":              {library(oldHash, "1.2.3"), 0, false},
		"the hashes":           {library(newHash, "1.2.3"), (size / 700) * 36, false},
		"the version":          {library(oldHash, "1.3.0"), 3000, false},
		"both":                 {library(newHash, "1.30"), (size/700)*36 + 3000, false},
		"a file more":          {change(func(f map[string]string) { f["share/new"] = program(9, 1000, "") }), 1200, false},
		"a file less":          {change(func(f map[string]string) { delete(f, "share/big") }), 200, false},
		"a folder for a file":  {change(func(f map[string]string) { delete(f, "share/empty"); f["share/empty/x"] = "" }), 500, false},
		"a file for a folder":  {change(func(f map[string]string) { delete(f, "share/man/"); f["share/man"] = "text" }), 400, false},
		"a link for a file":    {change(func(f map[string]string) { f["bin/tool"] = "-> x" }), 400, false},
		"an executable bit":    {change(func(f map[string]string) { f["bin/tool"] = f["bin/tool"][2:] }), 400, false},
		"renamed, found":       {map[string]string{"opt/renamed/thing": program(5, 3<<20, oldHash)}, 1000, true},
		"moved, found":         {map[string]string{"opt/moved/libx.so.9": program(2, 200_000, newHash)}, 200_000/700*36 + 1000, true},
		"merged, found":        {map[string]string{"x/tool": program(1, 90_000, oldHash), "y/big": program(5, 3<<20, oldHash), "z/new": "new"}, 1500, true},
		"nothing of it, found": {map[string]string{"a": program(77, 100_000, "")}, 110_000, true},
	} {
		t.Run(name, func(t *testing.T) {
			stats := checkExact(t, makeTree(t, c.files), c.find, old)
			if stats.Added > c.added {
				t.Errorf("%+v, want at most %d bytes added", stats, c.added)
			}
		})
	}
}

func TestSeveralBases(t *testing.T) {
	a := makeTree(t, map[string]string{"bin/a": program(1, 50_000, oldHash), "lib/x": program(2, 50_000, oldHash)})
	b := makeTree(t, map[string]string{"bin/b": program(3, 50_000, oldHash), "lib/x": program(4, 50_000, oldHash)})
	next := makeTree(t, map[string]string{"bin/a": program(1, 50_000, newHash), "bin/b": program(3, 50_000, newHash), "lib/x": program(2, 50_000, oldHash)})
	if stats := checkExact(t, next, false, a, b); stats.Added > 100_000/700*36+1000 {
		t.Errorf("%+v", stats)
	}
}

// TestLargeFilesAreCutIntoPieces: one file of many pieces, with something put in at its beginning and taken out later.
func TestLargeFilesAreCutIntoPieces(t *testing.T) {
	text := noise(1, 3*pieceSize+12345)
	moved := slices.Concat([]byte("before"), text[:pieceSize-5], noise(2, 1000), text[pieceSize-5:2*pieceSize], text[2*pieceSize+777:])
	old := makeTree(t, map[string]string{"large": string(text), "z": "small"})
	next := makeTree(t, map[string]string{"a": "small", "large": string(moved), "z": "small"})
	if stats := checkExact(t, next, false, old); stats.Added > 3000 {
		t.Errorf("%+v", stats)
	}
	// Alone in the path.
	old, next = makeTree(t, map[string]string{"": string(text)}), makeTree(t, map[string]string{"": string(moved)})
	if stats := checkExact(t, next, false, old); stats.Added > 3000 {
		t.Errorf("%+v", stats)
	}
}

// TestTheEndOfANarIsMadeAlone: from any offset on, the jobs make what is behind it, and little before it.
func TestTheEndOfANarIsMadeAlone(t *testing.T) {
	text := noise(1, 2*pieceSize+12345)
	moved := slices.Concat(text[:pieceSize-5], noise(2, 1000), text[pieceSize-5:])
	files := library(newHash, "2")
	files["large"] = string(moved)
	before := library(oldHash, "1")
	before["large"] = string(text)
	next, old := openTest(t, makeTree(t, files)), openTest(t, makeTree(t, before))
	want := narOf(t, string(next.path))
	e := NewEncoder(next, []*Tree{old})
	random := rand.New(rand.NewPCG(7, 0))
	offsets := []uint64{0, 1, jobSize, next.Size() - 1}
	for range 8 {
		offsets = append(offsets, random.Uint64N(next.Size()))
	}
	for _, offset := range offsets {
		jobs := e.JobsFrom(offset)
		begin := jobs[0].Begin()
		if begin > offset || offset-begin > 1000 {
			t.Fatalf("from %d on, it begins at %d", offset, begin)
		}
		var chunks []byte
		for _, j := range jobs {
			out, _, err := new(Coder).Encode(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			chunks = append(chunks, out...)
		}
		got, err := decode(append(chunks, End()...), next.Size()-begin, e.bases)
		if err != nil || !bytes.Equal(got, want[begin:]) {
			t.Errorf("from %d on: %d bytes instead of %d, %v", offset, len(got), len(want[begin:]), err)
		}
	}
	if jobs := e.JobsFrom(next.Size()); len(jobs) > 0 {
		t.Errorf("behind the end: %d jobs", len(jobs))
	}
}

func TestAllShapesFromAllShapes(t *testing.T) {
	var paths []string
	all := shapes()
	delete(all, "names in odd order")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		paths = append(paths, makeTree(t, all[name]))
	}
	for _, next := range paths {
		for _, old := range paths {
			checkExact(t, next, false, old)
		}
		checkExact(t, next, true, paths...)
		checkExact(t, next, false)
	}
}

// TestAnyTreeFromAnyOther is the property that counts, on random trees.
func TestAnyTreeFromAnyOther(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 11))
		old := randomFiles(r)
		next := mutate(r, maps.Clone(old))
		a, b := makeTree(t, old), makeTree(t, next)
		t.Logf("seed %d", seed)
		checkExact(t, b, r.IntN(2) == 0, a)
	}
}

func randomFiles(r *rand.Rand) map[string]string {
	files := map[string]string{"top": "x"}
	for range r.IntN(30) {
		name := fmt.Sprintf("d%d/%c-%d", r.IntN(4), 'a'+rune(r.IntN(3)), r.IntN(40))
		files[name] = string(noise(r.Uint64(), r.IntN(9000)))
	}
	return files
}

func mutate(r *rand.Rand, files map[string]string) map[string]string {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := files[name]
		at := r.IntN(len(text) + 1)
		switch r.IntN(9) {
		case 0:
			delete(files, name)
		case 1:
			files[name] = text[:at] + oldHash + text[at:]
		case 2:
			files[name] = text[:at]
		case 3:
			delete(files, name)
			files["moved/"+filepath.Base(name)] = text
		case 4:
			files[name] = "-> " + "target"
		case 5:
			files[name] = "+x" + text
		case 6:
			files[name+"-split"] = text[at:]
			files[name] = text[:at]
		}
	}
	files["new"] = string(noise(r.Uint64(), r.IntN(3000)))
	return files
}

// TestABaseThatHasChanged: what is encoded was made from other old contents than there are. It may not go unnoticed where sizes differ, and
// is Nix's to notice where they do not; in no case more than the size comes out.
func TestABaseThatHasChanged(t *testing.T) {
	files := library(oldHash, "1.2.3")
	old := makeTree(t, files)
	chunks, _, used := encode(t, makeTree(t, library(newHash, "1.2.3")), false, old)
	if err := os.WriteFile(filepath.Join(old, "lib/libx.so.1.2.3"), []byte("shorter"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := decode(chunks, 1<<40, used)
	var bad *ReadError
	if !errors.As(err, &bad) || bad.Path != used[0].Path() {
		t.Errorf("got %v", err)
	}
	// Another layout from the beginning.
	_, err = decode(chunks, 1<<40, []*Tree{openTest(t, makeTree(t, map[string]string{"a": "b"}))})
	if !errors.As(err, &bad) {
		t.Errorf("of another tree: %v", err)
	}
}

func TestEncodeEnds(t *testing.T) {
	path := makeTree(t, map[string]string{"a": "x"})
	e := NewEncoder(openTest(t, path), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := (&Coder{}).Encode(ctx, e.Jobs()[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(filepath.Join(path, "a")); err != nil {
		t.Fatal(err)
	}
	var bad *ReadError
	if _, _, err := (&Coder{}).Encode(t.Context(), e.Jobs()[0]); !errors.As(err, &bad) {
		t.Errorf("of a path that is gone: %v", err)
	}
}

func TestWindowIsInTheOldFile(t *testing.T) {
	for seed := range uint64(10_000) {
		r := rand.New(rand.NewPCG(seed, 5))
		size, old := uint64(r.IntN(200<<20)), uint64(r.IntN(200<<20))
		if size == 0 {
			continue
		}
		begin := uint64(r.Int64N(int64(size)))
		length := min(size-begin, pieceSize)
		from, to := window(begin, length, size, old)
		if from <= to && (to > old || to-from > pieceSize+6*windowMargin) {
			t.Fatalf("seed %d: %d to %d of %d", seed, from, to, old)
		}
	}
}

func FuzzDecode(f *testing.F) {
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), noise(1, 5000), 0o644); err != nil {
		f.Fatal(err)
	}
	tree, err := openTree(context.Background(), dir)
	if err != nil {
		f.Fatal(err)
	}
	w := &writer{}
	w.copy(0, 100, 1000)
	w.add([]byte("new"))
	w.copy(0, 1103, 500)
	w.copy(0, 0, 17)
	f.Add(append(w.end(), 0), uint16(1520))
	f.Add([]byte{0}, uint16(0))
	f.Fuzz(func(t *testing.T, chunks []byte, size uint16) {
		got, err := decode(chunks, uint64(size), []*Tree{tree})
		if len(got) > int(size) {
			t.Errorf("%d bytes come out of %d", len(got), size)
		}
		if err == nil && len(got) != int(size) {
			t.Errorf("%d bytes instead of %d, and no error", len(got), size)
		}
	})
}
