package ui

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"ferry/internal/ship"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// TestThePasswordIsNeverShown types it as soon as the prompt is there, and looks what the terminal shows then and later.
func TestThePasswordIsNeverShown(t *testing.T) {
	person, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	defer tty.Close()
	echoes := func() bool {
		state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	p := New(io.Discard, nil, false, time.Now)
	for _, interrupted := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			password, err := p.AskPassword(ctx, tty, "password: ")
			if err == nil && string(password) != "open sesame" {
				err = errors.New("got " + string(password))
			}
			ended <- err
		}()
		prompt := make([]byte, len("password: "))
		if _, err := io.ReadFull(person, prompt); err != nil {
			t.Fatal(err)
		}
		if echoes() {
			t.Error("the prompt is there before the echo is off")
		}
		var want error
		if interrupted {
			cancel()
			want = context.Canceled
		} else if _, err := person.WriteString("open sesame\n"); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, want) {
			t.Errorf("ended with %v, want %v", err, want)
		}
		if !echoes() {
			t.Error("the terminal does not show again what is typed")
		}
		cancel()
		newline := make([]byte, 64)
		if n, err := person.Read(newline); err != nil || strings.TrimRight(string(newline[:n]), "\r\n") != "" {
			t.Errorf("the terminal shows %q, %v", newline[:n], err)
		}
	}
}

// TestTheRateStartsAnewWithABrokenShip goes on with fewer bytes than there were, after a lost connection.
func TestTheRateStartsAnewWithABrokenShip(t *testing.T) {
	var r rate
	now := time.Now()
	r.add(now, ship.Progress{Bytes: 100e6, Wire: 50e6, TotalBytes: 200e6})
	r.add(now.Add(time.Second), ship.Progress{Bytes: 110e6, Wire: 55e6, TotalBytes: 200e6})
	r.add(now.Add(2*time.Second), ship.Progress{Bytes: 0, Wire: 0, TotalBytes: 100e6})
	r.add(now.Add(3*time.Second), ship.Progress{Bytes: 10e6, Wire: 1e6, TotalBytes: 100e6})
	perSecond, left, ok := r.estimate(ship.Progress{Bytes: 10e6, Wire: 1e6, TotalBytes: 100e6})
	if !ok || perSecond != 1e6 || left != 9*time.Second {
		t.Errorf("%d bytes a second, %v left, %v", perSecond, left, ok)
	}
}

func TestAskPasswordEndsWithoutAPassword(t *testing.T) {
	p := New(io.Discard, nil, false, time.Now)
	if _, err := p.AskPassword(t.Context(), nil, "password: "); !errors.Is(err, ErrNoTerminal) {
		t.Errorf("without a terminal: %v", err)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := p.AskPassword(t.Context(), file, "password: "); err == nil {
		t.Error("a file was asked")
	}
	person, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	defer tty.Close()
	if _, err := person.WriteString("\x04"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.AskPassword(t.Context(), tty, "password: "); !errors.Is(err, io.EOF) {
		t.Errorf("after Ctrl-D: %v", err)
	}
}

// An answer that nobody waited for any more is not taken from who reads the terminal next.
func TestInterruptedQuestionLeavesWhatIsTypedLater(t *testing.T) {
	person, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	defer tty.Close()
	p := New(io.Discard, nil, false, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := p.AskPassword(ctx, tty, "password: "); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := person.WriteString("for the next\n"); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	if n, err := tty.Read(line); err != nil || string(line[:n]) != "for the next\n" {
		t.Errorf("%q, %v", line[:n], err)
	}
}
