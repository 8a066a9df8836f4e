package lab

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Screen is what a person sees of a terminal: a window of some columns and rows on all that was written, the end of which it
// shows. It breaks lines that are too long for it, and breaks them anew when it changes its size, as most terminals do.
// It understands what moves the cursor up, and what clears to the end of the line or the screen.
type Screen struct {
	columns, rows int
	lines         [][]rune // each up to its line feed
	row, column   int      // of the cursor: in lines, and in that line
	pending       string   // the beginning of a sequence
	bells         int

	drawn bool // something, since the cursor moved up or something was cleared

	// Redrawn, when set, is called before the cursor moves up or something is cleared: what was drawn is whole then.
	Redrawn func()
	// Unknown is what it was sent and does not understand, colours among it.
	Unknown []string
}

// NewScreen is an empty one.
func NewScreen(columns, rows int) *Screen {
	return &Screen{columns: columns, rows: rows, lines: [][]rune{nil}}
}

// Resize changes the window's size.
func (s *Screen) Resize(columns, rows int) { s.columns, s.rows = columns, rows }

// Write shows text.
func (s *Screen) Write(p []byte) (int, error) {
	text := s.pending + string(p)
	for text != "" {
		if text[0] == '\x1b' {
			end := strings.IndexFunc(text[min(2, len(text)):], func(r rune) bool { return r >= '@' && r <= '~' })
			if end < 0 {
				break
			}
			end += 2
			s.control(text[:end], text[end])
			text = text[end+1:]
			continue
		}
		if !utf8.FullRuneInString(text) {
			break
		}
		r, size := utf8.DecodeRuneInString(text)
		text = text[size:]
		s.put(r)
	}
	s.pending = text
	return len(p), nil
}

func (s *Screen) control(sequence string, what byte) {
	number, err := strconv.Atoi(strings.TrimPrefix(sequence, "\x1b["))
	switch {
	case what == 'A' && err == nil:
		s.redrawn()
		s.up(number)
	case what == 'J' && sequence == "\x1b[":
		s.redrawn()
		s.lines = s.lines[:s.row+1]
		s.lines[s.row] = s.lines[s.row][:s.column]
	case what == 'K' && sequence == "\x1b[":
		s.redrawn()
		s.lines[s.row] = s.lines[s.row][:s.column]
	default:
		s.Unknown = append(s.Unknown, fmt.Sprintf("%q", sequence+string(what)))
	}
}

func (s *Screen) redrawn() {
	if s.Redrawn != nil && s.drawn {
		s.Redrawn()
	}
	s.drawn = false
}

// up moves the cursor up some rows of the window, to its first one at most.
func (s *Screen) up(n int) {
	at := s.column / s.columns
	if s.column > 0 && s.column%s.columns == 0 && s.column == len(s.lines[s.row]) {
		at-- // it waits behind the last column
	}
	below := s.height(s.lines[s.row]) - 1 - at
	for _, line := range s.lines[s.row+1:] {
		below += s.height(line)
	}
	for n = min(n, s.rows-1-below); n > 0 && (at > 0 || s.row > 0); n-- {
		if at > 0 {
			at--
			continue
		}
		s.row--
		at = s.height(s.lines[s.row]) - 1
	}
	s.column = min(at*s.columns+s.column%s.columns, len(s.lines[s.row]))
}

// height is how many rows a line takes.
func (s *Screen) height(line []rune) int { return max(1, (len(line)+s.columns-1)/s.columns) }

func (s *Screen) put(r rune) {
	switch r {
	case '\a':
		s.bells++
	case '\r':
		s.column -= s.column % s.columns
		if s.column > 0 && s.column == len(s.lines[s.row]) {
			s.column -= s.columns
		}
	case '\n':
		s.row, s.column = s.row+1, 0
		if s.row == len(s.lines) {
			s.lines = append(s.lines, nil)
		}
	default:
		s.drawn = true
		line := s.lines[s.row]
		s.lines[s.row] = append(line[:s.column:s.column], append([]rune{r}, line[min(len(line), s.column+1):]...)...)
		s.column++
	}
}

// Lines are all lines that were written, whether they are in the window or not. The last one is that of the cursor, if that is at the end.
func (s *Screen) Lines() []string {
	var lines []string
	for _, line := range s.lines {
		lines = append(lines, string(line))
	}
	return lines
}

// Window are the rows that are in sight.
func (s *Screen) Window() []string {
	var rows []string
	for i := len(s.lines) - 1; i >= 0 && len(rows) < s.rows; i-- {
		line := s.lines[i]
		for at := s.height(line) - 1; at >= 0 && len(rows) < s.rows; at-- {
			rows = append(rows, string(line[at*s.columns:min(len(line), (at+1)*s.columns)]))
		}
	}
	slices.Reverse(rows)
	return rows
}
