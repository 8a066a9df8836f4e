package status

import (
	"context"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/session"
)

// History asks a node for the newest deployments that its target remembers, at most limit of them. Root is needed only where
// the agent has to be installed.
func History(ctx context.Context, s session.Session, node inventory.Node, limit int) (agent.HistoryResult, error) {
	var result agent.HistoryResult
	err := ask(ctx, s, node, func(conn *agent.Session) error {
		var err error
		result, err = conn.History(ctx, limit)
		return err
	})
	return result, err
}

// Generations asks a node for the generations of its system profile. Root is needed only where the agent has to be installed.
func Generations(ctx context.Context, s session.Session, node inventory.Node) (agent.GenerationsResult, error) {
	var result agent.GenerationsResult
	err := ask(ctx, s, node, func(conn *agent.Session) error {
		var err error
		result, err = conn.Generations(ctx)
		return err
	})
	return result, err
}

// ask lets f ask the agent on one node.
func ask(ctx context.Context, s session.Session, node inventory.Node, f func(conn *agent.Session) error) error {
	conn, err := s.Ask(ctx, node, session.Reading)
	if err == nil {
		defer conn.Close()
		err = f(conn)
	}
	if err != nil {
		return &session.Error{Node: node.Name, Step: session.Connect, State: session.Unchanged, Err: err}
	}
	return nil
}
