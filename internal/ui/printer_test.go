package ui

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"ferry/internal/nix"
	"ferry/internal/session"
	"ferry/internal/ship"

	"github.com/creack/pty"
)

// clock is a time that stands still unless it is moved.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// newTerminal is a terminal of some columns.
func newTerminal(t *testing.T, columns uint16) *os.File {
	t.Helper()
	person, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close(); _ = tty.Close() })
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	return tty
}

// screen is what a terminal shows after it was sent text: the lines, the last one being where the cursor is.
func screen(text string) []string {
	lines := []string{""}
	last := func() *string { return &lines[len(lines)-1] }
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\r\x1b[K"):
			*last(), text = "", text[4:]
		case strings.HasPrefix(text, "\x1b[K"):
			text = text[3:]
		case text[0] == '\r':
			*last(), text = "", text[1:]
		case text[0] == '\n':
			lines, text = append(lines, ""), text[1:]
		default:
			_, n := utf8.DecodeRuneInString(text)
			*last() += text[:n]
			text = text[n:]
		}
	}
	return lines
}

func show(t *testing.T, out *strings.Builder, want ...string) {
	t.Helper()
	if got := screen(out.String()); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("the terminal shows %q instead of %q", got, want)
	}
}

func started(step session.Step) session.Event {
	return session.Event{Kind: session.Started, Node: "pi", Step: step}
}

func finishedWith(step session.Step, text string) session.Event {
	return session.Event{Kind: session.Finished, Node: "pi", Step: step, Text: text, Duration: 1500 * time.Millisecond}
}

func TestStatusLineStandsBelowWhatIsPrinted(t *testing.T) {
	var out strings.Builder
	p := New(&out, newTerminal(t, 80), false, time.Now)
	p.Observe(started(session.Connect))
	show(t, &out, "pi: connecting …")
	p.Print("a line")
	show(t, &out, "a line", "pi: connecting …")
	p.Observe(finishedWith(session.Connect, "pi, Nix 2.18"))
	show(t, &out, "a line", "pi: connect   pi, Nix 2.18  (1.5 s)", "")
	p.Observe(started(session.Ship))
	p.Close()
	show(t, &out, "a line", "pi: connect   pi, Nix 2.18  (1.5 s)", "")
}

// Connecting goes on beside evaluating and building: the end of one is not the end of the other.
func TestStatusLineShowsAStepThatStillGoesOn(t *testing.T) {
	var out strings.Builder
	p := New(&out, newTerminal(t, 80), false, time.Now)
	p.Observe(started(session.Evaluate))
	p.Observe(started(session.Connect))
	p.Observe(finishedWith(session.Connect, ""))
	show(t, &out, "pi: connect  (1.5 s)", "pi: evaluating …")
	p.Observe(finishedWith(session.Evaluate, ""))
	show(t, &out, "pi: connect  (1.5 s)", "pi: evaluate  (1.5 s)", "")
}

func TestStatusLineIsCutToTheTerminal(t *testing.T) {
	for columns, want := range map[uint16]string{20: "pi: building 1 of …", 200: "pi: building 1 of 3: " + strings.Repeat("ü", 30)} {
		var out strings.Builder
		p := New(&out, newTerminal(t, columns), false, time.Now)
		p.Observe(session.Event{Kind: session.Building, Node: "pi", Step: session.Build, Build: nix.BuildProgress{Done: 1, Expected: 3, Running: []string{strings.Repeat("ü", 30)}}})
		show(t, &out, want)
		if got := utf8.RuneCountInString(screen(out.String())[0]); got >= int(columns) {
			t.Errorf("%d characters in %d columns", got, columns)
		}
	}
}

func TestSuspendKeepsOffTheTerminalUntilItIsResumed(t *testing.T) {
	var out strings.Builder
	p := New(&out, newTerminal(t, 80), true, time.Now)
	p.Observe(started(session.Evaluate))
	outer := p.Suspend()
	show(t, &out, "")
	before := out.Len()
	inner := p.Suspend()
	p.Print("one")
	p.Observe(session.Event{Kind: session.Line, Node: "pi", Step: session.Build, Text: "two"})
	p.Observe(started(session.Build))
	inner()
	inner()
	if out.Len() != before {
		t.Fatalf("it was written: %q", out.String()[before:])
	}
	outer()
	show(t, &out, "one", "pi | two", "pi: building …")
}

func TestWithoutATerminalProgressIsALineNowAndThen(t *testing.T) {
	var out strings.Builder
	c := &clock{at: time.Unix(1000, 0)}
	p := New(&out, nil, false, c.now)
	p.Observe(started(session.Ship))
	for i := range 250 {
		p.Observe(session.Event{Kind: session.Shipping, Node: "pi", Step: session.Ship, Ship: ship.Progress{Bytes: uint64(i), TotalBytes: 250, Paths: i, TotalPaths: 250}})
		c.at = c.at.Add(100 * time.Millisecond)
	}
	p.Observe(finishedWith(session.Ship, "done"))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "pi: shipping 100 B of 250 B, 100 of 250 paths") || lines[2] != "pi: ship      done  (1.5 s)" {
		t.Errorf("%q", lines)
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Errorf("%q", out.String())
	}
}

