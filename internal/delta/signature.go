package delta

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"ferry/internal/nix"
)

// A signature says what is in an old path to a machine that does not have it: for each file where its contents are in the NAR and
// two hashes of each of its blocks. It is for one path:
//
//	0, or: 1, size of the NAR, files, 0
//
// with 0 for a path that cannot be read. A file is the length of its path in the tree plus one, the path, the offset of its contents in the NAR, their
// size, the size of a block, and for each block, the last of which may be shorter, four bytes of the rolling hash and six of SHA-256. Numbers
// are in base 128 as in differences. Files that are smaller than smallestSigned are left out.
const (
	smallestSigned  = 64
	smallestBlocks  = 512
	largestBlocks   = 8 << 10
	weakSize        = 4
	strongSize      = 6
	maxSignedPath   = 4096
	maxSignedBlocks = 16 << 20 // of one path
)

// blockSize makes a file's signature about as long as what one changed place in it costs, within limits.
func blockSize(size uint64) int {
	return min(max(1<<((bits.Len64(size)+1)/2), smallestBlocks), largestBlocks)
}

// WriteSignature writes the signature of a tree. A path that cannot be read in the middle is an error: what was written is of no
// use then.
func WriteSignature(ctx context.Context, w *bufio.Writer, t *Tree) error {
	out := signer{w: w}
	out.number(1)
	out.number(t.size)
	r := t.NewReader()
	defer r.Close()
	buf := make([]byte, largestBlocks)
	for i, e := range t.entries {
		if e.kind > executable || e.size < smallestSigned {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		path := t.pathOf(int32(i))
		block := blockSize(e.size)
		out.number(uint64(len(path)) + 1)
		out.bytes([]byte(path))
		out.number(e.content)
		out.number(e.size)
		out.number(uint64(block))
		for at := uint64(0); at < e.size; at += uint64(block) {
			p := buf[:min(uint64(block), e.size-at)]
			if err := r.contents(int32(i), p, at); err != nil {
				return &ReadError{t.path, err}
			}
			strong := strongHash(p)
			out.bytes(binary.BigEndian.AppendUint32(nil, weakHash(p)))
			out.bytes(strong[:])
		}
		if out.err != nil {
			return out.err
		}
	}
	out.number(0)
	return out.err
}

// WriteNoSignature says that a path cannot be read.
func WriteNoSignature(w *bufio.Writer) error { return w.WriteByte(0) }

// signer writes numbers and bytes until something fails.
type signer struct {
	w   *bufio.Writer
	err error
}

func (s *signer) number(n uint64) { s.bytes(binary.AppendUvarint(nil, n)) }

func (s *signer) bytes(p []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
}

func strongHash(p []byte) (h [strongSize]byte) {
	sum := sha256.Sum256(p)
	copy(h[:], sum[:])
	return h
}

// weakHash is the upper half of the rolling hash of multiplier, which can be moved on by a byte (see blocks.find).
func weakHash(p []byte) uint32 {
	var h uint64
	for _, c := range p {
		h = h*multiplier + uint64(c) + 1
	}
	return uint32(h >> 32)
}

// Signature is what is known of an old path that is not on this machine.
type Signature struct {
	path   nix.StorePath
	size   uint64
	files  []signedFile
	byPath map[string]int
	near   map[string]int // by the path without versions; the first one
}

// signedFile is a file of it.
type signedFile struct {
	content, size uint64
	block         int
	weak          []uint32
	strong        [][strongSize]byte
}

// errSignature is a signature that breaks its format.
var errSignature = errors.New("the signature of an old path is broken")

// ReadSignature reads the signature of path; nil if the other side cannot read it. What it takes in memory is bounded.
func ReadSignature(r *bufio.Reader, path nix.StorePath) (*Signature, error) {
	known, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, broken(err)
	}
	if known == 0 {
		return nil, nil
	}
	s := &Signature{path: path, byPath: map[string]int{}, near: map[string]int{}}
	if s.size, err = binary.ReadUvarint(r); err != nil {
		return nil, broken(err)
	}
	if known != 1 || s.size > 1<<62 {
		return nil, errSignature
	}
	blocks := uint64(0)
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, broken(err)
		}
		if n == 0 {
			return s, nil
		}
		if len(s.files) == MaxEntries || n > maxSignedPath {
			return nil, errSignature
		}
		if err := s.readFile(r, int(n-1), &blocks); err != nil {
			return nil, err
		}
	}
}

