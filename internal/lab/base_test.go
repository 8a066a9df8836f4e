package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestWhatIsMadeOnceIsMadeOnceByAll(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(path+".new-left-by-a-killed-run/x", 0o755); err != nil {
		t.Fatal(err)
	}
	var made atomic.Int32
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			err := makeOnce(t.Context(), path, func(fresh string) error {
				made.Add(1)
				if isDir(path) {
					t.Error("it has its name before it is complete")
				}
				time.Sleep(50 * time.Millisecond)
				return os.WriteFile(filepath.Join(fresh, "file"), nil, 0o644)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
	if _, err := os.Stat(filepath.Join(path, "file")); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(path + ".new-*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestWhatFailsToBeMadeIsNotThere(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root")
	broken := errors.New("broken")
	err := makeOnce(t.Context(), path, func(fresh string) error {
		return errors.Join(broken, os.WriteFile(filepath.Join(fresh, "file"), nil, 0o644))
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(path + "*[^k]"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestWaitingForAnotherRunEndsWithTheContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestAnUnknownSuiteIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := Base(t.Context(), "../etc"); err == nil {
		t.Error("no error")
	}
}
