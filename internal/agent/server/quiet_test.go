package server

import (
	"fmt"
	"io"
	"os"
	"testing"

	"ferry/internal/run"
)

// noisy plays an agent that speaks and then complains.
func noisy() int {
	fmt.Fprint(os.Stderr, "before, ")
	if err := leaveTerminal(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprint(os.Stderr, "among the frames, ")
	fmt.Print("frames")
	return 0
}

func TestOnATerminalNothingGetsAmongTheFrames(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, terminal, err := new(run.Runner).OnTerminal(t.Context(), run.Command{Argv: []string{self, "noisy"}})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	out, err := io.ReadAll(terminal)
	if err != nil || string(out) != "before, frames" {
		t.Errorf("read %q, %v", out, err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	// On pipes standard error is a way of its own.
	var stderr run.Tail
	stderr.Limit = 1 << 10
	if err := new(run.Runner).Run(t.Context(), run.Command{Argv: []string{self, "noisy"}, Err: &stderr}); err != nil {
		t.Error(err)
	}
	if got := stderr.String(); got != "before, among the frames, " {
		t.Errorf("on pipes it says %q", got)
	}
}
