package ship

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"ferry/internal/agent"
	"ferry/internal/nix"
)

// Progress is how far a ship is.
type Progress struct {
	Paths, TotalPaths int    // registered on the target, and of how many
	Bytes, TotalBytes uint64 // of NARs, read here
	Wire              uint64 // bytes sent
}

// Result is a finished ship.
type Result struct {
	Paths    int           // registered on the target
	Bytes    uint64        // of NARs, read here
	Wire     uint64        // bytes sent
	Duration time.Duration // from the first byte to the last path's registration
	Peak     int64         // the agent's largest resident size in bytes
}

// Send sends what the plan says. progress is called several times a second from another goroutine; it has ended when Send
// returns. After an error, what was registered stays, and a new plan sends the rest.
func (p *Plan) Send(ctx context.Context, session *agent.Session, progress func(Progress)) (Result, error) {
	start := time.Now()
	var read, wire atomic.Uint64
	var registered atomic.Int64
	report := func() {
		progress(Progress{
			Paths: int(registered.Load()), TotalPaths: len(p.Missing), Bytes: read.Load(), TotalBytes: p.Bytes, Wire: wire.Load(),
		})
	}
	stop := every(100*time.Millisecond, report)
	shipped, err := session.Ship(ctx, p.Root, func(w io.Writer) error {
		return p.write(ctx, &countingWriter{w, &wire}, &read)
	}, func(ack agent.Progress) {
		registered.Store(int64(ack.Registered))
	})
	stop()
	report()
	result := Result{Paths: int(registered.Load()), Bytes: read.Load(), Wire: wire.Load(), Duration: time.Since(start), Peak: shipped.Peak}
	if err == nil && shipped.Registered != len(p.Missing) {
		err = fmt.Errorf("the agent has registered %d of %d paths", shipped.Registered, len(p.Missing))
	}
	return result, err
}

// write writes the stream of package agent's ShipHeader.
func (p *Plan) write(ctx context.Context, w io.Writer, read *atomic.Uint64) error {
	z := newCompressor(w, time.Now)
	defer z.stop()
	buffered := bufio.NewWriterSize(z, 256<<10)
	for _, info := range p.Missing {
		if err := writePath(ctx, buffered, info, read); err != nil {
			var vanished *VanishedError
			if errors.As(err, &vanished) && buffered.Flush() == nil {
				// The paths before it are worth having.
				_ = z.Close()
			}
			return err
		}
	}
	if _, err := buffered.Write(make([]byte, 4)); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	return z.Close()
}

// writePath writes a path's header and NAR. That it cannot be read is a [*VanishedError].
func writePath(ctx context.Context, w io.Writer, info nix.PathInfo, read *atomic.Uint64) error {
	if err := writeHeader(w, info); err != nil {
		return err
	}
	out := &narWriter{w: w, read: read, left: info.NarSize}
	if err := nix.DumpPath(ctx, out, string(info.Path)); err != nil {
		if out.err != nil || ctx.Err() != nil {
			return err
		}
		return &VanishedError{Path: info.Path, Err: err}
	}
	if out.left != 0 {
		return &VanishedError{Path: info.Path, Err: errors.New("it has not the size that Nix registered")}
	}
	return nil
}

func writeHeader(w io.Writer, info nix.PathInfo) error {
	text, err := json.Marshal(agent.ShipHeader{
		Path: info.Path, Deriver: info.Deriver, NarHash: info.NarHash, NarSize: info.NarSize,
		References: info.References, Signatures: info.Signatures, CA: info.CA,
	})
	if err != nil {
		return err
	}
	if len(text) > agent.MaxShipHeader {
		return fmt.Errorf("%s has too many references to send", info.Path)
	}
	if err := binary.Write(w, binary.BigEndian, uint32(len(text))); err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// narWriter counts a NAR's bytes, refuses more than Nix registered, and remembers whether writing or reading failed.
type narWriter struct {
	w    io.Writer
	read *atomic.Uint64
	left uint64
	err  error
}

func (n *narWriter) Write(p []byte) (int, error) {
	if uint64(len(p)) > n.left {
		return 0, errors.New("it is larger than Nix registered")
	}
	written, err := n.w.Write(p)
	n.left -= uint64(written)
	n.read.Add(uint64(written))
	n.err = err
	return written, err
}

type countingWriter struct {
	w     io.Writer
	count *atomic.Uint64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.count.Add(uint64(n))
	return n, err
}

// every calls f again and again until the function it returns is called, which waits for the last call's end.
func every(interval time.Duration, f func()) (stop func()) {
	ticker := time.NewTicker(interval)
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ticker.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(quit)
		<-ended
	}
}
