package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"ferry/internal/prose"
	"ferry/internal/run"
)

func (h HTTP) name() string {
	name := "http " + prose.Cut(h.URL, shown)
	if h.From == Target {
		name += " from the target"
	}
	return name
}

// The pause between two tries of a request.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = time.Second
)

// dialer is how a connection is made.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// check asks until the answer is right or the time is over. there connects from the node.
func (h HTTP) check(ctx context.Context, index int, there dialer) error {
	limited, cancel := context.WithTimeout(ctx, h.Timeout.Duration())
	defer cancel()
	client := h.client(there)
	var last *Failure
	for pause := firstPause; ; pause = min(pause*3/2, lastPause) {
		failure := h.try(limited, client)
		if failure == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// A try that the deadline cut short says less than the one before it.
		if limited.Err() == nil || last == nil {
			last = failure
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			last.Check = h.name()
			last.Advice = append(last.Advice, fmt.Sprintf("it was tried for %v; if that is too short: checks.http[%d].timeout in the inventory",
				h.Timeout.Duration(), index))
			return last
		case <-time.After(pause):
		}
	}
}

// client is for one check: each try makes a connection of its own, asks without a proxy, whatever the environment says, and
// takes a redirect for an answer. Over TLS the certificate has to be one that this machine trusts.
func (h HTTP) client(there dialer) *http.Client {
	var dial dialer = new(net.Dialer).DialContext
	if h.From == Target {
		dial = there
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: nil, DialContext: dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// try asks once; nil: the answer is right.
func (h HTTP) try(ctx context.Context, client *http.Client) *Failure {
	life, end := context.WithCancel(ctx)
	defer end()
	request, err := http.NewRequestWithContext(life, http.MethodGet, h.URL, nil)
	if err != nil {
		return h.noAnswer(ctx, err)
	}
	request.Header.Set("User-Agent", "ferry")
	response, err := client.Do(request)
	if err != nil {
		return h.noAnswer(ctx, err)
	}
	defer response.Body.Close()
	if response.StatusCode != h.Status {
		// What it says is good to know and not worth waiting for.
		defer time.AfterFunc(time.Second, end).Stop()
		return h.wrongStatus(response)
	}
	if h.Contains == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxBody))
	if strings.Contains(string(body), h.Contains) {
		return nil
	}
	if err != nil {
		return h.noAnswer(ctx, fmt.Errorf("the answer broke off: %w", err))
	}
	return &Failure{Text: fmt.Sprintf("the answer does not contain %q", prose.Cut(h.Contains, shown)), Lines: run.LastLines(string(body), 20)}
}

func (h HTTP) wrongStatus(response *http.Response) *Failure {
	f := &Failure{Text: fmt.Sprintf("status %d, expected %d", response.StatusCode, h.Status)}
	if to := response.Header.Get("Location"); to != "" && response.StatusCode/100 == 3 {
		f.Text = fmt.Sprintf("status %d to %s, expected %d", response.StatusCode, prose.Cut(run.Clean(to), shown), h.Status)
		f.Advice = []string{"redirects are not followed: check where it leads to, or expect its status"}
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	f.Lines = run.LastLines(string(body), 20)
	return f
}

// noAnswer is the failure of a try that was not answered.
func (h HTTP) noAnswer(ctx context.Context, err error) *Failure {
	if ctx.Err() != nil {
		return &Failure{Text: fmt.Sprintf("no answer within %v", h.Timeout.Duration())}
	}
	// It names method and URL again.
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	f := &Failure{Text: run.Clean(strings.ReplaceAll(err.Error(), "\n", " "))}
	var with interface{ Hints() []string }
	if errors.As(err, &with) {
		f.Advice = with.Hints()
	}
	return f
}

// limit is dial with at most n connections that are not closed yet; it waits for the end of another one.
func limit(dial dialer, n int) dialer {
	slots := make(chan struct{}, n)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			<-slots
			return nil, err
		}
		return &limitedConn{Conn: conn, free: sync.OnceFunc(func() { <-slots })}, nil
	}
}

// limitedConn makes way for another connection when it is closed.
type limitedConn struct {
	net.Conn
	free func()
}

func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