// What a target, a builder or an evaluation says may be anything.
func TestControlCharactersDoNotReachTheTerminal(t *testing.T) {
	const evil = "\x1b]0;title\x07\x1b[2J\rpi: done\nferry: all is well\x9b31m\u202e"
	for _, terminal := range []*os.File{nil, newTerminal(t, 200)} {
		var out strings.Builder
		c := &clock{at: time.Unix(1000, 0)}
		p := New(&out, terminal, true, c.now)
		for _, kind := range []session.EventKind{session.Started, session.Building, session.Shipping, session.Line, session.Note, session.Finished} {
			for range 2 {
				c.at = c.at.Add(time.Minute)
				p.Observe(session.Event{
					Kind: kind, Node: "pi", Step: session.Build, Text: evil,
					Build: nix.BuildProgress{Running: []string{evil}, Line: evil}, Ship: ship.Progress{TotalBytes: 1},
				})
			}
		}
		p.Close()
		text := strings.ReplaceAll(strings.ReplaceAll(out.String(), "\r\x1b[K", ""), "\x1b[K", "")
		for i, line := range strings.Split(text, "\n") {
			line = strings.TrimLeft(line, "\r")
			if strings.ContainsAny(line, "\x1b\x07\u202e") || !utf8.ValidString(line) || line != "" && !strings.HasPrefix(line, "pi") {
				t.Errorf("line %d: %q", i, line)
			}
		}
	}
}

func TestBuildLogsAreShownOnlyWhenAskedFor(t *testing.T) {
	for verbose, want := range map[bool]string{false: "pi | switching\n", true: "pi | compiling\npi | switching\n"} {
		var out strings.Builder
		p := New(&out, nil, verbose, time.Now)
		p.Observe(session.Event{Kind: session.Line, Node: "pi", Step: session.Build, Text: "compiling"})
		p.Observe(session.Event{Kind: session.Line, Node: "pi", Step: session.Activate, Text: "switching"})
		if out.String() != want {
			t.Errorf("verbose %v: %q", verbose, out.String())
		}
	}
}

func TestPrinterMayBeUsedBySeveralGoroutines(t *testing.T) {
	var out strings.Builder
	p := New(&out, newTerminal(t, 80), false, time.Now)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for range 50 {
				resume := p.Suspend()
				p.Print(fmt.Sprint("line ", i))
				p.Observe(started(session.Build))
				resume()
			}
		})
	}
	group.Wait()
	p.Close()
	if lines := screen(out.String()); len(lines) != 201 || lines[200] != "" {
		t.Errorf("%d lines, at the end %q", len(lines), lines[len(lines)-1])
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 1540 * time.Millisecond: "1.5 s", 9949 * time.Millisecond: "9.9 s", 9960 * time.Millisecond: "10 s", 59 * time.Second: "59 s",
		59700 * time.Millisecond: "1 min 00 s", 61 * time.Second: "1 min 01 s", 3661 * time.Second: "1 h 01 min", 100 * time.Hour: "100 h 00 min",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v is %q", d, got)
		}
	}
}

func TestEstimate(t *testing.T) {
	type at struct {
		seconds     float64
		bytes, wire uint64
	}
	for name, c := range map[string]struct {
		samples   []at
		perSecond uint64
		left      time.Duration
		ok        bool
	}{
		"nothing yet":               {nil, 0, 0, false},
		"one look":                  {[]at{{0, 0, 0}}, 0, 0, false},
		"too early":                 {[]at{{0, 0, 0}, {0.3, 100, 10}}, 0, 0, false},
		"steady":                    {[]at{{0, 0, 0}, {1, 100, 10}, {2, 200, 20}}, 10, 8 * time.Second, true},
		"standing still":            {[]at{{0, 100, 10}, {5, 100, 10}}, 0, 0, false},
		"faster of late":            {[]at{{0, 0, 0}, {100, 100, 10}, {101, 300, 30}, {102, 500, 50}}, 20, 2500 * time.Millisecond, true},
		"slower than is worth it":   {[]at{{0, 0, 0}, {9, 1, 1}}, 0, 2 * time.Hour, true},
		"at the end":                {[]at{{0, 0, 0}, {1, 1000, 10}}, 10, 0, true},
		"more than there was":       {[]at{{0, 0, 0}, {1, 2000, 10}}, 10, 0, true},
		"begun again with the rest": {[]at{{0, 900, 90}, {1, 950, 95}, {2, 0, 0}, {3, 100, 10}}, 10, 9 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			var r rate
			var last ship.Progress
			for _, s := range c.samples {
				last = ship.Progress{Bytes: s.bytes, Wire: s.wire, TotalBytes: 1000}
				r.add(time.Unix(1000, 0).Add(time.Duration(s.seconds*float64(time.Second))), last)
			}
			perSecond, left, ok := r.estimate(last)
			if ok != c.ok || ok && (perSecond != c.perSecond || left.Round(time.Hour) != c.left.Round(time.Hour) || left < time.Hour && left != c.left) {
				t.Errorf("%d bytes a second, %v left, %v", perSecond, left, ok)
			}
		})
	}
	r := rate{samples: []sample{{at: time.Unix(0, 0)}, {at: time.Unix(9, 0), bytes: 1, wire: 1}}}
	if _, left, ok := r.estimate(ship.Progress{TotalBytes: 1 << 62}); ok {
		t.Errorf("%v are left", left)
	}
}
