package delta

import "hash/fnv"

// pathIndex finds the entries of a tree by hashes of their paths. Two paths with one hash cost a bad difference, and nothing
// else.
type pathIndex struct {
	exact []uint64         // by entry
	like  []uint64         // by entry, of the path without what a new version changes in it
	at    map[uint64]int32 // the entry with an exact hash
	near  map[uint64]int32 // the first entry with a hash of like
}

func (t *Tree) index() *pathIndex {
	x := &pathIndex{
		exact: make([]uint64, len(t.entries)), like: make([]uint64, len(t.entries)),
		at: make(map[uint64]int32, len(t.entries)), near: make(map[uint64]int32, len(t.entries)),
	}
	for i, e := range t.entries {
		var above, aboveLike uint64
		if e.parent >= 0 {
			above, aboveLike = x.exact[e.parent], x.like[e.parent]
		}
		name := t.names[e.name : e.name+uint32(e.nameLen)]
		// What was a folder and is a file now has nothing of it.
		x.exact[i], x.like[i] = hashName(above, e.kind, name), hashName(aboveLike, e.kind, unversioned(name))
		x.at[x.exact[i]] = int32(i)
		if _, taken := x.near[x.like[i]]; !taken {
			x.near[x.like[i]] = int32(i)
		}
	}
	return x
}

func hashName(above uint64, k kind, name []byte) uint64 {
	if k == executable {
		k = regular
	}
	h := fnv.New64a()
	_, _ = h.Write(append([]byte{
		byte(above), byte(above >> 8), byte(above >> 16), byte(above >> 24), byte(above >> 32), byte(above >> 40), byte(above >> 48), byte(above >> 56), byte(k),
	}, name...))
	return h.Sum64()
}

// unversioned is a name with every run of digits, and dots between digits, as one #.
func unversioned(name []byte) []byte {
	isDigit := func(i int) bool { return i >= 0 && i < len(name) && name[i] >= '0' && name[i] <= '9' }
	var out []byte
	for i, c := range name {
		switch {
		case isDigit(i) || c == '.' && isDigit(i-1) && isDigit(i+1):
			if len(out) == 0 || out[len(out)-1] != '#' {
				out = append(out, '#')
			}
		default:
			out = append(out, c)
		}
	}
	return out
}

// partner is an entry of a base; base < 0: none.
type partner struct {
	base  int
	entry int32
}

// pairByPath gives each entry of next the one of the same path in a base, the bases in their order, else the first of a path that is
// the same but for versions.
func pairByPath(next *Tree, bases []*Tree) []partner {
	partners := make([]partner, len(next.entries))
	x := next.lookup()
	for i := range partners {
		partners[i] = partner{base: -1}
	}
	for _, exact := range []bool{true, false} {
		for b, base := range bases {
			of := base.lookup()
			for i := range partners {
				if partners[i].base >= 0 {
					continue
				}
				k, found := of.near[x.like[i]]
				if exact {
					k, found = of.at[x.exact[i]]
				}
				if found {
					partners[i] = partner{b, k}
				}
			}
		}
	}
	return partners
}

// Finder finds files wherever they are in some trees: what was renamed, moved, split or merged. It is for one goroutine.
type Finder struct {
	bySize map[uint64][]place
	byName map[uint64][]place
}

// place is an entry of a tree.
type place struct {
	tree  *Tree
	entry int32
}

// worthFinding is the size in bytes from which on a file is looked for.
const worthFinding = 1 << 10

// mostAlike bounds how many files of one size or name are looked at.
const mostAlike = 16

// NewFinder makes a finder of the files of trees.
func NewFinder(trees []*Tree) *Finder {
	f := &Finder{bySize: map[uint64][]place{}, byName: map[uint64][]place{}}
	for _, t := range trees {
		for i, e := range t.entries {
			if e.kind > executable || e.size < worthFinding {
				continue
			}
			p := place{t, int32(i)}
			if of := f.bySize[e.size]; len(of) < mostAlike {
				f.bySize[e.size] = append(of, p)
			}
			name := fileName(t, int32(i))
			if of := f.byName[name]; len(of) < mostAlike {
				f.byName[name] = append(of, p)
			}
		}
	}
	return f
}

func fileName(t *Tree, i int32) uint64 {
	e := t.entries[i]
	name := t.names[e.name : e.name+uint32(e.nameLen)]
	if len(name) == 0 && len(t.path) > 44 {
		name = []byte(t.path.Name())
	}
	return hashName(0, regular, unversioned(name))
}

// find looks for a file that is like the entry of next: one with the same contents at places that are looked at, else one of
// the same name and about the same size.
func (f *Finder) find(next *Tree, i int32) (place, bool) {
	e := next.entries[i]
	if e.kind > executable || e.size < worthFinding {
		return place{}, false
	}
	r := next.NewReader()
	defer r.Close()
	name := fileName(next, i)
	if same := f.bySize[e.size]; len(same) > 0 {
		want := sample(r, i)
		for _, p := range same {
			if fileName(p.tree, p.entry) == name && alike(p, want) {
				return p, true
			}
		}
		for _, p := range same {
			if alike(p, want) {
				return p, true
			}
		}
	}
	var best place
	for _, p := range f.byName[name] {
		size := p.tree.entries[p.entry].size
		if size > 4*e.size || e.size > 4*size {
			continue
		}
		if best.tree == nil || distance(size, e.size) < distance(best.tree.entries[best.entry].size, e.size) {
			best = p
		}
	}
	return best, best.tree != nil
}

func distance(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// samples is how many places of a file are compared, of sampleSize bytes each.
const (
	samples    = 4
	sampleSize = 128
)

// sample reads from some places of a file.
func sample(r *Reader, i int32) [][]byte {
	e := r.tree.entries[i]
	var all [][]byte
	for n := range uint64(samples) {
		p := make([]byte, min(sampleSize, e.size))
		if err := r.contents(i, p, (e.size-uint64(len(p)))*n/(samples-1)); err != nil {
			return nil
		}
		all = append(all, p)
	}
	return all
}

// alike tells whether half of the places are equal.
func alike(p place, want [][]byte) bool {
	r := p.tree.NewReader()
	defer r.Close()
	equal := 0
	for n, part := range sample(r, p.entry) {
		if n < len(want) && string(part) == string(want[n]) {
			equal++
		}
	}
	return equal >= samples/2
}
