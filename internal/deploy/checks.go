package deploy

import (
	"context"
	"fmt"
	"net"
	"time"

	"ferry/internal/agent"
	"ferry/internal/health"
	"ferry/internal/prose"
)

// Check is the step between activate and commit in which a node that runs the new system has to answer its checks.
const Check Step = "check"

// runChecks makes the checks of the node that link leads to, and tells of each as it ends. Nobody else may ask the node's
// agent meanwhile. The error is a [*health.Failure] if the node does not answer as it must, or says why that is not known.
func runChecks(ctx context.Context, checks health.Checks, link *link, emit func(Event)) error {
	if checks.Empty() {
		return nil
	}
	begin := time.Now()
	emit(Event{Kind: Started, Step: Check})
	err := checks.Run(ctx, checkedNode{link}, func(r health.Result) {
		if r.Err == nil {
			emit(Event{Kind: Line, Step: Check, Text: r.Name + ": ok"})
		} else {
			emit(Event{Kind: Line, Step: Check, Text: r.Err.Error()})
		}
	})
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s passed", prose.Count(len(checks.HTTP)+len(checks.Commands), "check"))
	emit(Event{Kind: Finished, Step: Check, Text: text, Duration: time.Since(begin)})
	return nil
}

// checkedNode is a node at the end of a link.
type checkedNode struct{ link *link }

// Dial connects from the node.
func (n checkedNode) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if n.link.address().Local() {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	// Not another connection if this one is lost: that is for who follows the deployment. The check tries again.
	return n.link.current().Dial(ctx, address)
}

// Command runs a check's command on the node, again if the connection is lost before its end is known.
func (n checkedNode) Command(ctx context.Context, c health.Command) (health.Outcome, error) {
	var result agent.CheckResult
	err := n.link.do(ctx, func(conn *agent.Session) error {
		var err error
		result, err = conn.Check(ctx, c.Run, c.Timeout.Duration())
		return err
	})
	return health.Outcome{Status: result.Status, Output: result.Output, TimedOut: result.TimedOut, Problem: result.Error}, err
}
