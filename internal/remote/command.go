// Package remote runs commands of the user's on nodes: as the login user over ssh, or as root by the agent.
package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"ferry/internal/inventory"
	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/target"
)

// Command is a command to run on nodes.
type Command struct {
	session.Session
	Argv []string
	// Root runs it as root, by the agent; else the login user runs it and no agent is needed.
	Root bool
	// Connected, when set, is called when root has been had.
	Connected func()
	// Out and Err get what it writes, line by line and cleaned. As root both streams come to Out.
	Out, Err func(line string)
}

// On runs the command on a node, without input, and gives its exit status. An error, an [*session.Error], means that it has none:
// it could not be started, or it is not known how it ended.
func (e Command) On(ctx context.Context, node inventory.Node) (status int, err error) {
	if e.Root {
		status, err = e.asRoot(ctx, node)
	} else {
		status, err = e.asUser(ctx, node)
	}
	var ready *session.Error
	if err != nil && !errors.As(err, &ready) {
		err = &session.Error{Node: node.Name, Step: session.Connect, State: session.Unchanged, Err: err}
	}
	return status, err
}

func (e Command) asRoot(ctx context.Context, node inventory.Node) (int, error) {
	conn, err := e.OpenAgent(ctx, node, "exec", session.Shared, e.Err)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if e.Connected != nil {
		e.Connected()
	}
	lines := &run.LineWriter{Emit: e.Out}
	result, err := conn.Exec(ctx, e.Argv, lines)
	lines.Flush()
	if err == nil && result.Error != "" {
		err = errors.New(result.Error)
	}
	return result.Status, e.failed(node, err)
}

func (e Command) asUser(ctx context.Context, node inventory.Node) (int, error) {
	address, err := session.Answers(ctx, node, e.Dialer, e.Err)
	if err != nil {
		return 0, err
	}
	errLines := &run.LineWriter{Emit: e.Err}
	// The end of what ssh says is the reason if it fails.
	channel, err := e.Dialer.Start(ctx, address, run.QuoteAll(e.Argv), errLines)
	if err != nil {
		return 0, err
	}
	_ = channel.In.Close()
	out := &run.LineWriter{Emit: e.Out}
	_, copied := io.Copy(out, bufio.NewReader(channel.Out))
	out.Flush()
	err = channel.Wait()
	errLines.Flush()
	var ended *run.Error
	switch {
	case errors.As(err, &ended) && ended.Status >= 0 && ctx.Err() == nil && !isConnection(err):
		return ended.Status, nil
	case err == nil:
		return 0, e.failed(node, copied)
	}
	return 0, err
}

// isConnection tells whether err is ssh's own: the command itself may have any status.
func isConnection(err error) bool {
	var connect *target.Error
	return errors.As(err, &connect)
}

func (e Command) failed(node inventory.Node, err error) error {
	if err == nil {
		return nil
	}
	return &session.Error{Node: node.Name, Step: Execute, State: session.Unchanged, Err: fmt.Errorf("%s: %w", e.Argv[0], err)}
}

// Execute is the step of a command that a user runs on a node.
const Execute session.Step = "exec"
