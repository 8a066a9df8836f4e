package run

import "strings"

// Quote returns s as one word of a command line that sh, bash, dash, zsh, ksh, busybox and fish all read as exactly s.
// The remote login shell is the user's choice, so the result uses only what those shells agree on: single quotes around
// everything but the single quote itself and the backslash (which fish treats as an escape inside single quotes); those
// two stand in double quotes. A NUL byte cannot be part of any command line; [Command.Check] refuses it.
func Quote(s string) string {
	if s == "" {
		return "''"
	}
	if isPlain(s) {
		return s
	}
	return quote(s)
}

func quote(s string) string {
	var b strings.Builder
	open := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\'', '\\':
			if open {
				b.WriteByte('\'')
				open = false
			}
			if c == '\'' {
				b.WriteString(`"'"`)
			} else {
				b.WriteString(`"\\"`)
			}
		default:
			if !open {
				b.WriteByte('\'')
				open = true
			}
			b.WriteByte(c)
		}
	}
	if open {
		b.WriteByte('\'')
	}
	return b.String()
}

// QuoteAll joins argv to one command line of words quoted by [Quote]. The first is read as the name of a program even if
// it looks like an assignment; no quotes hide a keyword from every shell, so no program may be called by one.
func QuoteAll(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = Quote(a)
		if i == 0 && words[i] == a && strings.Contains(a, "=") {
			words[i] = quote(a)
		}
	}
	return strings.Join(words, " ")
}

// isPlain tells whether no shell gives any byte of s a meaning. A leading tilde, equals sign or hash means something to
// some shell, so the set is kept small on purpose.
func isPlain(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("-_./:,@+", c) >= 0:
		case c == '=' && i > 0:
		default:
			return false
		}
	}
	return true
}
