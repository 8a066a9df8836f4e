package run

import (
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"
)

// Tail is a writer that keeps the last Limit bytes written to it. It is safe for use by several goroutines.
type Tail struct {
	Limit int // bytes kept

	mu  sync.Mutex
	buf []byte
}

// Write keeps the end of p. It never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	// Cut rarely, so that many short lines do not move the whole buffer each time.
	if len(t.buf) > 2*t.Limit {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.Limit:]...)
	}
	return len(p), nil
}

// String is what is kept.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.buf) > t.Limit {
		return string(t.buf[len(t.buf)-t.Limit:])
	}
	return string(t.buf)
}

// FileTail is the end of what has been written to a file, as much as an error tells of a command's standard error.
func FileTail(file *os.File) string {
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	from := max(0, info.Size()-stderrTail)
	text, _ := io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
	return string(text)
}

// LastLines returns the last n lines of s that are not blank, each cleaned by [Clean].
func LastLines(s string, n int) []string {
	var lines []string
	for _, l := range strings.Split(s, "\n") {
		// A carriage return redraws the line: what stood before it is not what a person saw.
		l = strings.TrimRight(l, "\r")
		l = l[strings.LastIndexByte(l, '\r')+1:]
		if strings.TrimSpace(l) != "" {
			lines = append(lines, Clean(l))
		}
	}
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return lines
}

// maxLine is the longest line, in bytes, that Clean lets through.
const maxLine = 2000

// Clean makes one line that another machine wrote harmless for a terminal: escape sequences are dropped, other control
// characters, marks that reorder the text, and bytes that are not UTF-8 become "?", a tab a space, and an endless line is cut.
func Clean(s string) string { return clean(s, maxLine) }

// Printable is Clean without an end: for a message that is put together here, in which there may be what another machine wrote.
func Printable(s string) string { return clean(s, len(s)) }

func clean(s string, most int) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		if b.Len() > most {
			b.WriteString("…")
			break
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == 0x1b:
			n = escapeLength(s[i:])
		case r == '\t':
			b.WriteByte(' ')
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError && n == 1:
			b.WriteByte('?')
		case reorders(r):
			b.WriteByte('?')
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// reorders tells whether r is a mark that could make a line read as something else, since it reorders the text around it, begins another
// line, or is a tag that nobody sees.
func reorders(r rune) bool {
	switch {
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
		return true
	case r == 0x2028, r == 0x2029, r >= 0xe0000 && r <= 0xe007f:
		return true
	}
	return false
}

// escapeLength is the length of the escape sequence that s starts with (ECMA-48: CSI and OSC sequences, else two bytes).
func escapeLength(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
		}
		return len(s)
	case ']':
		for i := 2; i < len(s); i++ {
			if s[i] == 0x07 {
				return i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return len(s)
	}
	return 2
}
