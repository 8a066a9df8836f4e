package nix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/run"
)

// Build realises a derivation with one output, whose path the evaluation has said. Symbolic link root becomes a GC root for
// it before anything could collect it; the folders above root are made. Nothing is read from the link afterwards, so whoever
// takes it away meanwhile is not in the way. progress, which may be nil, is called from one goroutine.
//
// The error is a [*PlatformError] if nothing here builds for a system that is needed, and a [*BuildError] if builds
// failed. When ctx ends, so do the builds.
func (c *Client) Build(ctx context.Context, drv StorePath, root string, progress func(BuildProgress)) error {
	root, err := prepareRoot(root)
	if err != nil {
		return fmt.Errorf("build %s: %w", drv, err)
	}
	cmd := c.command("nix-store", "--realise", string(drv), "--add-root", root, "--indirect", "--log-format", "internal-json")
	log := newBuildLog(progress)
	lines := &lineWriter{each: log.line}
	var out bytes.Buffer
	cmd.Out, cmd.Err = &out, lines
	err = c.run(ctx, cmd)
	lines.end()
	if err != nil {
		return fmt.Errorf("build %s: %w", drv, c.explain(ctx, log, err))
	}
	// What nix-store prints are the roots, one for each output.
	if printed := strings.TrimSpace(out.String()); printed != root {
		return fmt.Errorf("build %s: nix-store made the roots %q, not one output at %s", drv, shorten(printed), root)
	}
	return nil
}

// explain turns the failure of nix-store into what has failed.
func (c *Client) explain(ctx context.Context, log *buildLog, err error) error {
	var failed *run.Error
	var access *AccessError
	if !errors.As(err, &failed) || run.NotFound(err) || errors.As(err, &access) {
		return err
	}
	// Its standard error is not for people, so it is not shown as such.
	failed = &run.Error{Argv: failed.Argv, Status: failed.Status, Err: failed.Err}
	b := readFailures(log.errors)
	if ctx.Err() != nil || failed.Status < 0 || len(b.Messages) == 0 {
		return failed
	}
	b.err = failed
	if wasInterrupted(b.Messages) {
		return context.Canceled
	}
	return c.detail(ctx, log, b)
}

// wasInterrupted tells whether Nix says that a person wanted an end. A Ctrl-C reaches Nix at the same time as ferry, and may be
// noticed there first.
func wasInterrupted(messages []string) bool {
	return slices.ContainsFunc(messages, func(m string) bool { return strings.Contains(m, interrupted) })
}

// detail adds to b what its builders wrote last, or says that nothing here builds for a system.
func (c *Client) detail(ctx context.Context, log *buildLog, b *BuildError) error {
	for i := range b.Derivations {
		d := &b.Derivations[i]
		if d.platform != nil {
			return &PlatformError{System: d.platform.system, Reason: d.Reason, err: b}
		}
		if lines := log.lines[d.Drv]; len(lines) > 0 {
			d.LastLines = slices.Clone(lines)
		} else if len(d.LastLines) == 0 && d.ran {
			d.LastLines = c.readLog(ctx, d.Drv)
		}
	}
	if len(b.Derivations) > 0 {
		b.LogCommand = "nix-store -l " + string(b.Derivations[0].Drv)
	}
	return b
}

// readLog returns the end of the log that Nix has kept of a build, if any.
func (c *Client) readLog(ctx context.Context, drv StorePath) []string {
	cmd := c.command("nix-store", "--read-log", string(drv))
	tail := &run.Tail{Limit: 64 << 10}
	cmd.Out = tail
	if c.run(ctx, cmd) != nil {
		return nil
	}
	return run.LastLines(tail.String(), keptLines)
}
