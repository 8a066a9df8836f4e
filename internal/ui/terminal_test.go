package ui

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/lab"
	"ferry/internal/session"

	"github.com/creack/pty"
)

// person looks at a real terminal that a printer writes to.
type person struct {
	t    *testing.T
	tty  *os.File
	file *os.File // the terminal's other end
	p    *Printer
	c    *clock

	mu            sync.Mutex
	screen        *lab.Screen
	bells, rung   int
	columns, rows int
	frames        int
}

// newPerson has a printer for several nodes on a terminal of that size. It draws when something happens, and not when time passes.
func newPerson(t *testing.T, columns, rows int, nodes []string) *person {
	t.Helper()
	file, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	w := &person{t: t, tty: tty, file: file, c: &clock{at: time.Unix(0, 0)}, screen: lab.NewScreen(columns, rows)}
	w.resize(columns, rows)
	w.p = New(tty, tty, false, w.c.now)
	w.p.Several(nodes)
	close(w.p.block.stop)
	w.p.block.stop = make(chan struct{})
	w.screen.Redrawn = w.look
	ended := make(chan struct{})
	go w.read(ended)
	t.Cleanup(func() {
		_ = tty.Close()
		<-ended
		_ = file.Close()
	})
	return w
}

func (w *person) read(ended chan<- struct{}) {
	defer close(ended)
	buffer := make([]byte, 1000)
	for {
		n, err := w.file.Read(buffer)
		w.mu.Lock()
		w.bells += strings.Count(string(buffer[:n]), "\a")
		_, _ = w.screen.Write(buffer[:n])
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// catchUp waits until all that was written is on the screen.
func (w *person) catchUp() {
	w.t.Helper()
	w.rung++
	if _, err := w.tty.WriteString("\a"); err != nil {
		w.t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		there := w.bells == w.rung
		w.mu.Unlock()
		if there {
			return
		}
		if time.Now().After(end) {
			w.t.Fatal("what was written does not come to the terminal")
		}
	}
}

// resize makes the window another size, while nothing is on its way.
func (w *person) resize(columns, rows int) {
	w.t.Helper()
	if w.p != nil {
		w.catchUp()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := pty.Setsize(w.file, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)}); err != nil {
		w.t.Fatal(err)
	}
	w.screen.Resize(columns, rows)
	w.columns, w.rows = columns, rows
	w.frames = 0
}

// Lines of the block, of a node at work and the one that counts, and those above it.
var (
	nodeLine    = regexp.MustCompile(`^node\d+ +(evaluating|building|shipping|activating|confirming) .*\d s$`)
	countLine   = regexp.MustCompile(`^\d+ of \d+ done`)
	printedLine = regexp.MustCompile(`^(node\d+: done|node\d+ \| .*|ferry: .*|)$`)
)

// look fails the test unless what stands in the window is whole: lines that were printed, then at most one line for each node, and one
// that counts. The first frame after a resize is what the terminal made of the one before.
func (w *person) look() {
	w.frames++
	if w.frames == 1 {
		return
	}
	rows := w.screen.Window()
	block := 0
	seen := map[string]bool{}
	for _, row := range rows {
		if len([]rune(row)) >= w.columns {
			w.t.Errorf("a line is as wide as the window: %q", row)
		}
		switch name, _, _ := strings.Cut(row, " "); {
		case nodeLine.MatchString(row):
			if seen[name] {
				w.t.Errorf("%s has two lines:\n%s", name, strings.Join(rows, "\n"))
			}
			seen[name] = true
			block++
		case countLine.MatchString(row):
			block++
			if row != rows[len(rows)-1] {
				w.t.Errorf("there is something below what counts:\n%s", strings.Join(rows, "\n"))
			}
		case block > 0 || !printedLine.MatchString(row):
			w.t.Errorf("%q is nothing that was printed:\n%s", row, strings.Join(rows, "\n"))
		}
	}
	if block >= w.rows {
		w.t.Errorf("the block has %d lines in %d rows", block, w.rows)
	}
}

// begin and end are the steps of a node.
func (w *person) begin(name string, step session.Step) {
	w.c.at = w.c.at.Add(time.Second)
	w.p.Observe(session.Event{Kind: session.Started, Node: name, Step: step})
}

func (w *person) end(name string, failed bool) {
	w.c.at = w.c.at.Add(time.Second)
	w.p.Ended(name, failed)
	w.p.Print(name + ": done")
}

// TestManyNodesOnARealTerminal has 200 nodes on terminals that change their size in between, with as many nodes at work as that
// allows: what stands there is whole at any time, and in the end there is what was printed, each line once.
func TestManyNodesOnARealTerminal(t *testing.T) {
	small, large := [2]int{80, 24}, [2]int{200, 50}
	for name, c := range map[string]struct {
		nodes, atWork int
		sizes         [3][2]int
	}{
		"80x24":                {200, 60, [3][2]int{small, small, small}},
		"200x50":               {200, 60, [3][2]int{large, large, large}},
		"larger and back":      {60, 20, [3][2]int{small, large, small}},
		"smaller and back":     {60, 20, [3][2]int{large, small, large}},
		"very narrow and back": {60, 3, [3][2]int{small, {30, 20}, small}},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := manyNodes(c.nodes)
			w := newPerson(t, c.sizes[0][0], c.sizes[0][1], nodes)
			want := []string{"ferry: before"}
			w.p.Print(want[0])
			for i, node := range nodes {
				w.begin(node, session.Evaluate)
				for turn, size := range c.sizes[1:] {
					if i == (turn+1)*len(nodes)/3 {
						w.resize(size[0], size[1])
					}
				}
				if i >= c.atWork {
					w.p.Observe(session.Event{Kind: session.Line, Node: nodes[i-c.atWork], Step: session.Activate, Text: "it breaks"})
					w.end(nodes[i-c.atWork], i%7 == 0)
					if i%7 == 0 {
						want = append(want, nodes[i-c.atWork]+" | it breaks")
					}
					want = append(want, nodes[i-c.atWork]+": done")
				}
			}
			for _, node := range nodes[len(nodes)-c.atWork:] {
				w.end(node, false)
				want = append(want, node+": done")
			}
			w.p.Print("ferry: all done")
			want = append(want, "ferry: all done", "")
			w.p.Close()
			w.catchUp()
			w.mu.Lock()
			defer w.mu.Unlock()
			if got := w.screen.Lines(); !slices.Equal(got, want) {
				t.Errorf("what is left is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if w.screen.Unknown != nil {
				t.Errorf("the terminal was sent %q", w.screen.Unknown)
			}
			if w.frames < 10 {
				t.Errorf("it was drawn %d times", w.frames)
			}
		})
	}
}

// TestAResizeOfATerminalThatDoesNotBreakLinesAnew locks that a window which becomes narrower keeps what was printed, where the terminal
// cuts lines instead of breaking them: no line of the block is wider than it has to be.
func TestAResizeOfATerminalThatDoesNotBreakLinesAnew(t *testing.T) {
	w := newPerson(t, 200, 50, manyNodes(10))
	for _, name := range manyNodes(10) {
		w.begin(name, session.Evaluate)
	}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if got, want := w.p.block.erase(80), fmt.Sprintf("\r\x1b[%dA\x1b[J", 10); got != want {
		t.Errorf("in 80 columns it is erased by %q, want %q", got, want)
	}
}
