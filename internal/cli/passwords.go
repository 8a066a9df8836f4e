package cli

import (
	"bytes"
	"context"
	"strings"
	"sync"

	"ferry/internal/inventory"
	"ferry/internal/session"
)

// question is what a password is asked for.
type question struct {
	nodes   []string // what is typed may be sent to each of them; at least one
	user    string   // who logs in there; "" if that is not known
	command string   // what asks, such as sudo
	attempt int      // counts from 1
}

// passwords asks for the passwords of several nodes: once for those with the same user, the same command that makes root of it,
// such as sudo, and the same passwordFor; the question names them all. The first node that needs one tries it; the others wait
// until it was right, so that a wrong one is not tried on all of them. A node that does not take what was right elsewhere is
// asked about alone, and so is one whose user is not known.
type passwords struct {
	ask   func(ctx context.Context, q question) ([]byte, error)
	user  func(ctx context.Context, node inventory.Node) (name string, known bool)
	nodes []inventory.Node // in the order in which a question names them

	grouping chan struct{} // is held by who makes groups

	mu     sync.Mutex
	groups map[string]*sharedPassword // by the node; nil until the first is asked about
	trying map[string]*sharedPassword // by the node that tries it
}

// sharedPassword is one that several nodes may take.
type sharedPassword struct {
	user  string
	nodes []string

	turn     chan struct{} // is held by the node that tries it
	password []byte        // nil: nobody was asked, or it was wrong
	right    bool
}

// newPasswords makes the passwords of nodes. user tells who logs in on one of them, and whether that is known.
func newPasswords(
	nodes []inventory.Node, ask func(context.Context, question) ([]byte, error), user func(context.Context, inventory.Node) (string, bool),
) *passwords {
	return &passwords{ask: ask, user: user, nodes: nodes, grouping: make(chan struct{}, 1), trying: map[string]*sharedPassword{}}
}

// give gives the password that command asks for on node, see agent.Options.
func (p *passwords) give(ctx context.Context, node, command string, attempt int) ([]byte, error) {
	shared, err := p.enter(ctx, node)
	if err != nil {
		return nil, err
	}
	if shared.right {
		p.settle(node, false)
		if attempt == 1 {
			return bytes.Clone(shared.password), nil
		}
		return p.ask(ctx, question{[]string{node}, shared.user, command, attempt})
	}
	if attempt > 1 {
		clear(shared.password)
		shared.password = nil
	}
	if shared.password == nil {
		password, err := p.ask(ctx, question{shared.nodes, shared.user, command, attempt})
		if err != nil {
			p.settle(node, false)
			return nil, err
		}
		shared.password = password
	}
	return bytes.Clone(shared.password), nil
}

// usersAtOnce is how many nodes' users are looked up at the same time: each may take a start of ssh.
const usersAtOnce = 8

// group gives what node may share with others. Who may share with whom is found out when the first node is asked about, and
// stays: what a person has agreed to by typing a password must not grow.
func (p *passwords) group(ctx context.Context, node string) (*sharedPassword, error) {
	select {
	case p.grouping <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-p.grouping }()
	if p.groups == nil {
		groups := p.makeGroups(ctx)
		if err := context.Cause(ctx); err != nil {
			// A look that was broken off knows nothing of the users; the next node looks again.
			return nil, err
		}
		p.mu.Lock()
		p.groups = groups
		p.mu.Unlock()
	}
	return p.groups[node], nil
}

func (p *passwords) makeGroups(ctx context.Context) map[string]*sharedPassword {
	users, known := make([]string, len(p.nodes)), make([]bool, len(p.nodes))
	slots := make(chan struct{}, usersAtOnce)
	var looking sync.WaitGroup
	for i, n := range p.nodes {
		looking.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			users[i], known[i] = p.user(ctx, n)
		})
	}
	looking.Wait()
	byKey, groups := map[string]*sharedPassword{}, map[string]*sharedPassword{}
	for i, n := range p.nodes {
		elevate := n.Elevate
		if len(elevate) == 0 {
			elevate = []string{"sudo"}
		}
		key := strings.Join(append([]string{users[i], n.PasswordFor}, elevate...), "\x00")
		shared := byKey[key]
		if shared == nil || !known[i] {
			shared = &sharedPassword{user: users[i], turn: make(chan struct{}, 1)}
		}
		if known[i] {
			byKey[key] = shared
		}
		shared.nodes = append(shared.nodes, n.Name)
		groups[n.Name] = shared
	}
	return groups
}

// enter makes node the one that tries the password of its group, if it is not that already.
func (p *passwords) enter(ctx context.Context, node string) (*sharedPassword, error) {
	shared, err := p.group(ctx, node)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
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
func (p *passwords) observe(e session.Event) {
	if e.Kind == session.Finished && e.Step == session.Connect {
		p.settle(e.Node, true)
	}
}

// forget overwrites the passwords.
func (p *passwords) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, shared := range p.groups {
		clear(shared.password)
		shared.password, shared.right = nil, false
	}
}
