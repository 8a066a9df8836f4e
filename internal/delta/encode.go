package delta

import (
	"context"
	"slices"

	"ferry/internal/nix"
)

// Encoder says how a tree differs from bases. It is for one goroutine, but its jobs may be done by several at once.
type Encoder struct {
	next     *Tree
	bases    []*Tree
	partners []partner
	// paths and signed are instead of bases, where those are not on this machine: the bases' names, and by entry the file that
	// it is compared with.
	paths  []nix.StorePath
	signed []*signedFile
}

// MaxBases is how many bases a path may have, and MaxBaseEntries how many entries these may have together: the target's
// agent keeps their layouts in memory.
const (
	MaxBases       = 64
	MaxBaseEntries = MaxEntries
)

// NewEncoder pairs what is in next with what is in bases, the likeliest base first.
func NewEncoder(next *Tree, bases []*Tree) *Encoder {
	return &Encoder{next: next, bases: slices.Clone(bases), partners: pairByPath(next, bases)}
}

// Alone is how many bytes of files have no partner.
func (e *Encoder) Alone() (bytes uint64) {
	for i, p := range e.partners {
		if p.base < 0 {
			bytes += e.next.entries[i].size
		}
	}
	return bytes
}

// Find looks for partners of the files that have none, anywhere.
func (e *Encoder) Find(f *Finder) {
	room := MaxBaseEntries
	for _, b := range e.bases {
		room -= len(b.entries)
	}
	for i, p := range e.partners {
		if p.base >= 0 {
			continue
		}
		found, ok := f.find(e.next, int32(i))
		if !ok {
			continue
		}
		base := slices.Index(e.bases, found.tree)
		if base < 0 {
			if len(e.bases) == MaxBases || len(found.tree.entries) > room {
				continue
			}
			base = len(e.bases)
			room -= len(found.tree.entries)
			e.bases = append(e.bases, found.tree)
		}
		e.partners[i] = partner{base, found.entry}
	}
}

// Bases are the paths that the operations name, by number; none: there is nothing to copy from.
func (e *Encoder) Bases() []nix.StorePath {
	paths, paired := e.paths, false
	for _, b := range e.bases {
		paths = append(paths, b.path)
	}
	for i, p := range e.partners {
		paired = paired || p.base >= 0 && e.next.entries[i].kind <= executable
	}
	if !paired {
		return nil
	}
	return paths
}

// Job is a piece of a NAR.
type Job struct {
	encoder  *Encoder
	from, to int    // entries; to may be one more than there are: what closes the NAR
	begin    uint64 // range of the NAR
	end      uint64
}

// The sizes of jobs in bytes of the NAR: entries are gathered up to jobSize, and large files cut into pieces of pieceSize, each of
// which is compared with as much of the old file as is a window: windowMargin more on both sides.
const (
	jobSize      = 1 << 20
	pieceSize    = 8 << 20
	windowMargin = 8 << 20
)

// Jobs cuts the NAR into pieces, in its order.
func (e *Encoder) Jobs() []Job {
	var jobs []Job
	t := e.next
	for i := 0; i <= len(t.entries); {
		from, begin := i, t.start(i)
		end := begin
		for ; i <= len(t.entries) && end-begin < jobSize; i++ {
			if i < len(t.entries) && t.entries[i].size > pieceSize {
				if i > from {
					break
				}
				// Its own jobs; the frame is in the first.
				large := t.entries[i]
				for at := begin; at < large.content+large.size; at = end {
					end = min(max(at, large.content)+pieceSize, large.content+large.size)
					jobs = append(jobs, Job{e, i, i + 1, at, end})
				}
				from = -1
				i++
				break
			}
			if end = t.size; i < len(t.entries) {
				end = t.start(i + 1)
			}
		}
		if from >= 0 && end > begin {
			jobs = append(jobs, Job{e, from, i, begin, end})
		}
	}
	return jobs
}

// JobsFrom is Jobs without what comes before an offset of the NAR, as far as it can be left out.
func (e *Encoder) JobsFrom(offset uint64) []Job {
	jobs := e.Jobs()
	for len(jobs) > 0 && jobs[0].end <= offset {
		jobs = jobs[1:]
	}
	if len(jobs) == 0 {
		return nil
	}
	first := &jobs[0]
	for first.from+1 < first.to && e.next.start(first.from+1) <= offset {
		first.from++
		first.begin = e.next.start(first.from)
	}
	// Within a file's contents a job may begin anywhere.
	if first.from < len(e.next.entries) && first.begin < offset && e.next.entries[first.from].content <= offset {
		first.begin = offset
	}
	return jobs
}

// Begin is where the job begins in the NAR.
func (j Job) Begin() uint64 { return j.begin }

// Coder does jobs. It is for one goroutine; it keeps its memory for the next job.
type Coder struct {
	match    matcher
	raw, old []byte
}

