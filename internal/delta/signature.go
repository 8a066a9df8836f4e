package delta

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
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
	path  nix.StorePath
	size  uint64
	files []signedFile
	sums  []blockSums // of all files, one after another
	seed  maphash.Seed
	// byPath and near find a file by the hash of its path, and of its path without versions; the first one. Who has made the
	// signature does not know the seed; two paths with one hash would only make a worse difference.
	byPath, near map[uint64]int32
}

// blockSums are the hashes of a block.
type blockSums struct {
	weak   uint32
	strong [strongSize]byte
}

// signedFile is a file of it.
type signedFile struct {
	content, size uint64
	block         int
	sums          []blockSums
}

// ErrNoRoom says that a signature needs more memory than there is for signatures.
var ErrNoRoom = errors.New("the signatures of old paths take too much memory")

// errSignature is a signature that breaks its format.
var errSignature = errors.New("the signature of an old path is broken")

// Room is how much memory signatures that are read one after another may take together while they live, in bytes. Who sends them
// may lie about everything, and compresses: how much has been read says nothing.
type Room struct{ Bytes int64 }

// fileRoom is what a file takes besides the sums of its blocks: its entry, in a slice that has grown, and one in each of two maps.
// sumRoom is what the sums of a block take.
const (
	fileRoom = 240
	sumRoom  = 12
)

func (r *Room) take(bytes int64) error {
	if r.Bytes -= bytes; r.Bytes < 0 {
		return ErrNoRoom
	}
	return nil
}

// ReadSignature reads the signature of path; nil if the other side cannot read it. What it takes in memory is taken from room;
// an error that is [ErrNoRoom] says that there was not enough.
func ReadSignature(ctx context.Context, r *bufio.Reader, path nix.StorePath, room *Room) (*Signature, error) {
	known, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, broken(err)
	}
	if known == 0 {
		return nil, nil
	}
	if err := room.take(fileRoom); err != nil {
		return nil, err
	}
	s := &Signature{path: path, seed: maphash.MakeSeed(), byPath: map[uint64]int32{}, near: map[uint64]int32{}}
	if s.size, err = binary.ReadUvarint(r); err != nil {
		return nil, broken(err)
	}
	if known != 1 || s.size > 1<<62 {
		return nil, errSignature
	}
	in := signatureReader{Signature: s, in: r, room: room, blocks: maxSignedBlocks}
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, broken(err)
		}
		if n == 0 {
			in.end()
			return s, nil
		}
		if len(s.files) == MaxEntries || n > maxSignedPath {
			return nil, errSignature
		}
		if err := in.file(ctx, int(n-1)); err != nil {
			return nil, err
		}
	}
}

// signatureReader reads a signature.
type signatureReader struct {
	*Signature
	in     *bufio.Reader
	room   *Room
	blocks uint64   // how many there may still be
	counts []uint32 // how many blocks each file has
	name   [maxSignedPath]byte
}

func (r *signatureReader) file(ctx context.Context, length int) error {
	name := r.name[:length]
	if _, err := io.ReadFull(r.in, name); err != nil {
		return broken(err)
	}
	var f signedFile
	var block uint64
	for _, n := range []*uint64{&f.content, &f.size, &block} {
		var err error
		if *n, err = binary.ReadUvarint(r.in); err != nil {
			return broken(err)
		}
	}
	// Small blocks of a large file would be more work than an honest signature is.
	if f.size < smallestSigned || f.content > r.Signature.size || f.size > r.Signature.size-f.content || block != uint64(blockSize(f.size)) {
		return errSignature
	}
	f.block = int(block)
	count := (f.size + block - 1) / block
	if count > r.blocks {
		return fmt.Errorf("%w: it has too many blocks", errSignature)
	}
	r.blocks -= count
	if err := r.room.take(fileRoom); err != nil {
		return err
	}
	if err := r.readSums(ctx, count); err != nil {
		return err
	}
	if at := maphash.Bytes(r.seed, name); r.byPath[at] == 0 {
		r.byPath[at] = int32(len(r.files) + 1)
	}
	if like := maphash.Bytes(r.seed, unversioned(name)); r.near[like] == 0 {
		r.near[like] = int32(len(r.files) + 1)
	}
	r.files, r.counts = append(r.files, f), append(r.counts, uint32(count))
	return nil
}

// readSums reads the sums of so many blocks. Memory comes as they do: a number that lies must not cost any.
func (r *signatureReader) readSums(ctx context.Context, count uint64) error {
	for i := range count {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var text [weakSize + strongSize]byte
		if _, err := io.ReadFull(r.in, text[:]); err != nil {
			return broken(err)
		}
		before := cap(r.sums)
		if len(r.sums) == before {
			// Asked for before it is there.
			more := max(before/4, 16)
			if err := r.room.take(int64(more) * sumRoom); err != nil {
				return err
			}
			r.sums = append(make([]blockSums, 0, before+more), r.sums...)
		}
		r.sums = append(r.sums, blockSums{binary.BigEndian.Uint32(text[:]), [strongSize]byte(text[weakSize:])})
	}
	return nil
}

