package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"ferry/internal/nix"

	"github.com/klauspost/compress/zstd"
)

// MethodSign asks for the signatures of paths, which are in the format of package delta. It needs no lock. Stream: zstd of the store
// paths, one a line. Log: zstd of the signatures, in the paths' order. There is no result.
const MethodSign Method = "sign"

// maxSignatures bounds what is read of the signatures that a target sends, in bytes before compression.
const maxSignatures = 512 << 20

// Signatures asks for the signatures of paths and gives them to read as they arrive. When read has returned, the rest is
// thrown away.
func (s *Session) Signatures(ctx context.Context, paths []nix.StorePath, read func(r *bufio.Reader) error) error {
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := readSignatures(in, read)
		// The request's reader must not block on what nobody reads.
		_, _ = io.Copy(io.Discard, in)
		done <- err
	}()
	_, err := s.request(ctx, Request{Method: MethodSign}, func(w io.Writer) error { return writePaths(w, paths) }, nil, out)
	_ = out.Close()
	readErr := <-done
	if err != nil {
		return err
	}
	if readErr != nil {
		return fmt.Errorf("read the signatures from %s: %w", s.address, readErr)
	}
	return nil
}

func readSignatures(in io.Reader, read func(r *bufio.Reader) error) error {
	z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(ShipWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	return read(bufio.NewReader(io.LimitReader(z, maxSignatures)))
}
