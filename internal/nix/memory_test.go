package nix

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// large is the size of what must not be held in memory, little what may be.
const large, little = 256 << 20, 2 << 20

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestSendPathHoldsNoNarInMemory(t *testing.T) {
	s := answering(t, 2<<8|7, nil)
	info := PathInfo{Path: StorePath("/nix/store/" + someHash + "-a"), NarHash: helloSum, NarSize: large}
	n := allocated(func() {
		if err := s.SendPath(info, io.LimitReader(zeros{}, large)); err != nil {
			t.Error(err)
		}
	})
	if n > little {
		t.Errorf("%d bytes allocated", n)
	}
}

func TestDumpPathHoldsNoFileInMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, large); err != nil {
		t.Fatal(err)
	}
	n := allocated(func() {
		if err := DumpPath(t.Context(), io.Discard, path); err != nil {
			t.Error(err)
		}
	})
	if n > little {
		t.Errorf("%d bytes allocated", n)
	}
}

func TestServeTakesNoMemoryForWhatHasNotArrived(t *testing.T) {
	a := StorePath("/nix/store/" + someHash + "-a")
	for what, answer := range map[string]func(wireWriter){
		"a list":              func(w wireWriter) { w.number(maxPaths) },
		"a string":            func(w wireWriter) { w.number(1); w.number(maxString) },
		"a list without end":  func(w wireWriter) { w.number(1 << 62) },
		"a string with a few": func(w wireWriter) { w.number(1); w.number(maxString); w.number(0) },
	} {
		s := answering(t, 2<<8|7, answer)
		n := allocated(func() {
			if closure, err := s.Closure([]StorePath{a}); err == nil {
				t.Errorf("%s: %v", what, closure)
			}
		})
		if n > 64<<10 {
			t.Errorf("%s: %d bytes allocated", what, n)
		}
	}
}
