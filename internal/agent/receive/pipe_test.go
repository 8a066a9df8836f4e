package receive

import (
	"context"
	"os"
	"testing"

	"ferry/internal/run"

	"golang.org/x/sys/unix"
)

// TestPipesAreWide looks at the agent's standard input, and at that of a program that it runs.
func TestPipesAreWide(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p, in, _, err := new(run.Runner).Pipe(t.Context(), run.Command{Argv: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, stream := range map[string]any{"the agent's": r, "nix-store's": in} {
		Widen(stream)
		file, ok := stream.(*os.File)
		if !ok {
			t.Fatalf("%s standard input is a %T", name, stream)
		}
		if size, err := unix.FcntlInt(file.Fd(), unix.F_GETPIPE_SZ, 0); err != nil || size != pipeSize {
			t.Errorf("%s pipe holds %d bytes, %v", name, size, err)
		}
	}
	// Anything else is left alone.
	Widen(context.Background())
	Widen(os.Stderr)
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}
