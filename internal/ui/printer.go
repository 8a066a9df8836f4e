// Package ui is the only code that knows a terminal: it shows a deployment's events to people, on standard error, and asks
// for passwords.
package ui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"ferry/internal/deploy"
	"ferry/internal/run"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Printer shows events. With a terminal it keeps one status line below what it prints; without one it prints plain lines
// only. It is safe for use by several goroutines. The caller must Close it.
type Printer struct {
	out      io.Writer
	terminal *os.File // nil: no terminal
	verbose  bool
	now      func() time.Time

	mu        sync.Mutex
	status    string
	shown     bool // the status line is on the screen
	suspended int  // someone else uses the terminal
	held      []string
	lastPlain time.Time // when progress was printed last without a terminal
	rate      rate
}

// New makes a Printer that writes to out. terminal is out as a terminal, or nil. With verbose, build logs and commands are
// shown as well.
func New(out io.Writer, terminal *os.File, verbose bool, now func() time.Time) *Printer {
	return &Printer{out: out, terminal: terminal, verbose: verbose, now: now}
}

// Close removes the status line.
func (p *Printer) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	p.status = ""
}

// Print prints one line, whatever the status line does.
func (p *Printer) Print(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(line)
}

// longWord is how many bytes of a command's argument are shown: Nix expressions and scripts would fill the screen.
const longWord = 240

// Command shows a command that is about to run, in verbose mode.
func (p *Printer) Command(argv []string) {
	if !p.verbose {
		return
	}
	words := make([]string, len(argv))
	for i, word := range argv {
		words[i] = run.Quote(word)
		if len(word) > longWord {
			words[i] = fmt.Sprintf("%s… (%d bytes)", run.Quote(strings.ToValidUTF8(word[:longWord], "")), len(word))
		}
	}
	p.Print("$ " + strings.ReplaceAll(strings.Join(words, " "), "\n", " "))
}

// Suspend keeps the printer off the terminal while someone else uses it, until the function it returns is called. What is
// to be printed meanwhile is printed then.
func (p *Printer) Suspend() (resume func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	p.suspended++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.suspended--
		if p.suspended > 0 {
			return
		}
		for _, line := range p.held {
			p.print(line)
		}
		p.held = nil
		p.draw()
	})
}

// ErrNoTerminal says that there is nobody to ask.
var ErrNoTerminal = errors.New("there is no terminal to ask on")

// AskPassword asks on tty without echo. It returns early when ctx ends.
func (p *Printer) AskPassword(ctx context.Context, tty *os.File, prompt string) ([]byte, error) {
	if tty == nil {
		return nil, ErrNoTerminal
	}
	resume := p.Suspend()
	defer resume()
	fd := int(tty.Fd())
	old, err := term.GetState(fd)
	if err == nil {
		// Before the prompt: whoever answers at once, a program or a paste, must not be shown. Ctrl-C goes on to work.
		err = echoOff(fd)
	}
	if err == nil {
		_, err = io.WriteString(tty, prompt)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for a password: %w", err)
	}
	type answer struct {
		password []byte
		err      error
	}
	answered := make(chan answer, 1)
	go func() {
		password, err := term.ReadPassword(fd)
		answered <- answer{password, err}
	}()
	defer func() {
		// Also when the read goes on until the program ends: the terminal must show again what is typed.
		_ = term.Restore(fd, old)
		_, _ = io.WriteString(tty, "\n")
	}()
	select {
	case a := <-answered:
		return a.password, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// echoOff keeps a terminal from showing what is typed.
func echoOff(fd int) error {
	state, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	state.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, unix.TCSETS, state)
}

// Observe shows an event.
func (p *Printer) Observe(e deploy.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case deploy.Started:
		p.rate = rate{}
		p.setStatus(fmt.Sprintf("%s: %s …", e.Node, doing(e.Step)))
	case deploy.Finished:
		p.setStatus("")
		p.print(finished(e))
	case deploy.Note:
		p.print(fmt.Sprintf("%s: note: %s", e.Node, e.Text))
	case deploy.Line:
		if e.Step != deploy.Build || p.verbose {
			p.print(fmt.Sprintf("%s | %s", e.Node, run.Clean(e.Text)))
		}
	case deploy.Building:
		p.progress(e.Node + ": " + building(e.Build))
	case deploy.Shipping:
		p.progress(e.Node + ": " + p.shipping(e.Ship))
	}
}

// progress shows how far a step is: at once on a terminal, now and then without one.
func (p *Printer) progress(text string) {
	if p.terminal != nil {
		p.setStatus(text)
		return
	}
	now := p.now()
	if p.lastPlain.IsZero() {
		p.lastPlain = now
	}
	if now.Sub(p.lastPlain) >= 10*time.Second {
		p.lastPlain = now
		p.print(text)
	}
}

func (p *Printer) setStatus(text string) {
	if text == p.status && p.shown {
		return
	}
	p.status = text
	p.draw()
}

func (p *Printer) print(line string) {
	if p.suspended > 0 {
		p.held = append(p.held, line)
		return
	}
	p.clear()
	_, _ = io.WriteString(p.out, line+"\n")
	p.draw()
}

func (p *Printer) clear() {
	if p.shown {
		_, _ = io.WriteString(p.out, "\r\x1b[K")
		p.shown = false
	}
}

func (p *Printer) draw() {
	if p.terminal == nil || p.suspended > 0 {
		return
	}
	if p.status == "" {
		p.clear()
		return
	}
	width, _, err := term.GetSize(int(p.terminal.Fd()))
	if err != nil || width < 10 {
		width = 80
	}
	_, _ = io.WriteString(p.out, "\r"+cut(p.status, width-1)+"\x1b[K")
	p.shown = true
}

// cut shortens s to n characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	runes := []rune(s)
	return string(runes[:n-1]) + "…"
}
