package ship

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"ferry/internal/delta"
	"ferry/internal/nix"
)

// encoding makes the differences of a plan's paths ahead of their being sent, on all cores: one goroutine pairs the paths in
// their order and cuts them into pieces, several encode pieces, and the sender takes them in the order again.
type encoding struct {
	parcels chan *parcel
	pieces  chan *piece
	// room bounds the pieces that are encoded and not sent.
	room    chan struct{}
	workers sync.WaitGroup
	cancel  context.CancelFunc
}

// parcel is one path on its way.
type parcel struct {
	info   nix.PathInfo
	bases  []nix.StorePath // none: the NAR is sent as it is
	pieces []*piece
	// ready is the whole difference, if it is known from another node.
	ready *encoded
	key   string // for the Memory; "": it is not kept
	// from is where in the NAR it goes on.
	from uint64
	// shared is the same path on its way to other nodes; nil: it is made for this one alone.
	shared *shared
	err    error
}

// piece is a part of a parcel's difference.
type piece struct {
	job delta.Job
	// shared, unless nil, has it under the number index.
	shared *shared
	index  int
	done   chan struct{}
	out    []byte
	stats  delta.Stats
	err    error
}

// maxWorkers bounds the memory that encoding takes: each worker holds some 60 MB when it works on large files.
const maxWorkers = 8

// encode begins to encode the plan's paths. The caller takes all parcels, or stops; it stops in any case.
func (p *Plan) encode(ctx context.Context) *encoding {
	ctx, cancel := context.WithCancel(ctx)
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	e := &encoding{
		parcels: make(chan *parcel, 64), pieces: make(chan *piece, 2*workers), room: make(chan struct{}, 3*workers), cancel: cancel,
	}
	e.workers.Go(func() {
		defer close(e.parcels)
		defer close(e.pieces)
		e.prepare(ctx, p)
	})
	for range workers {
		e.workers.Go(func() {
			coder := &delta.Coder{}
			for piece := range e.pieces {
				piece.encode(ctx, coder)
				close(piece.done)
			}
		})
	}
	return e
}

// stop ends the encoding and waits for its end.
func (e *encoding) stop() {
	e.cancel()
	e.workers.Wait()
	for p := range e.parcels {
		p.leave()
	}
}

// leave says that the parcel is on its way, or will not be: others need not share with it.
func (p *parcel) leave() {
	if p.shared != nil {
		p.shared.leave()
		p.shared = nil
	}
}

func (p *piece) encode(ctx context.Context, coder *delta.Coder) {
	if p.shared != nil {
		p.out, p.stats, p.err = p.shared.encode(ctx, coder, p.index)
		return
	}
	p.out, p.stats, p.err = coder.Encode(ctx, p.job)
}

