package receive

import (
	"bufio"
	"context"
	"fmt"

	"ferry/internal/agent"
	"ferry/internal/delta"

	"github.com/klauspost/compress/zstd"
)

// Sign sends the signatures of the paths that ferry asks for.
func (s *Receiver) Sign(ctx context.Context, stream *agent.DataReader) error {
	paths, err := ReadPaths(stream)
	if err == nil {
		err = stream.Drain()
	}
	if err != nil {
		return &StreamError{err}
	}
	z, err := zstd.NewWriter(agent.LogWriter{Wire: s.opts.Wire}, zstd.WithWindowSize(1<<20), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(z, 64<<10)
	for _, p := range paths {
		tree, err := delta.OpenTree(ctx, p)
		if err != nil {
			// Gone, or too large: ferry sends what was to be made of it as a whole.
			if err := delta.WriteNoSignature(w); err != nil {
				return err
			}
			continue
		}
		if err := delta.WriteSignature(ctx, w, tree); err != nil {
			return fmt.Errorf("signature of %s: %w", p, err)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return z.Close()
}
