package ship

import (
	"bufio"
	"context"
	"io"
	"sync/atomic"
	"time"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

// Restore sends paths of this machine's store as a whole to a target whose Nix has them, and whose disk has not. It gives how
// many are there now. A path that is not here (any more) is a [*VanishedError].
func Restore(ctx context.Context, session *agent.Session, infos []nix.PathInfo) (int, error) {
	return session.Restore(ctx, func(w io.Writer) error {
		z := newCompressor(w, time.Now, func() *news { return nil })
		defer z.stop()
		out := bufio.NewWriterSize(z, 256<<10)
		var read atomic.Uint64
		for _, info := range infos {
			if err := writePath(ctx, out, info, 0, &read); err != nil {
				return err
			}
		}
		if _, err := out.Write(make([]byte, 4)); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
		return z.Close()
	})
}
