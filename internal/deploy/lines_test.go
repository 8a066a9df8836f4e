package deploy

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
		w := &lineWriter{emit: func(line string) {
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
		w.flush()
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if w.total != int64(total) {
			t.Errorf("%s: counted %d bytes of %d", name, w.total, total)
		}
	}
}
