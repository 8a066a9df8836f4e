package delta

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

const (
	// resume is how many equal bytes end a difference where both sides go on at the same distance.
	resume = 12
	// reach is how far behind the beginning of a difference that is looked for.
	reach = 256
	// shortest is the shortest match at another distance.
	shortest = 32
	// smallestBlock is the unit in which old contents are indexed, for contents of up to smallestBlock × maxBlocks bytes.
	smallestBlock = 16
	maxBlocks     = 1 << 20
	// filterWidth is how many times as many bits the filter has as the table has places, as a power of two.
	filterWidth = 3
)

// matcher finds what of new contents is in old ones. It is for one goroutine; its memory is used again.
type matcher struct {
	out    *writer
	table  []uint32 // by hash: number of a block of old, plus one
	filter []uint64 // by hash, in bits: whether there may be such a block
	hashed uint64   // how many bytes were hashed to find blocks of old files that are known by their signatures
}

// diff writes next as operations on old, which begins at the offset at in a base.
func (m *matcher) diff(next, old []byte, base int, at uint64) { m.diffFrom(next, old, base, at, 0) }

// diffFrom is diff where the beginning of next is likely to be at j in old.
func (m *matcher) diffFrom(next, old []byte, base int, at uint64, j int) {
	i := 0 // all before i is written; j is where in old it goes on if nothing has moved
	var index *blocks
	for i < len(next) {
		if n := common(next[i:], old[min(j, len(old)):]); n >= resume || n > 0 && n == len(next)-i {
			m.out.copy(base, at+uint64(j), uint64(n))
			i, j = i+n, j+n
			continue
		}
		if skip := together(next[i:], old[min(j, len(old)):]); skip > 0 {
			m.out.add(next[i : i+skip])
			i, j = i+skip, j+skip
			continue
		}
		if index == nil {
			index = m.index(old)
		}
		start, from, length := index.find(next, i, j)
		m.out.add(next[i:start])
		m.out.copy(base, at+uint64(from), uint64(length))
		i, j = start+length, from+length
	}
}

// common is how many bytes a and b have in common at their beginnings.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	// Large equal pieces are found by the fastest comparison that there is.
	for ; i+4096 <= n && bytes.Equal(a[i:i+4096], b[i:i+4096]); i += 4096 {
	}
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// together is how many bytes a and b differ in, at most, before they go on together; 0 if that is not near.
func together(a, b []byte) int {
	n := min(len(a), len(b), reach+resume)
	if len(a) == len(b) && len(a) <= reach {
		// Two ends of the same length: what is equal there may be short.
		tail := len(a)
		for tail > 0 && a[tail-1] == b[tail-1] {
			tail--
		}
		if tail < len(a) && len(a)-tail < resume {
			n = min(n, tail+resume)
			if found := equalRun(a[:n], b[:n]); found > 0 {
				return found
			}
			return max(tail, 1)
		}
	}
	return equalRun(a[:n], b[:n])
}

// equalRun is where the first resume equal bytes of a and b begin; 0 if there are none behind their beginning.
func equalRun(a, b []byte) int {
	run := 0
	for i := range a {
		if a[i] != b[i] {
			run = 0
		} else if run++; run == resume && i >= resume {
			return i + 1 - resume
		}
	}
	return 0
}

// blocks is an index of old contents by blocks of size bytes.
type blocks struct {
	old    []byte
	size   int
	table  []uint32
	filter []uint64
	shift  uint   // of a hash, for its place in filter
	drop   uint64 // multiplier to the power of size
}

// multiplier is an odd number with well mixed bits, the basis of the rolling hash modulo 2⁶⁴: of b₀b₁…bₙ it is Σ bᵢ·multiplier^(n-i).
const multiplier = 0x9E3779B97F4A7C15

func (m *matcher) index(old []byte) *blocks {
	b := &blocks{old: old, size: smallestBlock}
	for len(old)/b.size > maxBlocks {
		b.size *= 2
	}
	count := len(old) / b.size
	width := max(bits.Len(uint(count))+1, 6)
	if cap(m.table) < 1<<width {
		m.table, m.filter = make([]uint32, 1<<width), make([]uint64, 1<<(width+filterWidth)/64)
	}
	b.table, b.filter, b.shift = m.table[:1<<width], m.filter[:1<<(width+filterWidth)/64], uint(64-width-filterWidth)
	clear(b.table)
	clear(b.filter)
	b.drop = 1
	for range b.size {
		b.drop *= multiplier
	}
	// Backward, so that of equal blocks the first one stays: runs of zeros then match from their beginning.
	for n := count - 1; n >= 0; n-- {
		slot := b.slot(b.hash(old[n*b.size:]))
		b.table[slot>>filterWidth] = uint32(n + 1)
		b.filter[slot/64] |= 1 << (slot % 64)
	}
	return b
}

func (b *blocks) hash(p []byte) (h uint64) {
	for _, c := range p[:b.size] {
		h = h*multiplier + uint64(c) + 1
	}
	return h
}

// slot mixes the hash, whose lowest bits know only the last bytes.
func (b *blocks) slot(h uint64) uint64 { return (h ^ h>>29) * 0xBF58476D1CE4E5B9 >> b.shift }

// find finds the next match in next behind from i on: where it starts, where in old it is, and its length. If there is none it starts at
// the end of next with length 0. A match at the distance of j is preferred where it is as good.
func (b *blocks) find(next []byte, i, j int) (start, from, length int) {
	if len(b.old) < b.size || len(next)-i < b.size {
		return len(next), j, 0
	}
	h := b.hash(next[i:])
	for p := i; ; p++ {
		// Most that is looked for is not there, and the filter says so without a look at the table and old, which are too large
		// for the processor's cache.
		if slot := b.slot(h); b.filter[slot/64]&(1<<(slot%64)) != 0 {
			if n := b.table[slot>>filterWidth]; n > 0 {
				if start, from, length := b.extend(next, i, p, int(n-1)*b.size); length >= shortest {
					return start, from, length
				}
			}
		}
		// The distance of before may come back.
		if q := p - i + j; p > i && q+shortest <= len(b.old) && p+shortest <= len(next) &&
			binary.LittleEndian.Uint64(next[p:]) == binary.LittleEndian.Uint64(b.old[q:]) {
			if n := common(next[p:], b.old[q:]); n >= shortest {
				return p, q, n
			}
		}
		if p+b.size >= len(next) {
			return len(next), j, 0
		}
		h = h*multiplier + uint64(next[p+b.size]) + 1 - b.drop*(uint64(next[p])+1)
	}
}

// extend makes a match out of a block that may be equal, no further back than to i.
func (b *blocks) extend(next []byte, i, p, q int) (start, from, length int) {
	n := common(next[p:], b.old[q:])
	if n < b.size {
		return 0, 0, 0
	}
	back := 0
	for back < p-i && back < q && next[p-back-1] == b.old[q-back-1] {
		back++
	}
	return p - back, q - back, n + back
}
