package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ferry/internal/agent"
	"ferry/internal/agent/receive"
	"ferry/internal/run"
)

const (
	// connectTime is how long one connection may take to be made.
	connectTime = 10 * time.Second
)

// Dial connects by TCP to address, HOST:PORT as this machine knows it, says so with [agent.Connected] on a line of its own,
// and joins the connection with in and out until the far side ends it. It needs no privileges.
func Dial(ctx context.Context, address string, in io.Reader, out io.Writer) error {
	conn, err := connect(ctx, address)
	if err != nil {
		return errors.New(run.Clean(fmt.Sprintf("connect to %s: %v", address, receive.Reason(err))))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := io.WriteString(out, agent.Connected+"\n"); err != nil {
		return err
	}
	return receive.Join(conn, in, out)
}

func connect(ctx context.Context, address string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	hosts, err := resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	for i, h := range hosts {
		var conn net.Conn
		conn, err = connectOne(ctx, net.JoinHostPort(h, port), len(hosts)-i)
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// connectOne tries one address for its share of the time that is left.
func connectOne(ctx context.Context, address string, left int) (net.Conn, error) {
	if deadline, limited := ctx.Deadline(); limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// resolve finds the addresses of a host as the programs of this machine do: /etc/hosts, DNS, multicast DNS, containers,
// whatever nsswitch.conf says. Only the machine's own C library knows all of that, and getent asks it. Where there is no
// getent, the name is left to the dialer, which knows hosts and DNS.
func resolve(ctx context.Context, host string) ([]string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{host}, nil
	}
	out, err := new(run.Runner).Output(ctx, run.Command{Argv: []string{"getent", "ahosts", "--", host}})
	if run.NotFound(err) {
		return []string{host}, nil
	}
	var hosts []string
	for line := range strings.Lines(string(out)) {
		address, _, _ := strings.Cut(line, " ")
		if _, err := netip.ParseAddr(address); err == nil && len(hosts) < 8 && !slices.Contains(hosts, address) {
			hosts = append(hosts, address)
		}
	}
	if len(hosts) == 0 && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(hosts) == 0 {
		return nil, errors.New("no such host")
	}
	return hosts, nil
}
