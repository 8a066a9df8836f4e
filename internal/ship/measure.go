package ship

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

// Measure makes what Send would send, and sends nothing. Over a slow link Send has the time to compress better, so that what it
// sends may be less.
func (p *Plan) Measure(ctx context.Context) (Result, error) {
	start := time.Now()
	var wire atomic.Uint64
	s := &sender{plan: p}
	err := s.write(ctx, &countingWriter{io.Discard, &wire})
	return Result{Differences: s.differences, Bytes: s.read.Load(), Wire: wire.Load(), Duration: time.Since(start)}, err
}
