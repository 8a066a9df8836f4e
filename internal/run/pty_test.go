package run

import (
	"bytes"
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"
)

func TestOnTerminalGivesAllThreeStreamsAndATerminalToAskOn(t *testing.T) {
	p, terminal, err := new(Runner).OnTerminal(t.Context(), Command{Argv: []string{"sh", "-c",
		`stty raw -echo; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && printf 'name? ' >/dev/tty; read -r name; printf 'hello %s' "$name" >&2; exit 3`}})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	question := make([]byte, len("name? "))
	if _, err := io.ReadFull(terminal, question); err != nil || string(question) != "name? " {
		t.Fatalf("read %q, %v", question, err)
	}
	if _, err := io.WriteString(terminal, "ü\x03\x04\n"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(terminal)
	if err != nil || string(rest) != "hello ü\x03\x04" {
		t.Errorf("read %q, %v", rest, err)
	}
	var failed *Error
	if err := p.Wait(); !errors.As(err, &failed) || failed.Status != 3 {
		t.Errorf("it ended with %v", err)
	}
}

// TestClosingATerminalHangsUp also ends a read of it that waits.
func TestClosingATerminalHangsUp(t *testing.T) {
	p, terminal, err := new(Runner).OnTerminal(t.Context(), Command{Argv: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, terminal)
		read <- err
	}()
	time.Sleep(10 * time.Millisecond)
	if err := terminal.Close(); err != nil {
		t.Error(err)
	}
	<-read
	var failed *Error
	if err := p.Wait(); !errors.As(err, &failed) || failed.Signal() != syscall.SIGHUP {
		t.Errorf("it ended with %v", err)
	}
}

func TestCancellingEndsWhatIsOnATerminal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, terminal, err := new(Runner).OnTerminal(ctx, Command{Argv: []string{"sh", "-c", "echo up; sleep 1000 & sleep 1000"}})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if _, err := terminal.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	// The end of file says that nobody is left on it.
	if _, err := io.Copy(new(bytes.Buffer), terminal); err != nil {
		t.Error(err)
	}
	if err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
