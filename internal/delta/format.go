package delta

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The operations. An operation is a number in base 128 (see encoding/binary), whose two lowest bits are its kind, and the rest
// its length in bytes of the new NAR. What it copies from is a place in a base: each operation moves that place on by its length,
// because most of what differs has replaced something of the same length.
const (
	opAdd  = iota // the bytes come from the chunk's literals
	opNext        // copy from the place
	opSkip        // copy from the place moved on by a signed number, which follows
	opFrom        // copy from a place in a base: its index and the offset follow
)

const (
	// maxOps is how long the operations of a chunk may be in bytes; the reader holds those, and no literals.
	maxOps = 64 << 10
	// chunkOps and chunkLiterals are what the writer makes a chunk of, in bytes.
	chunkOps      = 32 << 10
	chunkLiterals = 1 << 20
	// longestOp is how long an operation may become in bytes.
	longestOp = 3 * binary.MaxVarintLen64
)

// writer makes chunks of operations. A chunk does not depend on those before it.
type writer struct {
	out      []byte
	ops      []byte
	literals []byte

	added  uint64 // bytes at the end of literals that have no operation yet
	copied span   // what was copied last, and has no operation yet
	base   int    // where the place is
	place  uint64
	inBase bool // there was a copy in this chunk

	stats Stats
}

// Stats says what became of a NAR's bytes.
type Stats struct {
	Copied, Added uint64 // bytes that were found in a base, and that were not
	Ops           int
}

type span struct {
	base           int
	offset, length uint64
}

// add says that p comes next.
func (w *writer) add(p []byte) {
	if len(p) == 0 {
		return
	}
	w.putCopy()
	for len(p) > 0 {
		n := min(len(p), chunkLiterals-len(w.literals))
		w.literals = append(w.literals, p[:n]...)
		w.added += uint64(n)
		if p = p[n:]; len(w.literals) >= chunkLiterals {
			w.putAdd()
			w.endChunk()
		}
	}
}

// copy says that length bytes of a base come next.
func (w *writer) copy(base int, offset, length uint64) {
	if length == 0 {
		return
	}
	if c := &w.copied; c.length > 0 && c.base == base && c.offset+c.length == offset {
		c.length += length
		return
	}
	w.putCopy()
	w.putAdd()
	w.copied = span{base, offset, length}
}

func (w *writer) putAdd() {
	if w.added == 0 {
		return
	}
	w.ops = binary.AppendUvarint(w.ops, w.added<<2) // opAdd is 0
	w.place += w.added
	w.stats.Added += w.added
	w.stats.Ops++
	w.added = 0
	w.endFullChunk()
}

func (w *writer) putCopy() {
	c := w.copied
	if c.length == 0 {
		return
	}
	w.copied = span{}
	switch {
	case !w.inBase || c.base != w.base:
		w.ops = binary.AppendUvarint(w.ops, c.length<<2|opFrom)
		w.ops = binary.AppendUvarint(binary.AppendUvarint(w.ops, uint64(c.base)), c.offset)
	case c.offset == w.place:
		w.ops = binary.AppendUvarint(w.ops, c.length<<2|opNext)
	default:
		w.ops = binary.AppendUvarint(w.ops, c.length<<2|opSkip)
		w.ops = binary.AppendVarint(w.ops, int64(c.offset)-int64(w.place))
	}
	w.base, w.place, w.inBase = c.base, c.offset+c.length, true
	w.stats.Copied += c.length
	w.stats.Ops++
	w.endFullChunk()
}

func (w *writer) endFullChunk() {
	if len(w.ops) >= chunkOps-longestOp {
		w.endChunk()
	}
}

func (w *writer) endChunk() {
	if len(w.ops) == 0 {
		return
	}
	w.out = append(append(binary.AppendUvarint(w.out, uint64(len(w.ops))), w.ops...), w.literals...)
	w.ops, w.literals = w.ops[:0], w.literals[:0]
	w.base, w.place, w.inBase = 0, 0, false
}

