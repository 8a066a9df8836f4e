package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
)

// Terminal is a command that runs on a terminal of its own, as under a person's hands.
type Terminal struct {
	cmd  *exec.Cmd
	file *os.File
	done chan struct{} // closed when the command has ended and all it wrote is read

	mu    sync.Mutex
	shown bytes.Buffer
	seen  int           // how much of shown an Expect has consumed
	more  chan struct{} // closed and replaced whenever shown grows

	screen *Screen // nil: nobody looks at it
}

// OpenTerminal starts a command, as made by [Builder.Command], with a terminal as standard input, output, error and
// controlling terminal. The caller must call Wait.
func OpenTerminal(cmd *exec.Cmd) (*Terminal, error) { return openTerminal(cmd, 120, 40, nil) }

// OpenScreen is OpenTerminal of the size of a screen, which shows what is written until Wait has returned.
func OpenScreen(cmd *exec.Cmd, s *Screen) (*Terminal, error) {
	return openTerminal(cmd, s.columns, s.rows, s)
}

func openTerminal(cmd *exec.Cmd, columns, rows int, screen *Screen) (*Terminal, error) {
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)})
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	t := &Terminal{cmd: cmd, file: file, done: make(chan struct{}), more: make(chan struct{}), screen: screen}
	go t.read()
	return t, nil
}

// Resize makes the window another size, and its screen.
func (t *Terminal) Resize(columns, rows int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.screen != nil {
		t.screen.Resize(columns, rows)
	}
	return pty.Setsize(t.file, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)})
}

func (t *Terminal) read() {
	defer close(t.done)
	buffer := make([]byte, 4096)
	for {
		// The kernel answers EIO when the last one has closed the other end.
		n, err := t.file.Read(buffer)
		t.mu.Lock()
		t.shown.Write(buffer[:n])
		if t.screen != nil {
			_, _ = t.screen.Write(buffer[:n])
		}
		close(t.more)
		t.more = make(chan struct{})
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Expect waits until the terminal shows text, after what the last Expect waited for.
func (t *Terminal) Expect(ctx context.Context, text string) error {
	for {
		ended := false
		select {
		case <-t.done:
			ended = true
		default:
		}
		t.mu.Lock()
		if at := bytes.Index(t.shown.Bytes()[t.seen:], []byte(text)); at >= 0 {
			t.seen += at + len(text)
			t.mu.Unlock()
			return nil
		}
		more := t.more
		t.mu.Unlock()
		if ended {
			return fmt.Errorf("terminal: ended without %q\n%s", text, t.Shown())
		}
		select {
		case <-more:
		case <-t.done:
		case <-ctx.Done():
			return fmt.Errorf("terminal: no %q: %w\n%s", text, context.Cause(ctx), t.Shown())
		}
	}
}

// Type sends text as typed: "\n" is the enter key, "\x03" Ctrl-C.
func (t *Terminal) Type(text string) error {
	_, err := t.file.WriteString(text)
	return err
}

// Shown is all that the terminal has shown, with "\n" for "\r\n".
func (t *Terminal) Shown() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(t.shown.String(), "\r\n", "\n")
}

// Wait waits for the command, closes the terminal and returns the command's exit status.
func (t *Terminal) Wait() (int, error) {
	err := t.cmd.Wait()
	// What the command wrote last is read by now or about to be. Its end comes when nobody has the terminal open any more:
	// a background process of the command, which may hold it for ever, loses it here.
	select {
	case <-t.done:
	case <-time.After(time.Second):
	}
	defer t.file.Close()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("terminal: %w", err)
	}
	return exitStatus(t.cmd.ProcessState), nil
}
