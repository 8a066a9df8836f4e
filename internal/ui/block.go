package ui

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"ferry/internal/prose"
	"ferry/internal/run"
	"ferry/internal/session"

	"golang.org/x/term"
)

// block is what a terminal shows of several nodes, below what is printed: a line for each that is at work, the one that has been
// in its step for longest first, and a line that counts them all.
type block struct {
	width int // of the names
	nodes map[string]*nodeStatus
	drawn []string // the lines that are on the screen
	dirty bool     // they say what was
	last  time.Time
	stop  chan struct{}
}

// nodeStatus is a node on its way.
type nodeStatus struct {
	name          string
	steps         []runningStep
	ended, failed bool
	tail          []string // the last lines that its activation and what follows wrote
	rate          rate
}

// runningStep is a step that goes on.
type runningStep struct {
	step  session.Step
	text  string
	began time.Time
}

// The block is drawn at most once in drawPause. It has its own clock besides, for the times that it shows and for a window
// that changes its size.
const (
	drawPause = 100 * time.Millisecond
	blockTick = 250 * time.Millisecond
)

// widestName is how much of a node's name has room in its line.
const widestName = 24

// usualWidth is how wide a line is that has no more to say, in a window that has room for it: a line that is wider than it has to be is
// broken when the window becomes narrower, and some terminals cut it instead, so that it cannot be known what is to be erased.
const usualWidth = 79

// keptTail is how many lines of a node are shown when it fails.
const keptTail = 15

// Several tells that these nodes are about to be deployed: on a terminal, each has a line while it is at work, and what its
// programs write is shown only if it fails. Without a terminal nothing changes.
func (p *Printer) Several(nodes []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal == nil || p.block != nil {
		return
	}
	p.clear()
	b := &block{nodes: map[string]*nodeStatus{}, stop: make(chan struct{})}
	for _, name := range nodes {
		b.nodes[name] = &nodeStatus{name: name}
		b.width = max(b.width, utf8.RuneCountInString(name))
	}
	b.width = min(b.width, widestName)
	p.block = b
	go p.tick(b, b.stop)
}

// tick keeps the block up to date while nothing happens.
func (p *Printer) tick(b *block, stop <-chan struct{}) {
	ticker := time.NewTicker(blockTick)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			p.mu.Lock()
			if p.block == b && p.suspended == 0 {
				p.drawBlock("")
			}
			p.mu.Unlock()
		}
	}
}

// Ended tells that the deployment of a node is over. One of several that has failed shows the end of its log.
func (p *Printer) Ended(node string, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = slices.DeleteFunc(p.running, func(s stepStatus) bool { return s.node == node })
	if p.block == nil {
		p.draw()
		return
	}
	n := p.block.nodes[node]
	if n == nil {
		return
	}
	n.steps, n.ended, n.failed = nil, true, failed
	if failed && !p.verbose {
		for _, line := range n.tail {
			p.print(fmt.Sprintf("%s | %s", node, line))
		}
	}
	n.tail = nil
	p.blockChanged()
}

// observeBlock takes an event of one of several nodes. Only notes are printed, and with verbose everything that is without a
// terminal.
func (p *Printer) observeBlock(e session.Event, text string) {
	n := p.block.nodes[e.Node]
	if n == nil {
		return
	}
	switch e.Kind {
	case session.Started:
		if e.Step == session.Ship {
			n.rate = rate{}
		}
		// One that is taken back begins again.
		n.ended, n.failed = false, false
		n.steps = append(n.steps, runningStep{e.Step, doing(e.Step), p.now()})
	case session.Finished:
		n.steps = slices.DeleteFunc(n.steps, func(s runningStep) bool { return s.step == e.Step })
		if p.verbose {
			p.print(finished(e.Node, e.Step, text, e.Duration))
		}
	case session.Note:
		p.print(fmt.Sprintf("%s: note: %s", e.Node, text))
	case session.Line:
		if p.verbose {
			p.print(fmt.Sprintf("%s | %s", e.Node, text))
		}
		// What a build or an evaluation wrote is part of its error.
		if e.Step != session.Build && e.Step != session.Evaluate {
			n.tail = append(n.tail[max(0, len(n.tail)-keptTail+1):], text)
		}
	case session.PathSent:
		if p.verbose {
			p.print(e.Node + ": ship " + sent(e.Sent))
		}
	case session.Building:
		n.says(e.Step, building(e.Build))
	case session.Shipping:
		n.says(e.Step, n.rate.shipping(p.now(), e.Ship))
	}
	p.blockChanged()
}

