package health

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"ferry/internal/prose"
	"ferry/internal/run"
)

// Node is the way to the machine whose checks are made.
type Node interface {
	// Dial connects from the node: its names and its routes count. It may be called from several goroutines.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	// Command runs c on the node as root. An error means that it is not known how it ended.
	Command(ctx context.Context, c Command) (Outcome, error)
}

// Outcome is how a command ended on the node.
type Outcome struct {
	Status   int      // its exit status, -1 if there is none
	Output   []string // the last lines of what it wrote, cleaned
	TimedOut bool     // it was ended because its time was over
	Problem  string   // why there is no status, cleaned: it could not be started, or was killed
}

// Result is one check that has ended.
type Result struct {
	Name     string // the check, in a few words
	Err      error  // nil: the node answers as it must
	Duration time.Duration
}

// Failure is a check whose answer is not as it must be.
type Failure struct {
	Check  string   // its name
	Text   string   // what is wrong, in one line
	Lines  []string // what the node answered, or the command wrote last; cleaned
	Advice []string
}

func (f *Failure) Error() string { return f.Check + ": " + f.Text }

// Hints says what the user can do about it.
func (f *Failure) Hints() []string { return f.Advice }

// Output is what the node answered, or the command wrote last.
func (f *Failure) Output() []string { return f.Lines }

// maxDials is how many connections are made from the node at once: each is a session on one ssh connection, of which a
// server allows ten if it was told nothing else.
const maxDials = 4

// Run makes all checks but that of the units, and calls report as each ends, one at a time. All are made to their end, also
// after a failure, so that everything that is wrong is told at once. The error is that of the first in c's order, requests
// before commands: a [*Failure], or what kept a command from being asked about. When ctx ends first, it is ctx's.
func (c Checks) Run(ctx context.Context, node Node, report func(Result)) error {
	errs := make([]error, len(c.HTTP)+len(c.Commands))
	var mu sync.Mutex
	check := func(i int, name string, f func() error) {
		begin := time.Now()
		errs[i] = f()
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil {
			report(Result{Name: name, Err: errs[i], Duration: time.Since(begin)})
		}
	}
	var group sync.WaitGroup
	there := limit(func(ctx context.Context, network, address string) (net.Conn, error) {
		return node.Dial(ctx, network, address)
	}, maxDials)
	for i, h := range c.HTTP {
		group.Go(func() {
			check(i, h.name(), func() error { return h.check(ctx, i, there) })
		})
	}
	group.Go(func() {
		for i, command := range c.Commands {
			check(len(c.HTTP)+i, command.name(), func() error { return command.check(ctx, i, node) })
		}
	})
	group.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (c Command) name() string { return "command " + prose.Cut(run.Clean(run.QuoteAll(c.Run)), shown) }

func (c Command) check(ctx context.Context, index int, node Node) error {
	outcome, err := node.Command(ctx, c)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name(), err)
	}
	f := &Failure{Check: c.name(), Lines: outcome.Output}
	switch {
	case outcome.TimedOut:
		f.Text = fmt.Sprintf("did not end within %v", c.Timeout.Duration())
		f.Advice = []string{fmt.Sprintf("if it may take longer: checks.commands[%d].timeout in the inventory", index)}
	case outcome.Problem != "":
		f.Text = outcome.Problem
	case outcome.Status != 0:
		f.Text = fmt.Sprintf("exit status %d", outcome.Status)
	default:
		return nil
	}
	return f
}
