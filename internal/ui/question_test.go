package ui

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/creack/pty"
)

// TestOnlyAYesIsAYes answers a question on a terminal in many ways.
func TestOnlyAYesIsAYes(t *testing.T) {
	person, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	defer tty.Close()
	p := New(io.Discard, nil, false, time.Now)
	const shown = "may lock out:?[2J\r\n  go on? [y/N] "
	for _, c := range []struct {
		typed string
		want  bool
	}{{"y\n", true}, {"Yes\n", true}, {"\n", false}, {"n\n", false}, {"yy\n", false}, {"\x04", false}} {
		// What stands in the terminal already is no answer.
		if _, err := person.WriteString("yes\n"); err != nil {
			t.Fatal(err)
		}
		read(t, person, "yes\r\n")
		type result struct {
			yes bool
			err error
		}
		ended := make(chan result, 1)
		go func() {
			yes, err := p.AskYesNo(t.Context(), tty, "may lock out:\u009b[2J\n  go on?")
			ended <- result{yes, err}
		}()
		read(t, person, shown)
		if _, err := person.WriteString(c.typed); err != nil {
			t.Fatal(err)
		}
		if got := <-ended; got.yes != c.want || got.err != nil {
			t.Errorf("%q: %v, %v", c.typed, got.yes, got.err)
		}
		if c.typed == "\x04" {
			read(t, person, "\r\n")
			continue
		}
		read(t, person, c.typed[:len(c.typed)-1]+"\r\n")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if yes, err := p.AskYesNo(ctx, tty, "go on?"); yes || !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v, %v", yes, err)
	}
	if yes, err := p.AskYesNo(t.Context(), nil, "go on?"); yes || !errors.Is(err, ErrNoTerminal) {
		t.Errorf("without a terminal: %v, %v", yes, err)
	}
}

// read reads what the terminal shows.
func read(t *testing.T, person io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(person, got); err != nil || string(got) != want {
		t.Fatalf("the terminal shows %q, %v, want %q", got, err, want)
	}
}