func (s *Signature) readFile(r *bufio.Reader, length int, blocks *uint64) error {
	name := make([]byte, length)
	if _, err := io.ReadFull(r, name); err != nil {
		return broken(err)
	}
	var f signedFile
	var block uint64
	for _, n := range []*uint64{&f.content, &f.size, &block} {
		var err error
		if *n, err = binary.ReadUvarint(r); err != nil {
			return broken(err)
		}
	}
	if f.content > s.size || f.size > s.size-f.content || block < smallestBlocks || block > largestBlocks {
		return errSignature
	}
	f.block = int(block)
	count := (f.size + block - 1) / block
	if *blocks += count; *blocks > maxSignedBlocks {
		return fmt.Errorf("%w: it has too many blocks", errSignature)
	}
	// Not count at once: a number that lies must not cost memory.
	for range count {
		var sums [weakSize + strongSize]byte
		if _, err := io.ReadFull(r, sums[:]); err != nil {
			return broken(err)
		}
		f.weak = append(f.weak, binary.BigEndian.Uint32(sums[:]))
		f.strong = append(f.strong, [strongSize]byte(sums[weakSize:]))
	}
	s.byPath[string(name)] = len(s.files)
	if like := string(unversioned(name)); s.near[like] == 0 {
		s.near[like] = len(s.files) + 1
	}
	s.files = append(s.files, f)
	return nil
}

// file finds the file of a path; nil if there is none.
func (s *Signature) file(path string) *signedFile {
	if i, found := s.byPath[path]; found {
		return &s.files[i]
	}
	if i := s.near[string(unversioned([]byte(path)))]; i > 0 {
		return &s.files[i-1]
	}
	return nil
}

// NewSignedEncoder is [NewEncoder] for old paths that are not on this machine.
func NewSignedEncoder(next *Tree, old []*Signature) *Encoder {
	e := &Encoder{next: next, partners: make([]partner, len(next.entries)), signed: make([]*signedFile, len(next.entries))}
	for i, entry := range next.entries {
		e.partners[i] = partner{base: -1}
		if entry.kind > executable || entry.size < smallestSigned {
			continue
		}
		path := next.pathOf(int32(i))
		for b, s := range old {
			if f := s.file(path); f != nil {
				e.partners[i], e.signed[i] = partner{base: b}, f
				break
			}
		}
	}
	for _, s := range old {
		e.paths = append(e.paths, s.path)
	}
	return e
}

// signed writes next as operations on blocks of an old file that is known by its signature.
func (m *matcher) signed(next []byte, base int, f *signedFile) {
	at := make(map[uint32]int, len(f.weak)) // the first block with a hash
	for k := len(f.weak) - 1; k >= 0; k-- {
		at[f.weak[k]] = k
	}
	drop := uint64(1)
	for range f.block {
		drop *= multiplier
	}
	put, expected := 0, 0 // all of next before put is written; the block that goes on from there
	for p := 0; p < len(next); {
		if n := f.matches(next[p:], expected); n > 0 {
			m.out.add(next[put:p])
			m.out.copy(base, f.content+uint64(expected)*uint64(f.block), uint64(n))
			p, put, expected = p+n, p+n, expected+1
			continue
		}
		k, q := f.search(next, p, at, drop)
		if k < 0 {
			// What is left may be the end of the old file.
			if k, q = f.tail(next[p:]); k < 0 {
				break
			}
			q += p
		}
		p, expected = q, k
	}
	m.out.add(next[put:])
}

// matches tells whether next begins with block k, and how long that is; 0 if it does not.
func (f *signedFile) matches(next []byte, k int) int {
	if k >= len(f.weak) {
		return 0
	}
	n := int(min(uint64(f.block), f.size-uint64(k)*uint64(f.block)))
	if n > len(next) || weakHash(next[:n]) != f.weak[k] || strongHash(next[:n]) != f.strong[k] {
		return 0
	}
	return n
}

// search finds a whole block in next at p or behind it; -1: there is none.
func (f *signedFile) search(next []byte, p int, at map[uint32]int, drop uint64) (k, q int) {
	if len(next)-p < f.block {
		return -1, 0
	}
	var h uint64
	for _, c := range next[p : p+f.block] {
		h = h*multiplier + uint64(c) + 1
	}
	for ; ; p++ {
		if k, found := at[uint32(h>>32)]; found && f.matches(next[p:], k) > 0 {
			return k, p
		}
		if p+f.block >= len(next) {
			return -1, 0
		}
		h = h*multiplier + uint64(next[p+f.block]) + 1 - drop*(uint64(next[p])+1)
	}
}

// tail tells whether next ends with the old file's last block, which may be a short one.
func (f *signedFile) tail(next []byte) (k, q int) {
	k = len(f.weak) - 1
	if k < 0 {
		return -1, 0
	}
	n := int(f.size - uint64(k)*uint64(f.block))
	if q = len(next) - n; q <= 0 || f.matches(next[q:], k) == 0 {
		return -1, 0
	}
	return k, q
}
