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
	flags.StringVar(&f.file, "sudo-password-file", "", "read the password for sudo (or doas; see elevate) from the first line of `FILE`: one for all nodes of the command")
	flags.StringVar(&f.command, "sudo-password-command", "", "read it from the output of the shell `COMMAND`, such as 'pass show pi': one for all nodes of the command")
}

// given tells whether no person is asked.
func (f passwordFlags) given() bool { return f.file != "" || f.command != "" }

// flag is the one that says where the password comes from.
func (f passwordFlags) flag() string {
	if f.file != "" {
		return "--sudo-password-file"
	}
	return "--sudo-password-command"
}

// passwordTries is how often a person is asked; sudo itself gives up after as many.
const passwordTries = 3

// ask gives the password for command, sudo or its like, on a node: from the file or the command, else from the terminal.
func (a *app) ask(ctx context.Context, node, command string, attempt int) ([]byte, error) {
	return a.askFor(ctx, question{nodes: []string{node}, command: command, attempt: attempt})
}

// askFor is ask for a password that several nodes may take.
func (a *app) askFor(ctx context.Context, q question) ([]byte, error) {
	command, attempt := q.command, q.attempt
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
	a.terminal.Lock()
	defer a.terminal.Unlock()
	password, err := a.printer.AskPassword(ctx, a.tty, q.prompt())
	switch {
	case errors.Is(err, ui.ErrNoTerminal):
		return nil, &agent.ElevateError{Command: command, Kind: agent.PasswordNeeded, Text: command + " asks for a password, and there is no terminal to ask on"}
	case errors.Is(err, io.EOF):
		return nil, context.Canceled
	}
	return password, err
}

// maxAsked is how many nodes a prompt names.
const maxAsked = 8

// prompt says whose password is wanted, and where it may go: "sudo: password for alice on web1, web2, web5: ". Where the user
// is not known there is one node, and it says "web1: password for sudo: ".
func (q question) prompt() string {
	again := ""
	if q.attempt > 1 {
		again = "wrong password, try again: "
	}
	switch {
	case q.user != "":
		return fmt.Sprintf("%s: %spassword for %s on %s: ", run.Clean(q.command), again, run.Clean(q.user), listed(q.nodes, maxAsked))
	case q.attempt > 1:
		return fmt.Sprintf("%s: %s", listed(q.nodes, maxAsked), again)
	}
	return fmt.Sprintf("%s: password for %s: ", listed(q.nodes, maxAsked), run.Clean(q.command))
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
