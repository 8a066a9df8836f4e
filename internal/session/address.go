package session

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// Answers finds the first of a node's addresses that answers. The last one is not tried: whoever uses it finds out.
func Answers(ctx context.Context, node inventory.Node, dialer *target.Dialer, note func(string)) (target.Address, error) {
	addresses, err := addressesOf(node)
	if err != nil {
		return target.Address{}, err
	}
	for i, address := range addresses[:len(addresses)-1] {
		err := dialer.Answers(ctx, address)
		var unreachable *target.Error
		if !errors.As(err, &unreachable) || !unreachable.Unreachable() {
			return address, ctx.Err()
		}
		note(notReached(err, addresses[i+1]))
	}
	return addresses[len(addresses)-1], nil
}

// OpenAgent opens a session with the agent of a node at the first of its addresses that can be reached, to ask it something once.
// name is what the target knows it by.
func (s Session) OpenAgent(ctx context.Context, node inventory.Node, name string, access Access, note func(string)) (*agent.Session, error) {
	addresses, err := addressesOf(node)
	if err != nil {
		return nil, err
	}
	conn, _, err := openAny(ctx, s.Dialer, addresses, s.agentOptions(node, name, access), note)
	return conn, err
}

// Ask is [Session.OpenAgent] for a few questions, which is not told about addresses that do not answer.
func (s Session) Ask(ctx context.Context, node inventory.Node, access Access) (*agent.Session, error) {
	return s.OpenAgent(ctx, node, "look", access, func(string) {})
}

// agentOptions say how the agent of a node is started.
func (s Session) agentOptions(node inventory.Node, name string, access Access) agent.Options {
	o := agent.Options{Elevate: Elevation(node), Who: s.Who, Session: name, Lock: access == Exclusive, AsUser: access == Reading}
	if s.Password != nil {
		o.Password = func(ctx context.Context, command string, attempt int) ([]byte, error) {
			return s.Password(ctx, node.Name, command, attempt)
		}
	}
	return o
}

// Elevation is the command that makes root on a node: what the inventory says, else sudo.
func Elevation(node inventory.Node) []string {
	if len(node.Elevate) > 0 {
		return slices.Clone(node.Elevate)
	}
	return []string{"sudo"}
}
