// Package ui is the only code that knows a terminal: it shows a deployment's events to people, on standard error, and asks
// for passwords.
package ui

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"ferry/internal/prose"
	"ferry/internal/run"
	"ferry/internal/session"
)

// Printer shows events. With a terminal it keeps one status line below what it prints; without one it prints plain lines
// only. It is safe for use by several goroutines. The caller must Close it.
type Printer struct {
	out      io.Writer
	terminal *os.File // nil: no terminal
	verbose  bool
	now      func() time.Time

	mu        sync.Mutex
	running   []stepStatus // the steps that go on, the one that moved last at the end
	shown     bool         // the status line is on the screen
	last      string       // what the status line says, while it is shown
	suspended int          // someone else uses the terminal
	held      []string
	lastPlain time.Time // when progress was printed last without a terminal
	rate      rate
	block     *block // of several nodes, on a terminal; nil else
}

// stepStatus is what the status line says while a step goes on.
type stepStatus struct {
	node string
	step session.Step
	text string
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
	p.running = nil
	if p.block != nil {
		close(p.block.stop)
		p.block = nil
	}
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

// Observe shows an event.
func (p *Printer) Observe(e session.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A target, a builder or an evaluation may have had its say in any of these.
	text := run.Clean(e.Text)
	if p.block != nil {
		p.observeBlock(e, text)
		return
	}
	switch e.Kind {
	case session.Started:
		if e.Step == session.Ship {
			p.rate = rate{}
		}
		p.setStatus(e, fmt.Sprintf("%s: %s …", e.Node, doing(e.Step)))
	case session.Finished:
		p.running = slices.DeleteFunc(p.running, func(s stepStatus) bool { return s.node == e.Node && s.step == e.Step })
		p.print(finished(e.Node, e.Step, text, e.Duration))
	case session.Note:
		p.print(fmt.Sprintf("%s: note: %s", e.Node, text))
	case session.Line:
		if e.Step != session.Build || p.verbose {
			p.print(fmt.Sprintf("%s | %s", e.Node, text))
		}
	case session.Building:
		p.progress(e, e.Node+": "+building(e.Build))
	case session.Shipping:
		p.progress(e, e.Node+": "+p.rate.shipping(p.now(), e.Ship))
	case session.PathSent:
		if p.verbose {
			p.print(e.Node + ": ship " + sent(e.Sent))
		}
	}
}

// plainPause is the time between two lines of progress without a terminal.
const plainPause = 10 * time.Second

// progress shows how far a step is: at once on a terminal, now and then without one.
func (p *Printer) progress(e session.Event, text string) {
	if p.terminal != nil {
		p.setStatus(e, text)
		return
	}
	now := p.now()
	if p.lastPlain.IsZero() {
		p.lastPlain = now
	}
	if now.Sub(p.lastPlain) >= plainPause {
		p.lastPlain = now
		p.print(run.Clean(text))
	}
}

func (p *Printer) setStatus(e session.Event, text string) {
	p.running = slices.DeleteFunc(p.running, func(s stepStatus) bool { return s.node == e.Node && s.step == e.Step })
	p.running = append(p.running, stepStatus{e.Node, e.Step, run.Clean(text)})
	p.draw()
}

func (p *Printer) print(line string) {
	if p.suspended > 0 {
		p.held = append(p.held, line)
		return
	}
	if p.block != nil {
		p.drawBlock(line + "\n")
		return
	}
	p.clear()
	_, _ = io.WriteString(p.out, line+"\n")
	p.draw()
}

func (p *Printer) clear() {
	if p.block != nil {
		p.clearBlock()
		return
	}
	if p.shown {
		_, _ = io.WriteString(p.out, "\r\x1b[K")
		p.shown = false
	}
}

func (p *Printer) draw() {
	if p.terminal == nil || p.suspended > 0 {
		return
	}
	if p.block != nil {
		p.drawBlock("")
		return
	}
	if len(p.running) == 0 {
		p.clear()
		return
	}
	status := p.running[len(p.running)-1].text
	status = prose.Cut(status, p.columns()-1)
	if p.shown && status == p.last {
		return
	}
	_, _ = io.WriteString(p.out, "\r"+status+"\x1b[K")
	p.shown, p.last = true, status
}
