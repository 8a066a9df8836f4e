package ship

import (
	"context"
	"sync"

	"ferry/internal/delta"
	"ferry/internal/nix"
)

// shared is the difference of a path that several nodes are sent at once: whoever comes first finds out what it is made from, and of
// each piece one of them makes it for all. None waits for the link of another.
type shared struct {
	key    string
	memory *Memory
	// paired is closed once bases and jobs are known; no bases: there are none, or the first one has given up.
	paired chan struct{}
	bases  []nix.StorePath
	jobs   []delta.Job
	pieces []sharedPiece

	// Guarded by memory.mu.
	users, size int
}

// sharedPiece is a piece that may have been made.
type sharedPiece struct {
	mu    sync.Mutex
	made  bool
	out   []byte
	stats delta.Stats
}

// share gives what those who are sent the same path now have of it, and whether it is new, and so the caller's to pair. The caller
// leaves it in the end. Without a key or a memory there is none.
func (m *Memory) share(key string) (s *shared, first bool) {
	if m == nil || key == "" {
		return nil, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s = m.sharing[key]; s == nil {
		if m.sharing == nil {
			m.sharing = map[string]*shared{}
		}
		s, first = &shared{key: key, memory: m, paired: make(chan struct{})}, true
		m.sharing[key] = s
	}
	s.users++
	return s, first
}

// leave says that a node needs it no more.
func (s *shared) leave() {
	m := s.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	delete(m.sharing, s.key)
	m.sharedSize -= s.size
}

// pair says what the path is made from.
func (s *shared) pair(bases []nix.StorePath, jobs []delta.Job) {
	s.bases, s.jobs, s.pieces = bases, jobs, make([]sharedPiece, len(jobs))
	close(s.paired)
}

// await waits until it is known what the path is made from, and tells whether that is of use to a node that has what has says.
func (s *shared) await(ctx context.Context, has func(nix.StorePath) bool) bool {
	select {
	case <-s.paired:
		return len(s.bases) > 0 && all(s.bases, has)
	case <-ctx.Done():
		return false
	}
}

// encode gives a piece, and makes it unless somebody has. Who comes while it is made waits for that.
func (s *shared) encode(ctx context.Context, coder *delta.Coder, i int) ([]byte, delta.Stats, error) {
	piece := &s.pieces[i]
	piece.mu.Lock()
	defer piece.mu.Unlock()
	if piece.made {
		return piece.out, piece.stats, nil
	}
	out, stats, err := coder.Encode(ctx, s.jobs[i])
	if err == nil && s.keep(len(out)) {
		piece.made, piece.out, piece.stats = true, out, stats
	}
	return out, stats, err
}

// keep tells whether so many bytes more are to be kept for others: somebody is left, and there is room. A node with a slow link may need
// them late.
func (s *shared) keep(bytes int) bool {
	m := s.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.users == 0 || s.size+bytes > maxRemembered || m.sharedSize+bytes > maxMemory {
		return false
	}
	s.size += bytes
	m.sharedSize += bytes
	return true
}
