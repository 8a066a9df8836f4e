package run

import "bytes"

// LineWriter cuts what is written to it into lines, cleans them, and counts the bytes.
type LineWriter struct {
	Emit func(line string)
	// Total is how many bytes were written to it.
	Total int64
	held  []byte
	// skip says that the rest of the line is not kept: it is too long.
	skip bool
}

// maxHeld is how much is kept of a line, in bytes: a target may send an endless one.
const maxHeld = 16 << 10

// Write never fails.
func (l *LineWriter) Write(p []byte) (int, error) {
	l.Total += int64(len(p))
	l.held = append(l.held, p...)
	for {
		line, rest, found := bytes.Cut(l.held, []byte{'\n'})
		if !found {
			break
		}
		l.line(line)
		l.held = rest
	}
	if len(l.held) > maxHeld {
		l.line(l.held)
		l.held, l.skip = nil, true
	}
	return len(p), nil
}

// Flush emits a last line that has no end.
func (l *LineWriter) Flush() {
	if len(l.held) > 0 {
		l.line(l.held)
		l.held = nil
	}
}

// line emits a whole line, or the beginning of one that is too long.
func (l *LineWriter) line(text []byte) {
	if !l.skip {
		// A carriage return redraws the line: what stood before it is not what a person would see.
		text = bytes.TrimRight(text, "\r")
		l.Emit(Clean(string(text[bytes.LastIndexByte(text, '\r')+1:])))
	}
	l.skip = false
}