// end gives all chunks.
func (w *writer) end() []byte {
	w.putCopy()
	w.putAdd()
	w.endChunk()
	return w.out
}

// End is behind the last chunk of a NAR.
func End() []byte { return []byte{0} }

// ErrFormat is a difference that breaks its own format: no base is at fault.
var ErrFormat = errors.New("the difference is broken")

// Decode reads the chunks of one NAR of size bytes from r, up to their end, and writes the NAR to w. Errors are a [*ReadError]
// of a base, one that wraps [ErrFormat], or that of reading r or writing w.
func Decode(r *bufio.Reader, w io.Writer, size uint64, bases []*Reader) error {
	d := &decoder{in: r, out: w, left: size, bases: bases, buf: make([]byte, 64<<10)}
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return broken(err)
		}
		if n == 0 {
			break
		}
		if n > maxOps {
			return fmt.Errorf("%w: a chunk has %d bytes of operations", ErrFormat, n)
		}
		if err := d.chunk(int(n)); err != nil {
			return err
		}
	}
	if d.left > 0 {
		return fmt.Errorf("%w: %d bytes are missing", ErrFormat, d.left)
	}
	return nil
}

// broken tells a number that is none from a stream that has ended.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

type decoder struct {
	in    *bufio.Reader
	out   io.Writer
	left  uint64
	bases []*Reader
	ops   []byte
	buf   []byte

	base  int
	place uint64
}

func (d *decoder) chunk(n int) error {
	if cap(d.ops) < n {
		d.ops = make([]byte, maxOps)
	}
	d.ops = d.ops[:n]
	if _, err := io.ReadFull(d.in, d.ops); err != nil {
		return broken(err)
	}
	d.base, d.place = -1, 0
	for rest := d.ops; len(rest) > 0; {
		var err error
		if rest, err = d.op(rest); err != nil {
			return err
		}
	}
	return nil
}

// op does the first of some operations and gives the rest of them.
func (d *decoder) op(ops []byte) ([]byte, error) {
	word, ops, err := uvarint(ops)
	if err != nil {
		return nil, err
	}
	length := word >> 2
	if length == 0 || length > d.left {
		return nil, fmt.Errorf("%w: an operation of %d bytes, where %d are left", ErrFormat, length, d.left)
	}
	d.left -= length
	switch word & 3 {
	case opAdd:
		d.place += length
		return ops, d.literal(length)
	case opSkip:
		distance, n := binary.Varint(ops)
		if n <= 0 {
			return nil, fmt.Errorf("%w: a number is none", ErrFormat)
		}
		ops = ops[n:]
		d.place += uint64(distance)
	case opFrom:
		var index uint64
		if index, ops, err = uvarint(ops); err != nil {
			return nil, err
		}
		if d.place, ops, err = uvarint(ops); err != nil {
			return nil, err
		}
		if index >= uint64(len(d.bases)) {
			return nil, fmt.Errorf("%w: there is no base %d", ErrFormat, index)
		}
		d.base = int(index)
	}
	if d.base < 0 {
		return nil, fmt.Errorf("%w: a copy of no base", ErrFormat)
	}
	base := d.bases[d.base]
	if size := base.tree.size; d.place > size || length > size-d.place {
		// What is there now is not what the sender saw.
		return nil, &ReadError{base.tree.path, fmt.Errorf("it has %d bytes, and %d at %d are wanted", size, length, d.place)}
	}
	if err := base.Copy(d.out, d.place, length, d.buf); err != nil {
		return nil, err
	}
	d.place += length
	return ops, nil
}

func (d *decoder) literal(length uint64) error {
	for length > 0 {
		n := min(length, uint64(len(d.buf)))
		if _, err := io.ReadFull(d.in, d.buf[:n]); err != nil {
			return broken(err)
		}
		if _, err := d.out.Write(d.buf[:n]); err != nil {
			return err
		}
		length -= n
	}
	return nil
}

func uvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: a number is none", ErrFormat)
	}
	return v, b[n:], nil
}
