package deploy

import (
	"context"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/session"
)

// look is two systems of a node that are compared. The target is connected to when that is needed first.
type look struct {
	*session.Visit
	opts  Previewing
	local *nix.LocalServe
	facts agent.Facts
	have  *agent.GenerationsResult
	open  bool
}

func newLook(with session.Session, inv *inventory.Inventory, node inventory.Node) (*look, error) {
	v, err := with.Visit(inv, node, session.Reading)
	if err != nil {
		return nil, err
	}
	return &look{Visit: v}, nil
}

// release closes this machine's store.
func (l *look) release() {
	if l.local != nil {
		_ = l.local.Close()
	}
}

func (l *look) close() {
	l.release()
	l.Close()
}

// reach connects, if that has not been done.
func (l *look) reach(ctx context.Context) error {
	if l.open {
		return nil
	}
	facts, err := l.Reach(ctx)
	if err != nil {
		return err
	}
	l.facts, l.open = facts, true
	return nil
}
