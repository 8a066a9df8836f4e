package lab

import (
	"slices"
	"testing"
)

// TestAScreenShowsWhatATerminalWould locks what the tests of what people see rely on.
func TestAScreenShowsWhatATerminalWould(t *testing.T) {
	for name, c := range map[string]struct {
		sent   []string
		resize int // to so many columns, before the last that is sent
		window []string
		lines  int
	}{
		"lines":                    {[]string{"one\r\ntwo"}, 0, []string{"one", "two"}, 2},
		"a line is broken":         {[]string{"0123456789abc"}, 0, []string{"0123456789", "abc"}, 1},
		"the first scrolls out":    {[]string{"1\r\n2\r\n3\r\n4\r\n5"}, 0, []string{"2", "3", "4", "5"}, 5},
		"up and cleared":           {[]string{"1\r\n2\r\n3\r\x1b[1A\x1b[Jx"}, 0, []string{"1", "x"}, 2},
		"up, not out of it":        {[]string{"1\r\n2\r\n3\r\n4\r\n5\r\x1b[40A\x1b[Jx"}, 0, []string{"1", "x"}, 2},
		"to the end of the line":   {[]string{"12345\rab\x1b[K"}, 0, []string{"ab"}, 1},
		"a sequence in two pieces": {[]string{"1\r\n2\r\x1b[", "1A\x1b[Jx"}, 0, []string{"x"}, 1},
		"narrower":                 {[]string{"01234567\r\nx", "\r\x1b[2A\x1b[Jy"}, 4, []string{"y"}, 1},
		"from a broken line":       {[]string{"1\r\n0123456789ab\r\x1b[2A\x1b[Jx"}, 0, []string{"x"}, 1},
		"wider":                    {[]string{"0123456789ab\r\nx", "\r\x1b[1A\x1b[Jy"}, 20, []string{"y"}, 1},
		"behind the last column":   {[]string{"0123456789\rx"}, 0, []string{"x123456789"}, 1},
	} {
		s := NewScreen(10, 4)
		for i, text := range c.sent {
			if i == len(c.sent)-1 && c.resize > 0 {
				s.Resize(c.resize, 4)
			}
			_, _ = s.Write([]byte(text))
		}
		if got := s.Window(); !slices.Equal(got, c.window) || len(s.Lines()) != c.lines || s.Unknown != nil {
			t.Errorf("%s: %q of %d lines, and %q unknown; want %q of %d", name, got, len(s.Lines()), s.Unknown, c.window, c.lines)
		}
	}
	s := NewScreen(10, 4)
	_, _ = s.Write([]byte("\x1b[31mred"))
	if len(s.Unknown) != 1 {
		t.Errorf("a colour is %q", s.Unknown)
	}
}
