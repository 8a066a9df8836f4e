package run

import (
	"slices"
	"strings"
	"testing"
)

// TestLinesOfAnotherMachine cuts what a target writes into lines that are safe to show, of an endless one the beginning.
func TestLinesOfAnotherMachine(t *testing.T) {
	long := strings.Repeat("x", 3*maxHeld)
	for name, c := range map[string]struct {
		written []string
		want    []string
	}{
		"whole lines":           {[]string{"one\ntwo\n"}, []string{"one", "two"}},
		"a line in pieces":      {[]string{"o", "n", "e\r\n"}, []string{"one"}},
		"a last line":           {[]string{"one\ntw", "o"}, []string{"one", "two"}},
		"an empty line":         {[]string{"\n\n"}, []string{"", ""}},
		"an escape sequence":    {[]string{"a\x1b]0;owned", "\x07b\n"}, []string{"ab"}},
		"an endless line":       {[]string{long, long, long, "\nnext\n"}, []string{"cut", "next"}},
		"an endless last line":  {[]string{long, long, "end"}, []string{"cut"}},
		"a long line in a gulp": {[]string{long + "\nnext\n"}, []string{"cut", "next"}},
	} {
		var got []string
		w := &LineWriter{Emit: func(line string) {
			if len(line) > 3000 {
				t.Errorf("%s: a line of %d bytes", name, len(line))
			}
			if strings.HasPrefix(line, "xxx") {
				line = "cut"
			}
			got = append(got, line)
		}}
		total := 0
		for _, text := range c.written {
			n, err := w.Write([]byte(text))
			if n != len(text) || err != nil {
				t.Errorf("%s: wrote %d, %v", name, n, err)
			}
			total += n
			if len(w.held) > maxHeld+len(long) {
				t.Errorf("%s: %d bytes are held", name, len(w.held))
			}
		}
		w.Flush()
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if w.Total != int64(total) {
			t.Errorf("%s: counted %d bytes of %d", name, w.Total, total)
		}
	}
}

func TestLineWriter(t *testing.T) {
	for name, c := range map[string]struct {
		said string
		want []string
	}{
		"lines":              {"one\ntwo\n", []string{"one", "two"}},
		"no end":             {"one\ntwo", []string{"one", "two"}},
		"empty":              {"", nil},
		"empty lines":        {"\n\n", []string{"", ""}},
		"redrawn":            {"10%\r20%\r100%\r\n", []string{"100%"}},
		"control characters": {"\x1b[31mred\x1b[0m\a\n", []string{"red?"}},
		"cut in a letter":    {"zoë\n", []string{"zoë"}},
	} {
		for size := 1; size <= len(c.said)+1; size++ {
			var got []string
			w := &LineWriter{Emit: func(line string) { got = append(got, line) }}
			for part := range slices.Chunk([]byte(c.said), size) {
				if n, err := w.Write(part); n != len(part) || err != nil {
					t.Fatalf("%d, %v", n, err)
				}
			}
			w.Flush()
			if !slices.Equal(got, c.want) || w.Total != int64(len(c.said)) {
				t.Errorf("%s, in pieces of %d: %q after %d bytes", name, size, got, w.Total)
			}
		}
	}
}

func TestLineWriterCutsAnEndlessLine(t *testing.T) {
	var lines, longest int
	w := &LineWriter{Emit: func(line string) {
		lines++
		longest = max(longest, len(line))
	}}
	piece := []byte(strings.Repeat("x", 1000))
	for range 10_000 {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
		if len(w.held) > maxHeld {
			t.Fatalf("%d bytes are held", len(w.held))
		}
	}
	w.Flush()
	if lines != 1 || longest > maxHeld || w.Total != 10_000_000 {
		t.Errorf("%d lines of up to %d bytes out of %d", lines, longest, w.Total)
	}
}
