package ui

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ferry/internal/session"
	"ferry/internal/ship"

	"github.com/creack/pty"
)

// window is a terminal that understands what ferry sends: what stands on it, and what has scrolled out at its top.
type window struct {
	t             *testing.T
	columns, rows int
	lines         []string // all of them, the scrolled ones first
	row, column   int      // of the cursor, in lines
	tallest       int      // the most rows that were moved up at once
}

func (w *window) Write(p []byte) (int, error) {
	w.t.Helper()
	for text := string(p); text != ""; {
		if rest, found := strings.CutPrefix(text, "\x1b["); found {
			end := strings.IndexAny(rest, "AJK")
			if end < 0 {
				w.t.Fatalf("an unknown sequence in %q", text)
			}
			w.control(rest[:end], rest[end])
			text = rest[end+1:]
			continue
		}
		r, size := utf8.DecodeRuneInString(text)
		text = text[size:]
		w.put(r)
	}
	return len(p), nil
}

func (w *window) control(number string, what byte) {
	w.t.Helper()
	switch what {
	case 'A':
		n, err := strconv.Atoi(number)
		if err != nil {
			w.t.Fatal(err)
		}
		w.tallest = max(w.tallest, n+1)
		w.row -= n
		if w.row < len(w.lines)-w.rows || w.row < 0 {
			w.t.Fatalf("it moves up %d rows, out of the window", n)
		}
	case 'J':
		w.lines = w.lines[:w.row+1]
		fallthrough
	case 'K':
		w.lines[w.row] = string([]rune(w.lines[w.row])[:w.column])
	}
}

func (w *window) put(r rune) {
	if len(w.lines) == 0 {
		w.lines = []string{""}
	}
	switch r {
	case '\r':
		w.column = 0
	case '\n':
		w.row, w.column = w.row+1, 0
		if w.row == len(w.lines) {
			w.lines = append(w.lines, "")
		}
	default:
		if w.column == w.columns {
			w.put('\n')
		}
		line := []rune(w.lines[w.row])
		w.lines[w.row] = string(line[:w.column]) + string(r)
		w.column++
	}
}

// visible are the lines in the window.
func (w *window) visible() []string { return w.lines[max(0, len(w.lines)-w.rows):] }

// newWindow is a printer for several nodes in a window of that size.
func newWindow(t *testing.T, columns, rows int, c *clock, nodes ...string) (*Printer, *window, *os.File) {
	t.Helper()
	tty := newTerminal(t, uint16(columns))
	if err := pty.Setsize(tty, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
	w := &window{t: t, columns: columns, rows: rows}
	p := New(w, tty, false, c.now)
	p.Several(nodes)
	// What follows is drawn when it happens, and not when time passes.
	close(p.block.stop)
	p.block.stop = make(chan struct{})
	return p, w, tty
}

func manyNodes(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("node%03d", i+1))
	}
	return names
}

// TestManyNodesFitInAWindow has 200 nodes in windows of two sizes: nothing is wider or taller than they are, slow ones come first, and
// in the end there is nothing but what was printed.
func TestManyNodesFitInAWindow(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {200, 50}, {20, 4}} {
		c := &clock{at: time.Unix(0, 0)}
		nodes := manyNodes(200)
		p, w, _ := newWindow(t, size[0], size[1], c, nodes...)
		p.Print("ferry: note: before")
		for _, name := range nodes[:100] {
			c.at = c.at.Add(time.Second)
			p.Observe(session.Event{Kind: session.Started, Node: name, Step: session.Evaluate})
		}
		c.at = c.at.Add(time.Second)
		p.Observe(session.Event{Kind: session.Line, Node: "node001", Step: session.Evaluate, Text: "a line"})
		shown := w.visible()
		last := shown[len(shown)-1]
		if !strings.HasPrefix(last, "0 of 200 done, 100 "[:min(19, size[0]-2)]) {
			t.Errorf("%v: the last line is %q", size, last)
		}
		if size[1] > 10 {
			if got := shown[len(shown)-1-(size[1]-4)]; !strings.HasPrefix(got, "node001  evaluating ") || !strings.HasSuffix(got, " 1 min 40 s") {
				t.Errorf("%v: the slowest is not first: %q", size, got)
			}
			if want := fmt.Sprintf("100 at work (%d not shown), 100 waiting", 100-size[1]+4); !strings.HasSuffix(last, want) {
				t.Errorf("%v: the last line is %q", size, last)
			}
		}
		for i, name := range nodes {
			c.at = c.at.Add(time.Second)
			p.Observe(session.Event{Kind: session.Finished, Node: name, Step: session.Evaluate})
			p.Ended(name, i == 7)
			p.Print(name + ": done")
		}
		p.Print("ferry: all done")
		p.Close()
		want := []string{"ferry: note: before"}
		for _, name := range nodes {
			want = append(want, name+": done")
		}
		want = append(want, "ferry: all done", "")
		if !slices.Equal(w.lines, want) {
			t.Errorf("%v: what is left is %q", size, w.lines)
		}
		if w.tallest >= size[1] {
			t.Errorf("%v: the block had %d lines", size, w.tallest)
		}
	}
}

