package nix

import (
	"context"
	"fmt"
	"io"

	"ferry/internal/run"
)

// LocalServe is a [Serve] of this machine's store.
type LocalServe struct {
	*Serve
	process *run.Process
	in      io.WriteCloser
}

// OpenServe starts nix-store --serve --write. The caller closes it. When ctx ends, it ends.
func (c *Client) OpenServe(ctx context.Context) (*LocalServe, error) { return c.openServe(ctx, false) }

// openServe is OpenServe of a process that a Ctrl-C at the terminal reaches, or not.
func (c *Client) openServe(ctx context.Context, apart bool) (*LocalServe, error) {
	cmd := c.command("nix-store", "--serve", "--write")
	cmd.OwnGroup = apart
	process, in, out, err := c.Runner.Pipe(ctx, cmd)
	if run.NotFound(err) {
		return nil, &MissingError{Program: "nix-store", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	serve, err := NewServe(out, in)
	if err != nil {
		_ = in.Close()
		if ended := process.Wait(); ended != nil {
			err = ended // says why
		}
		return nil, fmt.Errorf("open the store: %w", err)
	}
	return &LocalServe{Serve: serve, process: process, in: in}, nil
}

// Close ends the process. Its error says why the process ended before, if it did; an error of the [Serve] only says that.
func (s *LocalServe) Close() error {
	_ = s.in.Close()
	if err := s.process.Wait(); err != nil {
		return fmt.Errorf("close the store: %w", err)
	}
	return nil
}
