package deploy_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"ferry/internal/lab"
)

// person is somebody at a terminal who runs ferry.
type person struct {
	t    *testing.T
	term *lab.Terminal
}

// person starts ferry on a terminal.
func (s *site) person(args ...string) *person {
	s.t.Helper()
	return s.atTerminal(s.command(args...))
}

// atTerminal starts any command on a terminal.
func (s *site) atTerminal(cmd *exec.Cmd) *person {
	s.t.Helper()
	term, err := lab.OpenTerminal(cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	return &person{s.t, term}
}

// sees waits until the terminal shows text.
func (p *person) sees(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	if err := p.term.Expect(ctx, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) types(text string) {
	p.t.Helper()
	if err := p.term.Type(text); err != nil {
		p.t.Fatal(err)
	}
}

// ends waits for ferry's end; what the terminal has shown is the outcome's errors.
func (p *person) ends() outcome {
	p.t.Helper()
	// Whoever asks something that the test does not expect would wait for ever.
	hung := time.AfterFunc(2*time.Minute, func() { _ = p.term.Type("\x03\x03") })
	defer hung.Stop()
	status, err := p.term.Wait()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("on a terminal: status %d\n%s", status, p.term.Shown())
	return outcome{status: status, errors: p.term.Shown()}
}

// wants is ends for a command that must end with this exit status, and gives what the terminal has shown.
func (p *person) wants(status int) string {
	p.t.Helper()
	o := p.ends()
	if o.status != status {
		p.t.Errorf("status %d, want %d", o.status, status)
	}
	return o.errors
}
