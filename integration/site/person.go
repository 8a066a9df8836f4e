package site

import (
	"context"
	"os/exec"
	"slices"
	"testing"
	"time"

	"ferry/internal/lab"
)

// Person is somebody at a terminal who runs ferry.
type Person struct {
	T    *testing.T
	term *lab.Terminal
}

// Person starts ferry on a terminal.
func (s *Site) Person(args ...string) *Person {
	s.T.Helper()
	// A test sees the questions that it is about: whether to deploy what is planned is answered before. --reboot makes another
	// question of it.
	if slices.Contains(args, "deploy") && !slices.Contains(args, "--reboot") {
		args = append(slices.Clone(args), "--yes")
	}
	return s.AtTerminal(s.Command(args...))
}

// AtTerminal starts any command on a terminal.
func (s *Site) AtTerminal(cmd *exec.Cmd) *Person {
	s.T.Helper()
	term, err := lab.OpenTerminal(cmd)
	if err != nil {
		s.T.Fatal(err)
	}
	return &Person{s.T, term}
}

// AtScreen starts any command on a terminal that shows all on a screen.
func (s *Site) AtScreen(cmd *exec.Cmd, screen *lab.Screen) *Person {
	s.T.Helper()
	term, err := lab.OpenScreen(cmd, screen)
	if err != nil {
		s.T.Fatal(err)
	}
	return &Person{s.T, term}
}

// Resizes makes the terminal's window another size.
func (p *Person) Resizes(columns, rows int) {
	p.T.Helper()
	if err := p.term.Resize(columns, rows); err != nil {
		p.T.Fatal(err)
	}
}

// Sees waits until the terminal shows text.
func (p *Person) Sees(text string) {
	p.T.Helper()
	ctx, cancel := context.WithTimeout(p.T.Context(), 2*time.Minute)
	defer cancel()
	if err := p.term.Expect(ctx, text); err != nil {
		p.T.Fatal(err)
	}
}

// Types types text.
func (p *Person) Types(text string) {
	p.T.Helper()
	if err := p.term.Type(text); err != nil {
		p.T.Fatal(err)
	}
}

// Ends waits for ferry's end; what the terminal has shown is the outcome's errors.
func (p *Person) Ends() Outcome {
	p.T.Helper()
	// Whoever asks something that the test does not expect would wait for ever.
	hung := time.AfterFunc(2*time.Minute, func() { _ = p.term.Type("\x03\x03") })
	defer hung.Stop()
	status, err := p.term.Wait()
	if err != nil {
		p.T.Fatal(err)
	}
	p.T.Logf("on a terminal: status %d\n%s", status, p.term.Shown())
	return Outcome{Status: status, Errors: p.term.Shown()}
}

// Wants is ends for a command that must end with this exit status, and gives what the terminal has shown.
func (p *Person) Wants(status int) string {
	p.T.Helper()
	o := p.Ends()
	if o.Status != status {
		p.T.Errorf("status %d, want %d", o.Status, status)
	}
	return o.Errors
}
