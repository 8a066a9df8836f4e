package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"ferry/internal/agent"
	"ferry/internal/run"
	"ferry/internal/ui"

	"github.com/spf13/pflag"
)

// passwordFlags say where the password for sudo, or what a node has instead, comes from.
type passwordFlags struct {
	file    string
	command string
}

func (f *passwordFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.file, "sudo-password-file", "", "read the password for sudo, or what else makes root there, from the first line of `FILE`")
	flags.StringVar(&f.command, "sudo-password-command", "", "read it from what the shell `COMMAND` prints, as 'pass show pi'")
}

// passwordTries is how often a person is asked; sudo itself gives up after as many.
const passwordTries = 3

// ask gives the password for command, sudo or its like, on a node: from the file or the command, else from the terminal.
func (a *app) ask(ctx context.Context, node, command string, attempt int) ([]byte, error) {
	wrong := &agent.ElevateError{Command: command, Kind: agent.WrongPassword, Text: command + ": the password was wrong"}
	switch {
	case a.password.file != "":
		if attempt > 1 {
			wrong.Text = command + ": the password from --sudo-password-file was wrong"
			return nil, wrong
		}
		return passwordFromFile(a.password.file)
	case a.password.command != "":
		if attempt > 1 {
			wrong.Text = command + ": the password from --sudo-password-command was wrong"
			return nil, wrong
		}
		out, err := a.runner.Output(ctx, run.Command{Argv: []string{"/bin/sh", "-c", a.password.command}, In: os.Stdin})
		if err != nil {
			return nil, fmt.Errorf("--sudo-password-command: %w", err)
		}
		return firstLine(out), nil
	case attempt > passwordTries:
		return nil, wrong
	}
	prompt := fmt.Sprintf("%s: password for %s: ", node, run.Clean(command))
	if attempt > 1 {
		prompt = fmt.Sprintf("%s: wrong password, try again: ", node)
	}
	a.terminal.Lock()
	defer a.terminal.Unlock()
	password, err := a.printer.AskPassword(ctx, a.tty, prompt)
	switch {
	case errors.Is(err, ui.ErrNoTerminal):
		return nil, &agent.ElevateError{Command: command, Kind: agent.PasswordNeeded, Text: command + " asks for a password, and there is no terminal to ask on"}
	case errors.Is(err, io.EOF):
		return nil, context.Canceled
	}
	return password, err
}

func passwordFromFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--sudo-password-file: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 4<<10))
	if err != nil {
		return nil, fmt.Errorf("--sudo-password-file: %w", err)
	}
	return firstLine(text), nil
}

func firstLine(text []byte) []byte {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}
