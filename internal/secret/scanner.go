// Package secret recognises private material in files: keys, tokens and password hashes, as they are and in the usual wrappings. It knows
// what can be told without false alarms; a password in a text file it cannot know. What is encrypted is no secret.
package secret

import (
	"bytes"
	"io"
	"sync/atomic"
)

// What a window of a file is looked at with: so much before and after a mark decides whether it is a secret.
const (
	before = 4 << 10
	after  = 4 << 10
)

// maxUnpacked is how much of what a compressed file unpacks to is looked at, in bytes, with all that is packed in it.
const maxUnpacked = 64 << 20

// unpacked reads what was packed, as long as something is left of what may be looked at.
type unpacked struct {
	io.Reader
	left *atomic.Int64
}

func (u unpacked) Read(p []byte) (int, error) {
	if u.left.Load() <= 0 {
		return 0, io.EOF
	}
	n, err := u.Reader.Read(p)
	u.left.Add(int64(-n))
	return n, err
}

// Scanner looks for private material in one file after the other. It holds no more of a file than a few parts.
type Scanner struct {
	table  *table
	name   string
	found  string
	at     int64 // how much of the file has been read
	window []byte
	wide   bool  // it is UTF-16
	depth  int   // how many wrappings it is in
	store  int64 // how long it has to be to be a key store; 0: it is none
	packed *packed
	// left is how many bytes may be unpacked yet of the file that this one is packed in, however deep; nil: it is in none.
	left *atomic.Int64
}

// New makes one.
func New() *Scanner { return &Scanner{table: newTable()} }

// Read takes the next part of the file at the path name, and last says that there are no more. When it is, kind names what was found, or
// is "". A name that differs from the one before begins another file.
func (s *Scanner) Read(name string, part []byte, last bool) (kind string) {
	if name != s.name || s.at < 0 {
		s.end()
		*s = Scanner{table: s.table, name: name, window: s.window[:0], depth: s.depth, left: s.left}
	}
	first := s.at == 0
	s.at += int64(len(part))
	if first && last {
		// Most files are one part, which needs no copy.
		s.whole(part)
	}
	if first && !last {
		s.store = keyStore(part)
	}
	if last && s.store == s.at && s.found == "" && !first {
		s.found = "PKCS #12 key store"
	}
	if first && s.depth < maxDepth {
		s.packed = s.unpack(part)
		s.wide = isWide(part)
	}
	if s.found == "" {
		s.look(part, first, last)
	}
	if s.packed != nil {
		s.packed.write(part)
	}
	if last {
		s.end()
		s.at = -1
	}
	return s.found
}

// end ends what unpacks the file.
func (s *Scanner) end() {
	if s.packed == nil {
		return
	}
	if kind := s.packed.close(); s.found == "" {
		s.found = kind
	}
	s.packed = nil
}

// look looks at the next part, and at what before it could be the beginning of something.
func (s *Scanner) look(part []byte, first, last bool) {
	window := part
	if s.wide {
		// What is of interest is ASCII.
		window = bytes.ReplaceAll(part, []byte{0}, nil)
	}
	if !first {
		s.window = append(s.window, window...)
		window = s.window
	}
	limit := len(window) - after
	if last {
		limit = len(window)
	}
	if limit > 0 {
		s.found = s.search(window, limit)
	}
	if last || s.found != "" {
		return
	}
	keep := window[max(0, limit-before):]
	s.window = append(s.window[:0], keep...)
}

// search looks at the marks that begin before limit.
func (s *Scanner) search(window []byte, limit int) string {
	s.table.marks.each(window, func(mark, end int) {
		k := s.table.kinds[mark]
		if at := end - len(k.mark); s.found == "" && at < limit && k.is(s, window, at) {
			s.found = k.name
		}
	})
	return s.found
}

// isWide tells whether text looks like UTF-16: by its mark, or because every other byte at the beginning is zero.
func isWide(text []byte) bool {
	if bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff}) {
		return true
	}
	if len(text) < 32 {
		return false
	}
	zeros := [2]int{}
	for i, c := range text[:32] {
		if c == 0 {
			zeros[i%2]++
		}
	}
	return zeros[0] == 0 && zeros[1] >= 15 || zeros[1] == 0 && zeros[0] >= 15
}

// packed unpacks a file while it is read, and looks at that.
type packed struct {
	in   *io.PipeWriter
	kind chan string
}

// unpack begins to unpack the file, which begins with part; nil if it is not compressed.
func (s *Scanner) unpack(part []byte) *packed {
	open := unpacker(part)
	if open == nil {
		return nil
	}
	out, in := io.Pipe()
	p := &packed{in: in, kind: make(chan string, 1)}
	name, of := s.name, Scanner{table: s.table, depth: s.depth, left: s.left}
	if of.left == nil {
		of.left = new(atomic.Int64)
		of.left.Store(maxUnpacked)
	}
	go func() {
		kind := open(&of, name, out)
		// The writer must not wait for a reader that has seen enough.
		_ = out.Close()
		p.kind <- kind
	}()
	return p
}

func (p *packed) write(part []byte) { _, _ = p.in.Write(part) }

func (p *packed) close() string {
	_ = p.in.Close()
	return <-p.kind
}

// inner is what is found in all of r that can be read, which is wrapped in what s reads.
func (s *Scanner) inner(name string, r io.Reader) string {
	in := Scanner{table: s.table, depth: s.depth + 1, left: s.left}
	buf := make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(r, buf)
		if kind := in.Read(name, buf[:n], err != nil); kind != "" || err != nil {
			in.end()
			return kind
		}
	}
}
