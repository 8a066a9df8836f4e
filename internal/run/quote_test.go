package run

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMain lets the test binary print its arguments, each followed by a NUL byte: what a shell made of a command line.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "print-arguments" {
		for _, a := range os.Args[2:] {
			_, _ = os.Stdout.WriteString(a + "\x00")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// quickExit keeps a test binary built with -race from waiting a second before it exits.
const quickExit = "GORACE=atexit_sleep_ms=0"

// shells are the login shells that a target may have, each with its flag for a command line.
func shells(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{
		"sh":      {"sh", "-c"},
		"dash":    {"dash", "-c"},
		"bash":    {"bash", "-c"},
		"busybox": {"busybox", "sh", "-c"},
		"zsh":     {"zsh", "-c"},
		"fish":    {"fish", "-c"},
	}
	for name, argv := range all {
		if _, err := exec.LookPath(argv[0]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return all
}

// nasty are strings that some shell gives a meaning.
var nasty = []string{
	"", " ", "  two  spaces  ", "\t", "\n", "two\nlines", "trailing newline\n", "\r\n",
	"'", "''", "'''", `"`, `""`, "it's", `say "it's"`, `\`, `\\`, `\'`, `'\`, `'\''`, `\n`, `a\`, `\\\`, `"\"`,
	"$HOME", "${HOME}", "$(id)", "`id`", "$((1+1))", "$", "$$", "$'x'", `$"x"`, "(id)", "{a,b}", "{1..3}", "<(id)", "=(id)",
	"*", "?", "[a-z]*", "/etc/pass*", "**", "~", "~root", "~/x", "a=~", "=ls", "a=b", "--flag=value", "=",
	"#", "#comment", "a#b", "!", "!!", "a!b", "^a^b", "%1", "%self", "%", "@", "@(a|b)", "+", ":", ",", "-", "--", "-n", "-e",
	"&", "&&", "|", "||", ";", ";;", "<", ">", ">>", "2>&1", "1", "if", "then", "end", "begin", "and", "not", "time", "[", "]", "[[",
	"é", "日本語", "\u202e", "\x01", "\x1b[31m", "\x7f", "\xff", "\xc3", "\xed\xa0\x80", "a\xffb", "\u00a0", "\ufeff", "\uf600", "\uf8ff",
	"end of options -- $x", "set -x; $(touch /tmp/x)", `'"'"'`, `"'"'"`, strings.Repeat(`'\`, 50),
}

func TestQuoteIsReadBackByEveryShell(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := slices.Clone(nasty)
	random := rand.New(rand.NewPCG(1, 2))
	const alphabet = "ab '\"\\$`!*?[]{}()<>|&;#~=%^@+:,.-_/\n\t\r\x01\x7f\xff\xc3\xa91"
	for range 1500 {
		word := make([]byte, random.IntN(12))
		for i := range word {
			word[i] = alphabet[random.IntN(len(alphabet))]
		}
		words = append(words, string(word))
	}
	line := QuoteAll(append([]string{self, "print-arguments"}, words...))
	for name, shell := range shells(t) {
		for _, locale := range []string{"C", "C.UTF-8"} {
			t.Run(name+" "+locale, func(t *testing.T) {
				cmd := exec.CommandContext(t.Context(), shell[0], append(slices.Clone(shell[1:]), line)...)
				cmd.Env = append(os.Environ(), quickExit, "LC_ALL="+locale, "HOME="+t.TempDir())
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v\n%s", err, &stderr)
				}
				got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
				if len(got) != len(words) {
					t.Fatalf("%d words became %d", len(words), len(got))
				}
				for i, word := range words {
					if got[i] != word {
						t.Errorf("%q became %q by way of %s", word, got[i], Quote(word))
					}
				}
			})
		}
	}
}

func TestQuoteAllRunsAnOddlyNamedProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, program := range []string{"a=b", "two words", "it's", "~", "#x"} {
		if err := os.Symlink(self, filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
		for name, shell := range shells(t) {
			cmd := exec.CommandContext(t.Context(), shell[0], append(slices.Clone(shell[1:]), QuoteAll([]string{program, "print-arguments", "x"}))...)
			cmd.Env = append(os.Environ(), quickExit, "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir)
			out, err := cmd.Output()
			if err != nil || string(out) != "x\x00" {
				t.Errorf("%s: %s: %q, %v", name, QuoteAll([]string{program}), out, err)
			}
		}
	}
}

func TestQuoteLeavesPlainWordsReadable(t *testing.T) {
	got := QuoteAll([]string{"nix-store", "--realise", "/nix/store/abc-x+y_1.2.drv", "--option", "a=b", "", "c d"})
	if want := `nix-store --realise /nix/store/abc-x+y_1.2.drv --option a=b '' 'c d'`; got != want {
		t.Errorf("got %s", got)
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range nasty {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.IndexByte(s, 0) >= 0 || len(s) > 10_000 {
			return
		}
		out, err := exec.Command("dash", "-c", "printf %s "+Quote("x"+s)).Output()
		if err != nil || string(out) != "x"+s {
			t.Errorf("%q became %q, %v", s, out, err)
		}
	})
}