// prepare pairs the paths in their order.
func (e *encoding) prepare(ctx context.Context, p *Plan) {
	library := &library{known: p.Known, trees: map[nix.StorePath]*delta.Tree{}}
	pairs := newPairs(p.Known)
	for _, info := range p.Missing {
		parcel := &parcel{info: info}
		if p.Parked != nil && p.Parked.Path == info.Path {
			parcel.from = p.Parked.Offset
		}
		switch signed := p.signaturesFor(info); {
		case p.Whole[info.Path]:
		case len(signed) > 0:
			parcel.pairSigned(ctx, signed)
		case len(p.Known) > 0 && info.NarSize >= smallest:
			library.pair(ctx, p.Memory, parcel, pairs.of(info))
		}
		pieces := parcel.pieces
		select {
		case e.parcels <- parcel:
		case <-ctx.Done():
			parcel.leave()
			return
		}
		for _, piece := range pieces {
			select {
			case e.room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			select {
			case e.pieces <- piece:
			case <-ctx.Done():
				return
			}
		}
	}
}

// library is what the target has, as this machine has it too.
type library struct {
	known  []nix.PathInfo
	trees  map[nix.StorePath]*delta.Tree // nil: it cannot be used
	finder *delta.Finder
}

// worthFinding is how many bytes of a path have to be without a partner before all of what the target has is looked through.
const worthFinding = 128 << 10

// pair finds what a parcel's path is made from.
func (l *library) pair(ctx context.Context, memory *Memory, p *parcel, bases []nix.StorePath) {
	if p.from == 0 {
		p.key = memoryKey(p.info, bases)
	}
	if p.ready = memory.get(p.key, l.has); p.ready != nil {
		p.bases = p.ready.bases
		return
	}
	shared, first := memory.share(p.key)
	if shared != nil && !first {
		if shared.await(ctx, l.has) {
			p.shared, p.bases = shared, shared.bases
			p.take(shared.jobs)
			return
		}
		shared.leave()
		shared = nil
	}
	p.shared = shared
	jobs := l.jobs(ctx, p, bases)
	if shared != nil {
		shared.pair(p.bases, jobs)
	}
	p.take(jobs)
}

// jobs says what bases a parcel's path is made from, if any, and how.
func (l *library) jobs(ctx context.Context, p *parcel, bases []nix.StorePath) []delta.Job {
	// A tree of many files takes long, on either side: they are walked side by side.
	opened := make(chan *delta.Tree, 1)
	go func() { opened <- p.open(ctx) }()
	var trees []*delta.Tree
	entries := 0
	for _, base := range bases {
		tree := l.open(ctx, base)
		if tree == nil || entries+tree.Entries() > delta.MaxBaseEntries {
			continue
		}
		entries += tree.Entries()
		trees = append(trees, tree)
	}
	next := <-opened
	if next == nil {
		return nil
	}
	encoder := delta.NewEncoder(next, trees)
	if encoder.Alone() >= worthFinding {
		encoder.Find(l.find(ctx))
	}
	return p.cut(encoder)
}

// open gives the layout of the path itself; nil if it has failed, or cannot be sent as a difference.
func (p *parcel) open(ctx context.Context) *delta.Tree {
	next, err := delta.OpenTree(ctx, p.info.Path)
	if errors.Is(err, delta.ErrTooLarge) {
		return nil
	}
	if err == nil && next.Size() != p.info.NarSize {
		err = errors.New("it has not the size that Nix registered")
	}
	if err != nil {
		p.err = &VanishedError{Path: p.info.Path, Err: err}
		return nil
	}
	return next
}

// cut says how the path is made, if there is anything to copy from.
func (p *parcel) cut(encoder *delta.Encoder) []delta.Job {
	if p.bases = encoder.Bases(); len(p.bases) == 0 {
		return nil
	}
	return encoder.JobsFrom(p.from)
}

// take makes the pieces.
func (p *parcel) take(jobs []delta.Job) {
	for i, job := range jobs {
		p.pieces = append(p.pieces, &piece{job: job, shared: p.shared, index: i, done: make(chan struct{})})
	}
}

func (l *library) has(p nix.StorePath) bool {
	return slices.ContainsFunc(l.known, func(info nix.PathInfo) bool { return info.Path == p })
}

// open gives the layout of an old path; nil if it cannot be read, or is too large.
func (l *library) open(ctx context.Context, p nix.StorePath) *delta.Tree {
	tree, opened := l.trees[p]
	if !opened {
		tree, _ = delta.OpenTree(ctx, p)
		l.trees[p] = tree
	}
	return tree
}

// find gives what finds files in all old paths. It is made once it is needed.
func (l *library) find(ctx context.Context) *delta.Finder {
	if l.finder == nil {
		var trees []*delta.Tree
		for _, info := range l.known {
			if tree := l.open(ctx, info.Path); tree != nil {
				trees = append(trees, tree)
			}
		}
		l.finder = delta.NewFinder(trees)
	}
	return l.finder
}

// Memory remembers differences for the next node, which often has the same old path and gets the same new one, and lets those who
// need one at the same time make it together. It is for any number of ships at once. The zero value is empty and ready.
type Memory struct {
	mu    sync.Mutex
	known map[string]*encoded
	order []string // the oldest first
	size  int
	// sharing is what is being made, and sharedSize how much of that is there.
	sharing    map[string]*shared
	sharedSize int
}

// encoded is a whole difference.
type encoded struct {
	bases  []nix.StorePath
	chunks []byte
	stats  delta.Stats
}

// maxMemory bounds a Memory in bytes, and maxRemembered what is kept of one path.
const (
	maxMemory     = 128 << 20
	maxRemembered = 8 << 20
)

func memoryKey(info nix.PathInfo, bases []nix.StorePath) string {
	var b strings.Builder
	b.WriteString(string(info.Path) + " " + info.NarHash)
	for _, p := range bases {
		b.WriteString(" " + string(p))
	}
	return b.String()
}

// get gives a difference all of whose bases the target has.
func (m *Memory) get(key string, has func(nix.StorePath) bool) *encoded {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	e := m.known[key]
	m.mu.Unlock()
	if e == nil || !all(e.bases, has) {
		return nil
	}
	return e
}

func all(paths []nix.StorePath, ok func(nix.StorePath) bool) bool {
	for _, p := range paths {
		if !ok(p) {
			return false
		}
	}
	return true
}

func (m *Memory) put(key string, e *encoded) {
	if m == nil || len(e.chunks) > maxRemembered {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[string]*encoded{}
	}
	if m.known[key] != nil {
		return
	}
	m.known[key] = e
	m.order = append(m.order, key)
	for m.size += len(e.chunks); m.size > maxMemory; m.order = m.order[1:] {
		m.size -= len(m.known[m.order[0]].chunks)
		delete(m.known, m.order[0])
	}
}

// WrongBaseError is a path that the target could not rebuild from what it has. It is to be sent as a whole.
type WrongBaseError struct {
	Path nix.StorePath
	Err  error
}

func (e *WrongBaseError) Error() string {
	return fmt.Sprintf("%s could not be rebuilt from what the target has: %v", e.Path, e.Err)
}

// Unwrap gives what the agent said.
func (e *WrongBaseError) Unwrap() error { return e.Err }
