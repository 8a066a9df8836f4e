package ui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"ferry/internal/run"
)

// AskYesNo asks a question on tty that is answered with yes or no; anything else, also Ctrl-D, is a no. Its lines are
// cleaned. It returns early when ctx ends. What was typed before the question is no answer to it.
func (p *Printer) AskYesNo(ctx context.Context, tty *os.File, question string) (bool, error) {
	if tty == nil {
		return false, ErrNoTerminal
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	resume := p.Suspend()
	defer resume()
	fd := int(tty.Fd())
	if err := dropInput(fd); err != nil {
		return false, fmt.Errorf("ask: %w", err)
	}
	lines := strings.Split(question, "\n")
	for i := range lines {
		lines[i] = run.Clean(lines[i])
	}
	if _, err := io.WriteString(tty, strings.Join(lines, "\n")+" [y/N] "); err != nil {
		return false, fmt.Errorf("ask: %w", err)
	}
	answer, err := readAnswer(ctx, fd)
	if err != nil {
		// The cursor stands behind the question.
		_, _ = io.WriteString(tty, "\n")
	}
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	switch strings.ToLower(strings.TrimSpace(string(answer))) {
	case "y", "yes":
		return err == nil, err
	}
	return false, err
}
