package deploy_test

import (
	"context"
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
	term, err := lab.OpenTerminal(s.command(args...))
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
	status, err := p.term.Wait()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("ferry on a terminal: status %d\n%s", status, p.term.Shown())
	return outcome{status: status, errors: p.term.Shown()}
}
