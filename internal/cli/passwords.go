package cli

import (
	"bytes"
	"context"
	"sync"

	"ferry/internal/deploy"
)

// passwords asks for the passwords of several nodes: once for each user and command, such as sudo. The first node that needs one tries it; the
// others wait until it was right, so that a wrong one is not tried on all of them. A node that does not take what was right
// elsewhere is asked about alone.
type passwords struct {
	ask  func(ctx context.Context, node, command string, attempt int) ([]byte, error)
	user func(ctx context.Context, node string) string

	mu     sync.Mutex
	shared map[string]*sharedPassword // by user and command
	trying map[string]*sharedPassword // by the node that tries it
}

// sharedPassword is one that several nodes may take.
type sharedPassword struct {
	turn     chan struct{} // is held by the node that tries it
	password []byte        // nil: nobody was asked, or it was wrong
	right    bool
}

func newPasswords(ask func(context.Context, string, string, int) ([]byte, error), user func(context.Context, string) string) *passwords {
	return &passwords{ask: ask, user: user, shared: map[string]*sharedPassword{}, trying: map[string]*sharedPassword{}}
}

// give gives the password that command asks for on node, see agent.Options.
func (p *passwords) give(ctx context.Context, node, command string, attempt int) ([]byte, error) {
	shared, err := p.enter(ctx, node, command)
	if err != nil {
		return nil, err
	}
	if shared.right {
		p.settle(node, false)
		if attempt == 1 {
			return bytes.Clone(shared.password), nil
		}
		return p.ask(ctx, node, command, attempt)
	}
	if attempt > 1 {
		clear(shared.password)
		shared.password = nil
	}
	if shared.password == nil {
		password, err := p.ask(ctx, node, command, attempt)
		if err != nil {
			p.settle(node, false)
			return nil, err
		}
		shared.password = password
	}
	return bytes.Clone(shared.password), nil
}

// enter makes node the one that tries the password of its user, if it is not that already.
func (p *passwords) enter(ctx context.Context, node, command string) (*sharedPassword, error) {
	key := p.user(ctx, node) + "\x00" + command
	p.mu.Lock()
	shared := p.shared[key]
	if shared == nil {
		shared = &sharedPassword{turn: make(chan struct{}, 1)}
		p.shared[key] = shared
	}
	mine := p.trying[node] == shared
	p.mu.Unlock()
	if mine {
		return shared, nil
	}
	select {
	case shared.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trying[node] = shared
	return shared, nil
}

// settle tells that node does not try a password any more, and whether what it tried was right.
func (p *passwords) settle(node string, right bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	shared := p.trying[node]
	if shared == nil {
		return
	}
	delete(p.trying, node)
	shared.right = shared.right || right && shared.password != nil
	<-shared.turn
}

// observe learns from a deployment's events whether the node took its password.
func (p *passwords) observe(e deploy.Event) {
	if e.Kind == deploy.Finished && e.Step == deploy.Connect {
		p.settle(e.Node, true)
	}
}

// forget overwrites the passwords.
func (p *passwords) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, shared := range p.shared {
		clear(shared.password)
		shared.password, shared.right = nil, false
	}
}