// Encode gives the chunks of a job. That the new path cannot be read is an error; a base that cannot be read is not used.
func (c *Coder) Encode(ctx context.Context, j Job) ([]byte, Stats, error) {
	if err := ctx.Err(); err != nil {
		return nil, Stats{}, err
	}
	t := j.encoder.next
	r := t.NewReader()
	defer r.Close()
	c.raw = grow(c.raw, j.end-j.begin)
	if err := r.ReadAt(c.raw, j.begin); err != nil {
		return nil, Stats{}, err
	}
	w := &writer{}
	c.match.out = w
	readers := map[int]*Reader{}
	defer func() {
		for _, r := range readers {
			r.Close()
		}
	}()
	raw := c.raw
	for i := j.from; i < j.to && len(raw) > 0; i++ {
		if start := t.start(i); j.begin <= start {
			var frame uint64
			if i < len(t.entries) {
				frame = t.entries[i].content - start
			} else {
				frame = t.size - start
			}
			c.frame(j.encoder, i, raw[:frame])
			raw = raw[frame:]
		}
		if i == len(t.entries) {
			break
		}
		e := t.entries[i]
		// All of the file, or the piece of it that the job is about.
		begin := max(j.begin, e.content) - e.content
		n := min(e.size-begin, uint64(len(raw)))
		c.contents(ctx, j.encoder, i, raw[:n], begin, readers)
		raw = raw[n:]
	}
	if err := ctx.Err(); err != nil {
		return nil, Stats{}, err
	}
	out := w.end()
	if s := w.stats; s.Copied < s.Added/32 || s.Copied < uint64(s.Ops)*worthAnOp {
		// What is copied is worth less than what the operations cost the compression of the rest.
		w = &writer{}
		w.add(c.raw)
		out = w.end()
	}
	return out, w.stats, nil
}

// worthAnOp is how many bytes an operation has to stand for.
const worthAnOp = 16

func grow(b []byte, n uint64) []byte {
	if uint64(cap(b)) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// frame writes what stands before the contents of entry i.
func (c *Coder) frame(e *Encoder, i int, text []byte) {
	w := c.match.out
	base, k := -1, 0
	switch {
	case e.signed != nil:
		// Nothing is known of what is between the files.
	case i < len(e.partners):
		base, k = e.partners[i].base, int(e.partners[i].entry)
	case len(e.bases) > 0:
		base, k = 0, len(e.bases[0].entries)
	}
	if base < 0 {
		w.add(text)
		return
	}
	at := e.bases[base].start(k)
	old := e.bases[base].frame(nil, k)
	before := common(text, old)
	if before < shortest && before < len(text) {
		before = 0
	}
	w.copy(base, at, uint64(before))
	text, old, at = text[before:], old[before:], at+uint64(before)
	after := 0
	for after < min(len(text), len(old)) && text[len(text)-1-after] == old[len(old)-1-after] {
		after++
	}
	if after < shortest {
		after = 0
	}
	w.add(text[:len(text)-after])
	w.copy(base, at+uint64(len(old)-after), uint64(after))
}

// contents writes a file's contents that begin at offset begin in it.
func (c *Coder) contents(ctx context.Context, e *Encoder, i int, text []byte, begin uint64, readers map[int]*Reader) {
	p := e.partners[i]
	if p.base < 0 || len(text) == 0 {
		c.match.out.add(text)
		return
	}
	if e.signed != nil {
		c.match.signed(ctx, text, p.base, e.signed[i], begin, e.next.entries[i].size)
		return
	}
	base := e.bases[p.base]
	old := base.entries[p.entry]
	from, to := window(begin, uint64(len(text)), e.next.entries[i].size, old.size)
	if old.kind > executable || from >= to {
		c.match.out.add(text)
		return
	}
	r := readers[p.base]
	if r == nil {
		r = base.NewReader()
		readers[p.base] = r
	}
	c.old = grow(c.old, to-from)
	if err := r.contents(p.entry, c.old, from); err != nil {
		c.match.out.add(text)
		return
	}
	at := old.content + from
	// Where in the window the same place of the old file is.
	c.match.diffFrom(text, c.old, p.base, at, int(min(max(begin, from), to)-from))
}

// window is the range of an old file to compare a piece of a new one with: around the same distance from the beginning, and the
// same proportion of the whole. A file of ordinary size is compared with all of the old one.
func window(begin, length, size, old uint64) (from, to uint64) {
	if size <= pieceSize && old <= 3*pieceSize {
		return 0, old
	}
	scaled := uint64(float64(begin) / float64(size) * float64(old))
	low, high := min(begin, scaled), max(begin, scaled)
	low -= min(low, windowMargin)
	high = min(high+length+windowMargin, old)
	const most = pieceSize + 4*windowMargin
	if high > low+most {
		// They are too far apart: the same distance from the beginning is likelier.
		low = begin - min(begin, windowMargin)
		high = min(low+length+2*windowMargin, old)
	}
	return low, high
}

// Add adds the figures of another piece.
func (s Stats) Add(o Stats) Stats {
	return Stats{s.Copied + o.Copied, s.Added + o.Added, s.Ops + o.Ops}
}
