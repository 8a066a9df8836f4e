package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"ferry/internal/nix"

	"github.com/klauspost/compress/zstd"
)

// Missing tells which of paths are not valid on the target, in their order, and keeps the valid ones from being collected
// there until the session ends. With substitute the target fetches what its own caches have first.
func (s *Session) Missing(ctx context.Context, paths []nix.StorePath, substitute bool) ([]nix.StorePath, error) {
	response, err := s.request(ctx, Request{Method: MethodMissing, Substitute: substitute}, func(w io.Writer) error { return writePaths(w, paths) }, nil, nil)
	if err != nil {
		return nil, err
	}
	missing := make([]nix.StorePath, 0, len(response.Missing))
	last := -1
	for _, i := range response.Missing {
		if i <= last || i >= len(paths) {
			return nil, fmt.Errorf("the agent on %s names path %d of %d after path %d", s.address, i, len(paths), last)
		}
		last = i
		missing = append(missing, paths[i])
	}
	return missing, nil
}

// writePaths writes a stream of store paths.
func writePaths(w io.Writer, paths []nix.StorePath) error {
	z, err := zstd.NewWriter(w, zstd.WithWindowSize(1<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	for _, p := range paths {
		if _, err := io.WriteString(z, string(p)+"\n"); err != nil {
			return err
		}
	}
	return z.Close()
}

// Ship sends the stream that send writes (see [ShipHeader]) and calls progress as the stream comes and paths are registered. root, the path that
// all others are for, is then kept from being collected until it is committed. A channel that fails is a [*ResponseError] of [KindChannel].
func (s *Session) Ship(ctx context.Context, root nix.StorePath, send func(w *Stream) error, progress func(Progress)) (ShipResult, error) {
	stream := s.newStream(ctx)
	defer stream.close()
	r := Request{Method: MethodShip, Root: root}
	if stream.join != nil {
		r.Channels = stream.token
	}
	begin := time.Now()
	response, err := s.request(ctx, r, func(w io.Writer) error {
		stream.main = w
		return send(stream)
	}, func(p Progress) {
		switch {
		case p.Begun:
			stream.roundTrip.CompareAndSwap(0, int64(time.Since(begin)))
		case progress != nil:
			progress(p)
		}
	}, nil)
	// By now it has gone on, or has been ended.
	s.Hello.Parked = nil
	var refused *ResponseError
	if errors.As(err, &refused) {
		s.Hello.Parked = refused.Parked
	}
	if err != nil || response.Ship == nil {
		return ShipResult{}, orMissing(err)
	}
	return *response.Ship, nil
}
