package fleet

import (
	"context"
	"sync"

	"ferry/internal/inventory"
	"ferry/internal/preview"
)

// agreement asks one person once about all nodes: when each of them has either come to the point where anything would be
// changed or has ended.
type agreement struct {
	ask   func(context.Context, []*preview.Planned) (bool, error)
	nodes []inventory.Node
	// question is what the person is to be asked about, and withdraw ends the question.
	question chan []*preview.Planned
	withdraw context.CancelFunc

	mu      sync.Mutex
	coming  map[string]bool             // the nodes that have neither come nor ended
	waiting map[string]*preview.Planned // those that wait for the answer
	asked   bool
	// answered is closed when agreed and err are the answer.
	answered chan struct{}
	agreed   bool
	err      error
}

// newAgreement makes an agreement whose question, see [agreement.serve], withdraw ends.
func newAgreement(withdraw context.CancelFunc, nodes []inventory.Node, ask func(context.Context, []*preview.Planned) (bool, error)) *agreement {
	a := &agreement{
		ask: ask, nodes: nodes, coming: map[string]bool{}, waiting: map[string]*preview.Planned{}, answered: make(chan struct{}),
		question: make(chan []*preview.Planned, 1), withdraw: withdraw,
	}
	for _, n := range nodes {
		a.coming[n.Name] = true
	}
	return a
}

// agree waits until the person has been asked, and gives the answer.
func (a *agreement) agree(ctx context.Context, planned *preview.Planned) (bool, error) {
	a.mu.Lock()
	delete(a.coming, planned.Node)
	// Those that are stopped are told so before the one whose failure stops them counts as ended: there is nothing to ask then.
	if ctx.Err() == nil {
		a.waiting[planned.Node] = planned
		a.askNow()
	}
	a.mu.Unlock()
	select {
	case <-a.answered:
	case <-ctx.Done():
		a.mu.Lock()
		defer a.mu.Unlock()
		if delete(a.waiting, planned.Node); a.asked && len(a.waiting) == 0 {
			// There is nothing left that the question could be about.
			a.withdraw()
		}
		return false, context.Cause(ctx)
	}
	if a.err == nil && !a.agreed {
		return false, ErrDeclined
	}
	return a.agreed, a.err
}

// end tells that a node's deployment is over. With stopped those that wait are being ended as well.
func (a *agreement) end(node string, stopped bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if delete(a.coming, node); stopped {
		return
	}
	a.askNow()
}

// askNow asks if it is the time for that.
func (a *agreement) askNow() {
	if a.asked || len(a.coming) > 0 || len(a.waiting) == 0 {
		return
	}
	a.asked = true
	var planned []*preview.Planned
	for _, n := range a.nodes {
		if p := a.waiting[n.Name]; p != nil {
			planned = append(planned, p)
		}
	}
	a.question <- planned
}

// serve asks the person when it is the time for that. The end of ctx ends the question.
func (a *agreement) serve(ctx context.Context) {
	select {
	case planned := <-a.question:
		a.agreed, a.err = a.ask(ctx, planned)
		a.withdraw()
		close(a.answered)
	case <-ctx.Done():
	}
}
