package nix

import (
	"context"
	"fmt"
	"os"
	"slices"
)

// shares tells each request of a group what of the group's build is its own.
type shares struct {
	ctx     context.Context
	client  *Client
	log     *buildLog
	shares  []*share
	planned map[StorePath]bool // what is to be built for all of them
	ended   int                // of log.ended, what has been counted
	errors  int                // of log.errors
	done    int                // how many builds had gone well when it was looked last
}

// share is one request's.
type share struct {
	*request
	needs  map[StorePath]bool // what is to be built for it; nil: that is not known
	build  []StorePath        // the same, in Nix's order
	built  int                // those that have run
	failed int                // those that failed, and those that need them
	broken int                // those that failed themselves
	last   BuildProgress
	errors []string // about what it needs
}

func newShares(ctx context.Context, c *Client, g *group) *shares {
	s := &shares{ctx: ctx, client: c}
	for _, r := range g.requests {
		s.shares = append(s.shares, &share{request: r})
	}
	s.log = newBuildLog(s.tell)
	return s
}

// tell takes how far the whole build is.
func (s *shares) tell(whole BuildProgress) {
	s.divide()
	s.count()
	for _, r := range s.shares {
		s.tellOne(r, whole)
	}
	s.settle(whole.Done)
}

// divide finds out who needs what, when Nix has said what it is going to build.
func (s *shares) divide() {
	if announced := s.log.plan.Build; len(announced) == len(s.planned) {
		return
	}
	s.planned = map[StorePath]bool{}
	for _, drv := range s.log.plan.Build {
		s.planned[drv] = true
	}
	inputs := map[StorePath][]StorePath{}
	for _, r := range s.shares {
		r.needs = map[StorePath]bool{}
		if !s.collect(r.drv, r.needs, inputs) {
			r.needs, r.build = nil, s.log.plan.Build
			continue
		}
		r.build = nil
		for _, drv := range s.log.plan.Build {
			if r.needs[drv] {
				r.build = append(r.build, drv)
			}
		}
	}
}

// collect adds to needs drv and what it needs of what is to be built; inputs remembers what was read. It tells whether all could
// be read.
func (s *shares) collect(drv StorePath, needs map[StorePath]bool, inputs map[StorePath][]StorePath) bool {
	for todo := []StorePath{drv}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if needs[next] || !s.planned[next] {
			continue
		}
		needs[next] = true
		if _, known := inputs[next]; !known {
			text, err := os.ReadFile(string(next))
			if err != nil {
				return false
			}
			d, err := ParseDerivation(string(text))
			if err != nil {
				return false
			}
			for input := range d.Inputs {
				inputs[next] = append(inputs[next], input)
			}
		}
		todo = append(todo, inputs[next]...)
	}
	return true
}

// count counts what has been built and has failed since.
func (s *shares) count() {
	for _, drv := range s.log.ended[s.ended:] {
		for _, r := range s.shares {
			if r.needs[drv] {
				r.built++
			}
		}
	}
	s.ended = len(s.log.ended)
	for _, message := range s.log.errors[s.errors:] {
		for _, r := range s.shares {
			r.fail(message)
		}
	}
	s.errors = len(s.log.errors)
}

// settle ends the requests for which something has failed and, when more builds than before have gone well, those that are built.
// That one has run is no sign: Nix keeps what it was asked for as running until all ends.
func (s *shares) settle(done int) {
	more := done > s.done
	s.done = done
	for _, r := range s.shares {
		switch {
		case s.client.builds.isOver(r.request):
		case r.broken > 0:
			err := s.client.detail(s.ctx, s.log, readFailures(r.errors))
			s.client.builds.settle(r.request, fmt.Errorf("build %s: %w", r.drv, err), false)
		case more && s.isBuilt(r):
			p := r.last
			p.Done, p.Running, p.Line, p.Builder, p.Message = len(r.build), []string{}, "", "", ""
			r.tell(p)
			s.client.builds.settle(r.request, nil, false)
		}
	}
}

// isBuilt tells whether r's output is there and valid. Without a sandbox it is there while it is being built. Nix may be ahead of
// what has been read of its log: when the last build is known to have begun, only lines of that one can be missed.
func (s *shares) isBuilt(r *share) bool {
	begun := slices.ContainsFunc(s.log.builds, func(b runningBuild) bool { return b.drv == r.drv }) || slices.Contains(s.log.ended, r.drv)
	if s.planned[r.drv] && !begun {
		return false
	}
	if _, err := os.Lstat(string(r.out)); err != nil || r.needs == nil {
		return false
	}
	valid, err := s.client.Valid(s.ctx, r.out)
	return err == nil && valid
}

// fail takes an error message, if it is about what r needs.
func (r *share) fail(message string) {
	m := quotedDerivation.FindStringSubmatch(message)
	if m == nil || !r.needs[StorePath(m[1])] {
		return
	}
	r.failed++
	if !isConsequence(message) {
		r.broken++
		r.errors = append(r.errors, message)
	}
}

// tellOne tells r what is new to it.
func (s *shares) tellOne(r *share, whole BuildProgress) {
	concerns := func(drv StorePath) bool { return r.needs == nil || r.needs[drv] || !s.planned[drv] }
	p := whole
	if !concerns(s.log.speaker) {
		p.Line, p.Builder = "", ""
	}
	p.Running = []string{}
	for _, b := range s.log.builds {
		if concerns(b.drv) {
			p.Running = append(p.Running, derivationName(b.drv))
		}
	}
	if r.needs != nil {
		p.Plan.Build = r.build
		// A build that ends is said to have failed a little later.
		p.Done, p.Failed = max(0, min(r.built-r.broken, whole.Done)), r.failed
		p.Expected = max(len(r.build), p.Done+p.Failed+len(p.Running))
	}
	same := p.Done == r.last.Done && p.Expected == r.last.Expected && p.Failed == r.last.Failed &&
		p.FetchedBytes == r.last.FetchedBytes && p.FetchBytes == r.last.FetchBytes && slices.Equal(p.Running, r.last.Running)
	if same && p.Line == "" && p.Message == "" {
		return
	}
	r.last = p
	r.tell(p)
}