// says sets what a step does now.
func (n *nodeStatus) says(step session.Step, text string) {
	for i := range n.steps {
		if n.steps[i].step == step {
			n.steps[i].text = run.Clean(text)
		}
	}
}

// current is the step that the node's line is about: connect goes on beside others, which say more.
func (n *nodeStatus) current() (runningStep, bool) {
	for _, s := range slices.Backward(n.steps) {
		if s.step != session.Connect {
			return s, true
		}
	}
	if len(n.steps) == 0 {
		return runningStep{}, false
	}
	return n.steps[0], true
}

// blockChanged draws the block soon.
func (p *Printer) blockChanged() {
	p.block.dirty = true
	if p.now().Sub(p.block.last) >= drawPause && p.suspended == 0 {
		p.drawBlock("")
	}
}

// clearBlock takes the block off the screen.
func (p *Printer) clearBlock() {
	if text := p.block.erase(p.columns()); text != "" {
		_, _ = io.WriteString(p.out, text)
		p.block.drawn = nil
	}
}

// erase moves to the beginning of what is drawn and clears from there. A window that has become narrower has broken its lines.
func (b *block) erase(columns int) string {
	if len(b.drawn) == 0 {
		return ""
	}
	rows := 0
	for _, line := range b.drawn {
		rows += max(1, (utf8.RuneCountInString(line)+columns-1)/columns)
	}
	text := "\r"
	if rows > 1 {
		text += fmt.Sprintf("\x1b[%dA", rows-1)
	}
	return text + "\x1b[J"
}

// drawBlock draws the block where it was, below a text that ends a line or is empty, in one piece: else it would flicker.
func (p *Printer) drawBlock(above string) {
	b := p.block
	columns, rows := p.columns(), p.rows()
	lines := b.lines(p.now(), columns-1, rows)
	if above == "" && slices.Equal(lines, b.drawn) {
		b.dirty = false
		return
	}
	text := b.erase(columns) + above + strings.Join(lines, "\n")
	_, _ = io.WriteString(p.out, text)
	b.drawn, b.dirty, b.last = lines, false, p.now()
}

// lines are the lines of the block in a window.
func (b *block) lines(now time.Time, columns, rows int) []string {
	type shown struct {
		name string
		runningStep
	}
	var atWork []shown
	done, failed := 0, 0
	for _, n := range b.nodes {
		switch step, working := n.current(); {
		case n.ended && n.failed:
			failed++
		case n.ended:
			done++
		case working:
			atWork = append(atWork, shown{n.name, step})
		}
	}
	if done+failed == len(b.nodes) {
		return nil
	}
	slices.SortFunc(atWork, func(a, b shown) int { return cmp.Or(a.began.Compare(b.began), cmp.Compare(a.name, b.name)) })
	// Something of what was printed stays in sight.
	room := max(0, min(rows-4, len(atWork)))
	var lines []string
	for _, s := range atWork[:room] {
		took := elapsed(now.Sub(s.began))
		left := prose.Cut(fmt.Sprintf("%-*s  %s", b.width, prose.Cut(s.name, b.width), s.text), max(1, columns-len(took)-2))
		lines = append(lines, left+strings.Repeat(" ", max(2, min(columns, usualWidth)-utf8.RuneCountInString(left)-len(took)))+took)
	}
	summary := fmt.Sprintf("%d of %d done", done, len(b.nodes))
	if failed > 0 {
		summary += fmt.Sprintf(", %d failed", failed)
	}
	summary += fmt.Sprintf(", %d at work", len(atWork))
	if more := len(atWork) - room; more > 0 && room > 0 {
		summary += fmt.Sprintf(" (%d not shown)", more)
	}
	if waiting := len(b.nodes) - done - failed - len(atWork); waiting > 0 {
		summary += fmt.Sprintf(", %d waiting", waiting)
	}
	return append(lines, prose.Cut(summary, columns))
}

// elapsed is a time that goes on, in whole seconds.
func elapsed(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%d s", int(max(0, d).Seconds()))
	}
	return duration(d)
}

// columns is how wide the terminal is now.
func (p *Printer) columns() int {
	width, _, err := term.GetSize(int(p.terminal.Fd()))
	if err != nil || width < 10 {
		return 80
	}
	return width
}

// rows is how many lines the terminal has now.
func (p *Printer) rows() int {
	_, height, err := term.GetSize(int(p.terminal.Fd()))
	if err != nil || height < 1 {
		return 24
	}
	return height
}
