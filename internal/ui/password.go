package ui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoTerminal says that there is nobody to ask.
var ErrNoTerminal = errors.New("there is no terminal to ask on")

// maxPassword is the longest password that is read, in bytes: what a terminal takes as one line.
const maxPassword = 4 << 10

// AskPassword asks on tty without echo and gives the line without its end. It returns early when ctx ends. At the end of the
// input (Ctrl-D) it gives io.EOF.
func (p *Printer) AskPassword(ctx context.Context, tty *os.File, prompt string) ([]byte, error) {
	if tty == nil {
		return nil, ErrNoTerminal
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	resume := p.Suspend()
	defer resume()
	fd := int(tty.Fd())
	old, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, fmt.Errorf("ask for a password: %w", err)
	}
	// The echo goes before the prompt comes: whoever answers at once, a program or a paste, must not be shown.
	silent := *old
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, setTermios, &silent); err != nil {
		return nil, fmt.Errorf("ask for a password: %w", err)
	}
	defer func() {
		_ = unix.IoctlSetTermios(fd, setTermios, old)
		_, _ = io.WriteString(tty, "\n")
	}()
	if _, err := io.WriteString(tty, prompt); err != nil {
		return nil, fmt.Errorf("ask for a password: %w", err)
	}
	password, err := readAnswer(ctx, fd)
	if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		err = fmt.Errorf("ask for a password: %w", err)
	}
	return password, err
}

// askPause is how often it is looked whether the question is still wanted, in milliseconds.
const askPause = 50

// readAnswer reads one line. No read is begun that nothing would end: it would take what is typed later.
func readAnswer(ctx context.Context, fd int) ([]byte, error) {
	line := make([]byte, 0, maxPassword)
	defer clear(line[:cap(line)])
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ready, err := awaitInput(fd, askPause)
		if errors.Is(err, unix.EINTR) || err == nil && !ready {
			continue
		}
		var n int
		if err == nil {
			n, err = unix.Read(fd, line[len(line):cap(line)])
		}
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.EOF
		}
		line = line[:len(line)+n]
		if line[len(line)-1] == '\n' {
			return append([]byte(nil), line[:len(line)-1]...), nil
		}
		if len(line) == cap(line) {
			return nil, fmt.Errorf("the answer is longer than %d bytes", maxPassword)
		}
	}
}
