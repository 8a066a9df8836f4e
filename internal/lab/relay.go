package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// RelayOptions say what a relay does to the bytes that pass. The zero value lets them pass.
type RelayOptions struct {
	// Delay is added to every round trip, half of it each way.
	Delay time.Duration
	// CutAfter, if not 0, ends a connection once that many bytes, in both directions together, have passed.
	CutAfter int64
}

// Traffic is what has passed a relay.
type Traffic struct {
	Connections int
	Up, Down    int64 // bytes to and from the target
	// Turns counts how often the sending side changed to the near one: what a connection costs in round trips.
	Turns int
}

// Relay passes TCP connections on, and is where a test makes a network slow, count, freeze or break.
type Relay struct {
	listener net.Listener
	to       string
	opts     RelayOptions
	ctx      context.Context
	cancel   context.CancelFunc
	wait     sync.WaitGroup

	mu      sync.Mutex
	traffic Traffic
	open    map[io.Closer]bool
	thaw    chan struct{} // nil while not frozen, closed to go on
	left    int64         // bytes to the target until then is called; 0: it is not
	then    func(*carried)
}

// StartRelay starts a relay on a free port of the lab's network to addr, for the time of a test.
func StartRelay(tb testing.TB, addr netip.AddrPort, opts RelayOptions) *Relay {
	tb.Helper()
	relay, err := OpenRelay(addr.String(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(relay.Close)
	return relay
}

// OpenRelay starts a relay on a free port of loopback to addr, "host:port". Close ends it.
func OpenRelay(addr string, opts RelayOptions) (*Relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	return ServeRelay(listener, addr, opts), nil
}

// ServeRelay is OpenRelay for a listener that is there already, and that the relay now owns.
func ServeRelay(listener net.Listener, addr string, opts RelayOptions) *Relay {
	r := &Relay{listener: listener, to: addr, opts: opts, open: map[io.Closer]bool{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.wait.Go(r.accept)
	return r
}

// RelayStream passes one stream on to addr, "host:port" or the path of a socket, until both sides have ended.
func RelayStream(ctx context.Context, near io.ReadWriteCloser, addr string, opts RelayOptions) (Traffic, error) {
	far, err := new(net.Dialer).DialContext(ctx, networkOf(addr), addr)
	if err != nil {
		near.Close()
		return Traffic{}, fmt.Errorf("relay: %w", err)
	}
	r := &Relay{opts: opts, open: map[io.Closer]bool{}}
	r.ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	r.carry(near, far)
	return r.Traffic(), nil
}

func networkOf(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

// Addr is where it listens, if that is a TCP port.
func (r *Relay) Addr() netip.AddrPort {
	return r.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Traffic returns what has passed so far.
func (r *Relay) Traffic() Traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.traffic
}

// Cut ends all connections that are open. New ones are accepted.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.open {
		conn.Close()
	}
}

// Freeze lets nothing pass until Thaw, as a link that has gone silent; nothing is lost.
func (r *Relay) Freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.thaw == nil {
		r.thaw = make(chan struct{})
	}
}

// CutIn ends a connection once that many more bytes have gone to the target: the one that has the next. New ones are accepted.
func (r *Relay) CutIn(bytes int64) { r.in(bytes, func(c *carried) { c.cut = true }) }

// FreezeIn is Freeze once that many more bytes have gone to the target, and not one more.
func (r *Relay) FreezeIn(bytes int64) {
	r.in(bytes, func(*carried) {
		if r.thaw == nil {
			r.thaw = make(chan struct{})
		}
	})
}

func (r *Relay) in(bytes int64, then func(*carried)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left, r.then = max(bytes, 1), then
}

// Thaw ends a Freeze.
func (r *Relay) Thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.thaw != nil {
		close(r.thaw)
		r.thaw = nil
	}
}

// Close ends all connections and the relay.
func (r *Relay) Close() {
	r.cancel()
	r.listener.Close()
	r.Cut()
	r.wait.Wait()
}

func (r *Relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.wait.Go(func() {
			far, err := new(net.Dialer).DialContext(r.ctx, "tcp", r.to)
			if err != nil {
				near.Close()
				return
			}
			r.carry(near, far)
		})
	}
}

// carry passes bytes between near and far until both sides have ended or the connection is cut, and closes both.
func (r *Relay) carry(near, far io.ReadWriteCloser) {
	r.mu.Lock()
	r.traffic.Connections++
	r.open[near], r.open[far] = true, true
	r.mu.Unlock()
	c := &carried{relay: r, near: near, far: far}
	var wait sync.WaitGroup
	wait.Go(func() { c.pass(near, far, true) })
	wait.Go(func() { c.pass(far, near, false) })
	wait.Wait()
	r.mu.Lock()
	delete(r.open, near)
	delete(r.open, far)
	r.mu.Unlock()
	near.Close()
	far.Close()
}

// carried is one connection on its way.
type carried struct {
	relay     *Relay
	near, far io.ReadWriteCloser

	// Guarded by relay.mu.
	passed int64
	last   bool // the side that sent last was the near one
	cut    bool // nothing more may pass
}

type parcel struct {
	data []byte
	due  time.Time
}

// inFlight is how many parcels of at most 32 KiB may be on their way, so that a delay does not cost throughput.
const inFlight = 512

// pass carries one direction. Its end is passed on as such, an error ends both directions.
func (c *carried) pass(from, to io.ReadWriteCloser, up bool) {
	parcels := make(chan parcel, inFlight)
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := c.deliver(to, parcels, up); err != nil {
			c.near.Close()
			c.far.Close()
		}
		for range parcels { // the reader must not be left standing
		}
	})
	for {
		data := make([]byte, 32<<10)
		n, err := from.Read(data)
		if n > 0 {
			parcels <- parcel{data[:n], time.Now().Add(c.relay.opts.Delay / 2)}
		}
		if err != nil {
			break
		}
	}
	close(parcels)
	wait.Wait()
}

var errCut = errors.New("cut")

func (c *carried) deliver(to io.WriteCloser, parcels <-chan parcel, up bool) error {
	for p := range parcels {
		if err := pause(c.relay.ctx, time.Until(p.due)); err != nil {
			return err
		}
		for rest := p.data; len(rest) > 0; {
			if err := c.relay.awaitThaw(); err != nil {
				return err
			}
			n := c.count(int64(len(rest)), up)
			if n == 0 {
				return errCut
			}
			if _, err := to.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return io.EOF
}

// count records that n bytes are about to pass and says how many of them may.
func (c *carried) count(n int64, up bool) int64 {
	r := c.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if limit := r.opts.CutAfter; limit > 0 {
		n = max(0, min(n, limit-c.passed))
	}
	switch {
	case c.cut:
		n = 0
	case up && r.left > 0:
		n = min(n, r.left)
		if r.left -= n; r.left == 0 {
			r.then(c)
		}
	}
	c.passed += n
	if up {
		r.traffic.Up += n
	} else {
		r.traffic.Down += n
	}
	if up && !c.last {
		r.traffic.Turns++
	}
	c.last = up
	return n
}

func (r *Relay) awaitThaw() error {
	r.mu.Lock()
	thaw := r.thaw
	r.mu.Unlock()
	if thaw == nil {
		return nil
	}
	select {
	case <-thaw:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}
