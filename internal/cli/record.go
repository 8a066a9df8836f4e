package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"ferry/internal/inventory"
	"ferry/internal/logs"
	"ferry/internal/session"
)

// observe passes an event on to everything that shows or keeps it.
func (a *app) observe(e session.Event) {
	a.printer.Observe(e)
	if a.log != nil {
		a.log.Observe(e)
	}
	if a.events != nil {
		a.events.observe(e)
	}
}

// note tells something that is about no node in particular.
func (a *app) note(text string) {
	a.printer.Print("ferry: note: " + text)
	if a.events != nil {
		a.events.note(text)
	}
}

// withEvents runs a command that writes events, and writes the last of them.
func (a *app) withEvents(ctx context.Context, command func() error) error {
	a.events = newEvents(a.Out, a.Now)
	err := command()
	var reported *reportedError
	failure := err
	if errors.As(err, &reported) {
		failure = nil
	}
	if written := a.events.end(exitStatus(ctx, err), failure, a.outcomes); err == nil {
		return written
	}
	return err
}

// logFolder is where the logs are.
func (a *app) logFolder() (string, error) {
	roots, err := a.roots()
	return filepath.Join(roots.Dir, "logs"), err
}

// beginLog begins to keep what happens to nodes in files. Without them it goes on.
func (a *app) beginLog(command string, inv *inventory.Inventory, nodes []inventory.Node) {
	about := logs.About{Command: command, Inventory: inv.File}
	for _, n := range nodes {
		about.Nodes = append(about.Nodes, n.Name)
	}
	dir, err := a.logFolder()
	if err == nil {
		a.log, err = logs.Begin(dir, about, a.Now)
	}
	if err != nil {
		a.log = nil
		a.note("no logs are kept: " + err.Error())
	}
}

// logLines keeps lines about a node that are no events.
func (a *app) logLines(node string, lines []string) {
	if a.log == nil {
		return
	}
	for _, line := range lines {
		a.log.Write(node, line)
	}
}

// endLog ends the logs, if there are any.
func (a *app) endLog(status int) {
	if a.log == nil {
		return
	}
	if err := a.log.Close(status); err != nil {
		fmt.Fprintf(a.Err, "ferry: note: the logs are not complete: %s\n", oneLine(err.Error()))
	}
}