// TestALineSaysWhatItsNodeDoes locks what is said while connect goes on beside the others, and of a ship.
func TestALineSaysWhatItsNodeDoes(t *testing.T) {
	c := &clock{at: time.Unix(0, 0)}
	p, w, _ := newWindow(t, 80, 24, c, "web1", "db")
	line := func(want string) {
		t.Helper()
		c.at = c.at.Add(time.Second)
		p.drawBlock("")
		if got := strings.Join(strings.Fields(w.visible()[0]), " "); got != want {
			t.Errorf("the line is %q, want %q", got, want)
		}
	}
	p.Observe(session.Event{Kind: session.Started, Node: "web1", Step: session.Connect})
	line("web1 connecting 1 s")
	p.Observe(session.Event{Kind: session.Started, Node: "web1", Step: session.Evaluate})
	line("web1 evaluating 1 s")
	p.Observe(session.Event{Kind: session.Finished, Node: "web1", Step: session.Evaluate})
	line("web1 connecting 3 s")
	p.Observe(session.Event{Kind: session.Finished, Node: "web1", Step: session.Connect})
	line("0 of 2 done, 0 at work, 2 waiting")
	p.Observe(session.Event{Kind: session.Started, Node: "web1", Step: session.Ship})
	for i := range uint64(3) {
		c.at = c.at.Add(time.Second)
		p.Observe(session.Event{Kind: session.Shipping, Node: "web1", Step: session.Ship, Ship: ship.Progress{Bytes: i * 1e6, Wire: i * 5e5, TotalBytes: 1e7, TotalPaths: 3}})
	}
	line("web1 shipping 2.0 MB of 10 MB, 0 of 3 paths, 1.0 MB sent at 500 kB/s, 8.… 4 s")
	p.Close()
	if got := w.lines; !slices.Equal(got, []string{""}) {
		t.Errorf("left over: %q", got)
	}
}

// TestTheLogOfANodeThatFailsIsShown locks that it is the end of that, and that those that go well show nothing.
func TestTheLogOfANodeThatFailsIsShown(t *testing.T) {
	c := &clock{at: time.Unix(0, 0)}
	p, w, _ := newWindow(t, 80, 24, c, "web1", "web2")
	for i := range keptTail + 3 {
		for _, name := range []string{"web1", "web2"} {
			p.Observe(session.Event{Kind: session.Line, Node: name, Step: session.Activate, Text: fmt.Sprintf("line %d", i)})
		}
	}
	p.Ended("web1", false)
	p.Ended("web2", true)
	p.Close()
	if len(w.lines) != keptTail+1 || w.lines[0] != "web2 | line 3" {
		t.Errorf("what is left is %q", w.lines)
	}
}

// TestAWindowThatBecomesNarrower locks that lines which it breaks are cleared with all their rows.
func TestAWindowThatBecomesNarrower(t *testing.T) {
	b := &block{drawn: []string{strings.Repeat("x", 79), "short"}}
	for columns, want := range map[int]string{80: "\r\x1b[1A\x1b[J", 40: "\r\x1b[2A\x1b[J", 20: "\r\x1b[4A\x1b[J"} {
		if got := b.erase(columns); got != want {
			t.Errorf("%d columns: %q, want %q", columns, got, want)
		}
	}
	c := &clock{at: time.Unix(0, 0)}
	p, w, tty := newWindow(t, 80, 24, c, manyNodes(3)...)
	for _, name := range manyNodes(3) {
		p.Observe(session.Event{Kind: session.Started, Node: name, Step: session.Build})
	}
	for _, columns := range []int{60, 100} {
		p.clear()
		if err := pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: uint16(columns)}); err != nil {
			t.Fatal(err)
		}
		w.columns = columns
		c.at = c.at.Add(time.Second)
		p.drawBlock("")
		for _, line := range w.visible()[:3] {
			if len(line) != min(columns-1, usualWidth) {
				t.Errorf("in %d columns a line has %d: %q", columns, len(line), line)
			}
		}
	}
	p.Close()
}

// TestWithoutATerminalNothingIsDrawn locks that several nodes are plain lines then.
func TestWithoutATerminalNothingIsDrawn(t *testing.T) {
	var out bytes.Buffer
	c := &clock{at: time.Unix(0, 0)}
	p := New(&out, nil, false, c.now)
	p.Several([]string{"web1", "web2"})
	p.Observe(session.Event{Kind: session.Started, Node: "web1", Step: session.Build})
	p.Observe(session.Event{Kind: session.Finished, Node: "web1", Step: session.Build, Text: "built already"})
	p.Ended("web1", false)
	p.Close()
	if got := out.String(); got != "web1: build     built already  (0.0 s)\n" {
		t.Errorf("it says %q", got)
	}
}
