package run

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func TestTailKeepsTheEnd(t *testing.T) {
	for what, c := range map[string]struct {
		writes []string
		want   string
	}{
		"nothing":      {nil, ""},
		"less":         {[]string{"ab", "cd"}, "abcd"},
		"just as much": {[]string{"abcd", "efgh"}, "abcdefgh"},
		"more":         {[]string{"abcd", "efgh", "i"}, "bcdefghi"},
		"much more":    {[]string{strings.Repeat("x", 100), "end"}, "xxxxxend"},
		"at once":      {[]string{"0123456789abcdefghijk"}, "defghijk"},
	} {
		tail := &Tail{Limit: 8}
		for _, w := range c.writes {
			if n, err := tail.Write([]byte(w)); n != len(w) || err != nil {
				t.Errorf("%s: %d, %v", what, n, err)
			}
		}
		if got := tail.String(); got != c.want {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}
}

func TestTailHoldsLittleMemoryAndManyWriters(t *testing.T) {
	tail := &Tail{Limit: 1000}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1_000 {
				_, _ = tail.Write([]byte("0123456789"))
				_ = len(tail.String())
			}
		})
	}
	wg.Wait()
	if got := tail.String(); len(got) != 1000 || strings.Trim(got, "0123456789") != "" || cap(tail.buf) > 10_000 {
		t.Errorf("%d bytes in %d", len(got), cap(tail.buf))
	}
}

func TestCleanMakesALineHarmless(t *testing.T) {
	for s, want := range map[string]string{
		"":                               "",
		"plain é 日本":                     "plain é 日本",
		"\x1b[31;1mred\x1b[0m":           "red",
		"\x1b[2K\x1b[1Gredrawn":          "redrawn",
		"\x1b]0;title\x07after":          "after",
		"\x1b]8;;http://x\x1b\\link":     "link",
		"\x1bcreset":                     "reset",
		"cut \x1b":                       "cut ",
		"cut \x1b[31":                    "cut ",
		"cut \x1b]0;title":               "cut ",
		"a\tb":                           "a b",
		"bell\a, back\b, line\nreturn\r": "bell?, back?, line?return?",
		"\x00\x7f\u0080\u009b31m":        "????31m",
		"\xff\xfe":                       "??",
		"half \xe2\x82":                  "half ??",
		"\u202etxet desrever\u2066":      "?txet desrever?",
		"\u200e\u200f\u061c\u2028\u2029": "?????",
		"seen\U000e0041":                 "seen?",
	} {
		if got := Clean(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
	if got := Clean(strings.Repeat("é", 5000)); len(got) > maxLine+10 || !strings.HasSuffix(got, "é…") {
		t.Errorf("an endless line became %d bytes", len(got))
	}
}

func TestLastLines(t *testing.T) {
	for what, c := range map[string]struct {
		s    string
		n    int
		want []string
	}{
		"nothing":     {"", 3, nil},
		"blank":       {"\n \n\t\n", 3, nil},
		"fewer":       {"a\nb", 3, []string{"a", "b"}},
		"more":        {"a\n\nb\nc\n\n", 2, []string{"b", "c"}},
		"none wanted": {"a\nb", 0, []string{}},
		"redrawn":     {"10%\r50%\r100%\r\nnext\r\n", 2, []string{"100%", "next"}},
		"colour":      {"\x1b[31mred\x1b[0m\n", 2, []string{"red"}},
	} {
		if got := LastLines(c.s, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"\x1b[31mred", "\x1b]0;x\x07", "\x1b", "\xff", "a\tb\nc", "\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) || len(got) > maxLine+10 || Clean(got) != got && len(got) <= maxLine {
			t.Errorf("%q became %q", s, got)
		}
		for _, r := range got {
			if r < 0x20 || r >= 0x7f && r < 0xa0 {
				t.Errorf("%q became %q", s, got)
			}
		}
	})
}
