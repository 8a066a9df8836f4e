package nix

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRestorePathMakesWhatWasDumped takes everything that a NAR can hold through both.
func TestRestorePathMakesWhatWasDumped(t *testing.T) {
	var nar, again bytes.Buffer
	if err := DumpPath(t.Context(), &nar, oddTree(t)); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(t.TempDir(), "made")
	t.Cleanup(func() {
		_ = filepath.Walk(made, func(p string, info os.FileInfo, err error) error {
			if err == nil && info.IsDir() {
				_ = os.Chmod(p, 0o755)
			}
			return nil
		})
	})
	if err := RestorePath(t.Context(), bytes.NewReader(nar.Bytes()), made); err != nil {
		t.Fatal(err)
	}
	if err := DumpPath(t.Context(), &again, made); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(nar.Bytes(), again.Bytes()) {
		t.Error("another NAR comes out of it")
	}
	err := filepath.Walk(made, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if mode := info.Mode(); mode&os.ModeSymlink == 0 && mode.Perm() != 0o444 && mode.Perm() != 0o555 || info.ModTime().Unix() != 1 {
			t.Errorf("%s: %v, %v", p, mode, info.ModTime())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := RestorePath(t.Context(), bytes.NewReader(nar.Bytes()), made); err == nil {
		t.Error("what is there is written over")
	}
}

// narOf encodes words as strings of a NAR.
func narOf(words ...string) []byte {
	var b bytes.Buffer
	out := newWireWriter(&b)
	for _, w := range words {
		out.text(w)
	}
	_ = out.w.Flush()
	return b.Bytes()
}

// TestRestorePathRefusesWhatIsNoNar gives it names that lead away, and NARs that are cut off.
func TestRestorePathRefusesWhatIsNoNar(t *testing.T) {
	entry := func(name string) []string {
		return []string{"entry", "(", "name", name, "node", "(", "type", "regular", "contents", "x", ")", ")"}
	}
	folder := func(entries ...string) []byte {
		return narOf(append(append([]string{"nix-archive-1", "(", "type", "directory"}, entries...), ")")...)
	}
	whole := narOf("nix-archive-1", "(", "type", "regular", "executable", "", "contents", strings.Repeat("x", 100), ")")
	for name, c := range map[string]struct {
		nar  []byte
		says string
	}{
		"a name that leads up":  {folder(entry("..")...), "cannot be the name"},
		"a name with a slash":   {folder(entry("a/../../b")...), "cannot be the name"},
		"no name":               {folder(entry("")...), "cannot be the name"},
		"the same name twice":   {folder(append(entry("a"), entry("a")...)...), "cannot be the name"},
		"another order":         {folder(append(entry("b"), entry("a")...)...), "cannot be the name"},
		"another type":          {narOf("nix-archive-1", "(", "type", "device", ")"), "no type of a file"},
		"no NAR":                {narOf("nix-archive-2"), "was expected"},
		"a size that is no one": {append(narOf("nix-archive-1", "(", "type", "regular", "contents"), 255, 255, 255, 255, 255, 255, 255, 127), "cannot be the size"},
		"cut in a file":         {whole[:len(whole)-60], "unexpected EOF"},
		"cut at its end":        {whole[:len(whole)-16], "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			err := RestorePath(t.Context(), bytes.NewReader(c.nar), filepath.Join(t.TempDir(), "x"))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}
