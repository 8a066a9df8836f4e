package deploy

import (
	"context"
	"errors"
	"fmt"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/target"
)

// addressesOf are where a node is reached, in the order in which they are tried.
func addressesOf(node inventory.Node) ([]target.Address, error) {
	var list []target.Address
	for _, text := range append([]string{node.Target}, node.Fallbacks...) {
		address, err := target.ParseAddress(text)
		if err != nil {
			return nil, err
		}
		list = append(list, address)
	}
	return list, nil
}

// openAny opens a session with the agent at the first of addresses that can be reached, and tells which. Only where nothing
// answers, the next one is tried: a host that refuses the login, or has another key than it should, is an answer.
func openAny(ctx context.Context, dialer *target.Dialer, addresses []target.Address, options agent.Options, note func(string)) (conn *agent.Session, at int, err error) {
	for at = range addresses {
		conn, err = agent.Open(ctx, dialer, addresses[at], options)
		var unreachable *target.Error
		if err == nil || at == len(addresses)-1 || ctx.Err() != nil || !errors.As(err, &unreachable) || !unreachable.Unreachable() {
			break
		}
		note(notReached(err, addresses[at+1]))
	}
	return conn, at, err
}

func notReached(err error, next target.Address) string {
	return fmt.Sprintf("not reached (%v): trying %s", err, next)
}

// OpenAgent opens a session with the agent of a node at the first of its addresses that can be reached, for one look at it.
func OpenAgent(ctx context.Context, node inventory.Node, dialer *target.Dialer, options agent.Options, note func(string)) (*agent.Session, error) {
	addresses, err := addressesOf(node)
	if err != nil {
		return nil, err
	}
	conn, _, err := openAny(ctx, dialer, addresses, options, note)
	return conn, err
}
