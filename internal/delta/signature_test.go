package delta

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
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
	s, err := ReadSignature(bufio.NewReader(bytes.NewReader(signatureOf(t, base))), base.Path())
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
	if s, err := ReadSignature(bufio.NewReader(&b), "x"); s != nil || err != nil {
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
		s, err := ReadSignature(bufio.NewReader(bytes.NewReader(text)), tree.Path())
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
