package secret

import "bytes"

// finder finds all of some words in a text. It looks at every other pair of bytes only: each word has two pairs, one of which is looked
// at wherever the word begins, and those are of the rarer kind in texts.
type finder struct {
	words [][]byte
	// known is, for each pair of bytes, where in suspects those are that have it; 0: none.
	known    [1 << 16]uint8
	suspects [][]suspect
	short    []int // words that are too short for that
}

// suspect is a word that has a pair at a place.
type suspect struct{ word, at int }

// newFinder makes a finder of words of two bytes or more.
func newFinder(words []string) *finder {
	f := &finder{suspects: make([][]suspect, 1)}
	for n, w := range words {
		f.words = append(f.words, []byte(w))
		if len(w) < 4 {
			f.short = append(f.short, n)
			continue
		}
		for first := range 2 {
			best := first
			for at := first; at+1 < len(w); at += 2 {
				if commonness(w[at])+commonness(w[at+1]) < commonness(w[best])+commonness(w[best+1]) {
					best = at
				}
			}
			pair := int(w[best])<<8 | int(w[best+1])
			if f.known[pair] == 0 {
				f.known[pair] = uint8(len(f.suspects))
				f.suspects = append(f.suspects, nil)
			}
			f.suspects[f.known[pair]] = append(f.suspects[f.known[pair]], suspect{n, best})
		}
	}
	return f
}

// commonness is about how often a byte is in texts.
func commonness(c byte) int {
	switch {
	case bytes.IndexByte([]byte("etaoinsr "), c) >= 0:
		return 4
	case c >= 'a' && c <= 'z':
		return 3
	case c >= '0' && c <= '9', c == '-', c == '"':
		return 2
	}
	return 1
}

// each calls found with each word that is in text and where it ends.
func (f *finder) each(text []byte, found func(word, end int)) {
	for i := 0; i+1 < len(text); i += 2 {
		known := f.known[uint16(text[i])<<8|uint16(text[i+1])]
		if known == 0 {
			continue
		}
		for _, s := range f.suspects[known] {
			if from := i - s.at; from >= 0 && bytes.HasPrefix(text[from:], f.words[s.word]) {
				found(s.word, from+len(f.words[s.word]))
			}
		}
	}
	for _, n := range f.short {
		for at := 0; ; {
			i := bytes.Index(text[at:], f.words[n])
			if i < 0 {
				break
			}
			at += i + len(f.words[n])
			found(n, at)
			at -= len(f.words[n]) - 1
		}
	}
}
