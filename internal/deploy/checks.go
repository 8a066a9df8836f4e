package deploy

import (
	"context"
	"fmt"
	"net"
	"time"

	"ferry/internal/agent"
	"ferry/internal/health"
	"ferry/internal/prose"
	"ferry/internal/session"
)

// runChecks makes the checks of the node that link leads to, and tells of each as it ends. Nobody else may ask the node's
// agent meanwhile. The error is a [*health.Failure] if the node does not answer as it must, or says why that is not known.
func runChecks(ctx context.Context, checks health.Checks, link *session.Link, emit func(session.Event)) error {
	if checks.Empty() {
		return nil
	}
	begin := time.Now()
	emit(session.Event{Kind: session.Started, Step: session.Check})
	err := checks.Run(ctx, checkedNode{link}, func(r health.Result) {
		if r.Err == nil {
			emit(session.Event{Kind: session.Line, Step: session.Check, Text: r.Name + ": ok"})
		} else {
			emit(session.Event{Kind: session.Line, Step: session.Check, Text: r.Err.Error()})
		}
	})
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s passed", prose.Count(len(checks.HTTP)+len(checks.Commands), "check"))
	emit(session.Event{Kind: session.Finished, Step: session.Check, Text: text, Duration: time.Since(begin)})
	return nil
}

// checkedNode is a node at the end of a link.
type checkedNode struct{ link *session.Link }

// Dial connects from the node.
func (n checkedNode) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if n.link.Address().Local() {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	// Not another connection if this one is lost: that is for who follows the deployment. The check tries again.
	return n.link.Agent().Dial(ctx, address)
}

// Command runs a check's command on the node, again if the connection is lost before its end is known.
func (n checkedNode) Command(ctx context.Context, c health.Command) (health.Outcome, error) {
	var result agent.CheckResult
	err := n.link.Do(ctx, func(conn *agent.Session) error {
		var err error
		result, err = conn.Check(ctx, c.Run, c.Timeout.Duration())
		return err
	})
	return health.Outcome{Status: result.Status, Output: result.Output, TimedOut: result.TimedOut, Problem: result.Error}, err
}
