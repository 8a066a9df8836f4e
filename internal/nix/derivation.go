package nix

import (
	"fmt"
	"strings"
)

// Derivation is what the file of a derivation says.
type Derivation struct {
	Outputs map[string]Output
	// Inputs are the outputs that it takes of other derivations, by those. Sources are the store paths that it takes besides.
	Inputs  map[StorePath][]string
	Sources []StorePath
	System  string
	Builder string
	Args    []string
	Env     map[string]string
}

// Output is an output of a derivation. One whose Hash is known in advance is the same, whatever makes it.
type Output struct {
	Path StorePath // "" where it is not known before it is built
	Algo string    // with "r:" before it where Hash is that of the NAR
	Hash string
}

// MaxDerivation is how long the file of a derivation may be, in bytes.
const MaxDerivation = 8 << 20

// ParseDerivation reads the file of a derivation. It may come from another machine, and say anything.
func ParseDerivation(text string) (*Derivation, error) {
	if len(text) > MaxDerivation {
		return nil, fmt.Errorf("the derivation is longer than %d bytes", MaxDerivation)
	}
	r := &termReader{rest: text}
	d := &Derivation{Outputs: map[string]Output{}, Inputs: map[StorePath][]string{}, Env: map[string]string{}}
	r.expect("Derive(")
	r.list(func() {
		w := r.tuple(4)
		d.Outputs[w[0]] = Output{r.storePath(w[1]), w[2], w[3]}
	})
	r.expect(",")
	r.list(func() {
		r.expect("(")
		path := r.storePath(r.text())
		r.expect(",")
		d.Inputs[path] = r.texts()
		r.expect(")")
	})
	r.expect(",")
	for _, source := range r.texts() {
		d.Sources = append(d.Sources, r.storePath(source))
	}
	r.expect(",")
	d.System = r.text()
	r.expect(",")
	d.Builder = r.text()
	r.expect(",")
	d.Args = r.texts()
	r.expect(",")
	r.list(func() {
		w := r.tuple(2)
		d.Env[w[0]] = w[1]
	})
	r.expect(")")
	if r.err == nil && strings.TrimSpace(r.rest) != "" {
		r.fail()
	}
	if r.err != nil {
		return nil, r.err
	}
	return d, nil
}

// termReader reads the few forms of ATerms that derivations are written in. After an error it reads nothing more.
type termReader struct {
	rest string
	err  error
}

func (r *termReader) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("the derivation cannot be read at %q", shorten(r.rest))
	}
	r.rest = ""
}

func (r *termReader) expect(token string) {
	rest, found := strings.CutPrefix(r.rest, token)
	if !found || r.err != nil {
		r.fail()
		return
	}
	r.rest = rest
}

// list reads [a,b,c], with each as one element.
func (r *termReader) list(each func()) {
	r.expect("[")
	for first := true; r.err == nil; first = false {
		if rest, found := strings.CutPrefix(r.rest, "]"); found {
			r.rest = rest
			return
		}
		if !first {
			r.expect(",")
		}
		each()
	}
}

// tuple reads (a,b) of n texts.
func (r *termReader) tuple(n int) []string {
	words := make([]string, n)
	r.expect("(")
	for i := range words {
		if i > 0 {
			r.expect(",")
		}
		words[i] = r.text()
	}
	r.expect(")")
	return words
}

func (r *termReader) texts() []string {
	list := []string{}
	r.list(func() { list = append(list, r.text()) })
	return list
}

func (r *termReader) text() string {
	r.expect(`"`)
	end := 0
	escaped := false
	for end < len(r.rest) && r.rest[end] != '"' {
		if r.rest[end] == '\\' {
			escaped = true
			end++
		}
		end++
	}
	if end >= len(r.rest) {
		r.fail()
		return ""
	}
	text := r.rest[:end]
	r.rest = r.rest[end+1:]
	if !escaped {
		return text
	}
	return unescaped(text)
}

// unescaped is the text of a string that Nix has written, in a derivation or as a value, without its quotes.
func unescaped(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' && i+1 < len(text) {
			i++
			switch c = text[i]; c {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

// storePath checks a store path; an output may have none yet.
func (r *termReader) storePath(s string) StorePath {
	if s == "" || r.err != nil {
		return ""
	}
	path, err := ParseStorePath(s)
	if err != nil {
		r.err = fmt.Errorf("the derivation cannot be read: %w", err)
		r.rest = ""
	}
	return path
}