// end gives each file its sums, which do not move any more.
func (r *signatureReader) end() {
	rest := r.sums
	for i, count := range r.counts {
		r.files[i].sums, rest = rest[:count:count], rest[count:]
	}
}

// file finds the file of a path; nil if there is none.
func (s *Signature) file(path string) *signedFile {
	if i := s.byPath[maphash.String(s.seed, path)]; i > 0 {
		return &s.files[i-1]
	}
	if i := s.near[maphash.Bytes(s.seed, unversioned([]byte(path)))]; i > 0 {
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

// workPerByte is how many bytes may be hashed for each byte of new contents to find old blocks in them. Honest old blocks take less
// than seven; blocks that were made to look alike, more without end.
const workPerByte = 16

// spareBlocks is how many blocks of an old file are looked for besides those that new contents of some length can be made of.
const spareBlocks = 1024

// search looks for the blocks of an old file in new contents.
type search struct {
	file *signedFile
	next []byte
	// from and to are the blocks that are looked for, at is the first of them with a hash.
	from, to int
	at       map[uint32]int
	drop     uint64 // multiplier to the power of the size of a block
	work     int    // how many bytes may still be hashed
}

// signed writes next, which begins at the offset begin of a file of so many bytes, as operations on blocks of an old file that is known by
// its signature. The work is bounded by the length of next, whatever the signature says. At the end of ctx the rest is written as it is.
func (m *matcher) signed(ctx context.Context, next []byte, base int, f *signedFile, begin, size uint64) {
	s := newSearch(next, f, begin, size)
	put, expected := 0, s.from // all of next before put is written; the block that goes on from there
	for p := 0; p < len(next) && ctx.Err() == nil; {
		if n := s.matches(p, expected); n > 0 {
			m.out.add(next[put:p])
			m.out.copy(base, f.content+uint64(expected)*uint64(f.block), uint64(n))
			p, put, expected = p+n, p+n, expected+1
			continue
		}
		k, q := s.find(p)
		if k < 0 {
			// What is left may be the end of the old file.
			if k, q = s.tail(p); k < 0 {
				break
			}
		}
		p, expected = q, k
	}
	m.out.add(next[put:])
	m.hashed += uint64(workPerByte*len(next) - max(s.work, 0))
}

func newSearch(next []byte, f *signedFile, begin, size uint64) *search {
	low, high := window(begin, uint64(len(next)), size, f.size)
	s := &search{file: f, next: next, from: int(low / uint64(f.block)), to: min(int((high+uint64(f.block)-1)/uint64(f.block)), len(f.sums)), drop: 1, work: workPerByte * len(next)}
	if most := 8*len(next)/f.block + spareBlocks; s.to-s.from > most {
		// Around the same place of the old file.
		middle := min(max(int(begin/uint64(f.block)), s.from), s.to)
		s.from = min(max(middle-most/2, s.from), s.to-most)
		s.to = s.from + most
	}
	s.at = make(map[uint32]int, max(s.to-s.from, 0))
	for k := s.to - 1; k >= s.from; k-- {
		s.at[f.sums[k].weak] = k
	}
	for range f.block {
		s.drop *= multiplier
	}
	return s
}

// hashes tells whether so many bytes may be hashed.
func (s *search) hashes(n int) bool {
	s.work -= n
	return s.work >= 0
}

// matches tells whether block k is in next at p, and how long it is; 0 if it is not.
func (s *search) matches(p, k int) int {
	f := s.file
	if k >= len(f.sums) {
		return 0
	}
	n := int(min(uint64(f.block), f.size-uint64(k)*uint64(f.block)))
	if n > len(s.next)-p || !s.hashes(n) {
		return 0
	}
	text := s.next[p : p+n]
	if weakHash(text) != f.sums[k].weak || !s.hashes(n) || strongHash(text) != f.sums[k].strong {
		return 0
	}
	return n
}

// find finds a whole block in next at p or behind it; -1: there is none.
func (s *search) find(p int) (k, q int) {
	block, next := s.file.block, s.next
	if len(next)-p < block || len(s.at) == 0 || !s.hashes(block) {
		return -1, 0
	}
	var h uint64
	for _, c := range next[p : p+block] {
		h = h*multiplier + uint64(c) + 1
	}
	for ; ; p++ {
		if k, found := s.at[uint32(h>>32)]; found {
			if s.matches(p, k) > 0 {
				return k, p
			}
			if s.work <= 0 {
				return -1, 0
			}
		}
		if p+block >= len(next) {
			return -1, 0
		}
		h = h*multiplier + uint64(next[p+block]) + 1 - s.drop*(uint64(next[p])+1)
	}
}

// tail tells whether next, behind p, ends with the old file's last block, which may be a short one.
func (s *search) tail(p int) (k, q int) {
	f := s.file
	k = len(f.sums) - 1
	if k < 0 {
		return -1, 0
	}
	n := int(f.size - uint64(k)*uint64(f.block))
	if q = len(s.next) - n; q <= p || s.matches(q, k) == 0 {
		return -1, 0
	}
	return k, q
}
