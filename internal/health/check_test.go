package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeNode is a machine on which every name leads to one address.
type fakeNode struct {
	address  string
	open     atomic.Int32
	most     atomic.Int32
	outcomes map[string]Outcome
	lost     error
	mu       sync.Mutex
	ran      []string
	dialed   []string
}

type countedConn struct {
	net.Conn
	close func()
}

func (c *countedConn) Close() error {
	c.close()
	return c.Conn.Close()
}

func (n *fakeNode) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, address)
	n.mu.Unlock()
	if n.address == "" {
		return nil, fmt.Errorf("connect to %s:\nno route to host\x1b[2J", address)
	}
	for open := n.open.Add(1); ; {
		most := n.most.Load()
		if open <= most || n.most.CompareAndSwap(most, open) {
			break
		}
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, n.address)
	if err != nil {
		n.open.Add(-1)
		return nil, err
	}
	return &countedConn{conn, sync.OnceFunc(func() { n.open.Add(-1) })}, nil
}

func (n *fakeNode) Command(_ context.Context, c Command) (Outcome, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ran = append(n.ran, strings.Join(c.Run, " "))
	return n.outcomes[c.Run[0]], n.lost
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

// answer is a service that always says the same.
func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func get(url string) HTTP { return HTTP{URL: url, Status: 200, From: Here, Timeout: 10} }

func TestRunReportsEachCheckAndGivesTheFirstFailureInOrder(t *testing.T) {
	good, bad := serve(t, answer(200, "ok")), serve(t, answer(503, "the database\x1b[31m is away\n\nreally\n"))
	slow := get(bad.URL)
	slow.Timeout = 1
	node := &fakeNode{outcomes: map[string]Outcome{"false": {Status: 3, Output: []string{"no"}}}}
	checks := Checks{HTTP: []HTTP{get(good.URL), slow}, Commands: []Command{{Run: []string{"true"}, Timeout: 1}, {Run: []string{"false", "a b"}, Timeout: 1}}}
	said := map[string]string{}
	err := checks.Run(t.Context(), node, func(r Result) { said[r.Name] = fmt.Sprint(r.Err) })
	var failure *Failure
	if !errors.As(err, &failure) || err.Error() != "http "+bad.URL+": status 503, expected 200" {
		t.Fatalf("got %v", err)
	}
	if !slices.Equal(failure.Output(), []string{"the database is away", "really"}) {
		t.Errorf("output %q", failure.Output())
	}
	if hints := failure.Hints(); len(hints) != 1 || !strings.Contains(hints[0], "tried for 1s") || !strings.Contains(hints[0], "checks.http[1].timeout") {
		t.Errorf("hints %q", hints)
	}
	want := map[string]string{
		"http " + good.URL: "<nil>", "http " + bad.URL: err.Error(),
		"command true": "<nil>", "command false 'a b'": "command false 'a b': exit status 3",
	}
	if fmt.Sprint(said) != fmt.Sprint(want) {
		t.Errorf("reported %q", said)
	}
}

func TestRequestIsTriedUntilTheServiceHasStarted(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	var tries atomic.Int32
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) < 3 {
			w.WriteHeader(503)
		}
	})}
	t.Cleanup(func() { _ = server.Close() })
	time.AfterFunc(300*time.Millisecond, func() {
		if listener, err := net.Listen("tcp", address); err == nil {
			_ = server.Serve(listener)
		}
	})
	if err := (Checks{HTTP: []HTTP{get("http://" + address)}}).Run(t.Context(), nil, func(Result) {}); err != nil {
		t.Error(err)
	}
	if n := tries.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

func TestRequestThatFailsSaysWhyLast(t *testing.T) {
	closed := serve(t, answer(200, ""))
	closed.Close()
	hangs := make(chan struct{})
	silent := serve(t, func(http.ResponseWriter, *http.Request) { <-hangs })
	var asked atomic.Int32
	thenSilent := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > 1 {
			<-hangs
		}
		w.WriteHeader(500)
	})
	endless := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("and so on\n"))
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	})
	t.Cleanup(func() { close(hangs) })
	tls := httptest.NewUnstartedServer(answer(200, ""))
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	t.Cleanup(tls.Close)
	moved := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set("Location", "/new\u202e")
			w.WriteHeader(302)
		}
	})
	cases := map[string]struct {
		check HTTP
		says  string
	}{
		"nobody listens":       {get(closed.URL), "connection refused"},
		"no answer":            {get(silent.URL), "no answer within 1s"},
		"first 500, then none": {get(thenSilent.URL), "status 500, expected 200"},
		"an endless error":     {get(endless.URL), "status 404, expected 200"},
		"a redirect":           {get(moved.URL), "status 302 to /new?, expected 200"},
		"unknown certificate":  {get(tls.URL), "certificate"},
		"not HTTP at all":      {get("http" + strings.TrimPrefix(tls.URL, "https")), "status 400, expected 200"},
		"another text": {HTTP{URL: serve(t, answer(200, "version 1")).URL, Status: 200, From: Here, Contains: "version\n2"},
			`the answer does not contain "version\n2"`},
		"no route from the target": {HTTP{URL: "http://web1/", Status: 200, From: Target}, "from the target: connect to web1:80: no route to host"},
	}
	var checks Checks
	for _, c := range cases {
		c.check.Timeout = 1
		if c.says == "certificate" {
			// That takes some work.
			c.check.Timeout = 4
		}
		checks.HTTP = append(checks.HTTP, c.check)
	}
	said := map[string]error{}
	if err := checks.Run(t.Context(), new(fakeNode), func(r Result) { said[r.Name] = r.Err }); err == nil {
		t.Error("all is well")
	}
	for name, c := range cases {
		err := said[c.check.name()]
		var failure *Failure
		if !errors.As(err, &failure) || !strings.Contains(err.Error(), c.says) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRightAnswers(t *testing.T) {
	var agents, hosts sync.Map
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		agents.Store(r.Header.Get("User-Agent"), true)
		hosts.Store(r.Host, true)
		switch r.URL.Path {
		case "/private":
			w.WriteHeader(401)
		case "/moved":
			http.Redirect(w, r, "/private", http.StatusMovedPermanently)
		case "/version":
			_, _ = w.Write([]byte("this is version 2\n"))
		case "/endless":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	})
	node := &fakeNode{address: server.Listener.Addr().String()}
	// A proxy that the environment names has nothing to do with how the node answers.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	checks := Checks{HTTP: []HTTP{
		{URL: server.URL + "/private", Status: 401, From: Here, Timeout: 5},
		{URL: server.URL + "/moved", Status: 301, From: Here, Timeout: 5},
		{URL: server.URL + "/version", Status: 200, From: Here, Timeout: 5, Contains: "version 2"},
		{URL: server.URL + "/endless", Status: 200, From: Here, Timeout: 5},
		{URL: "http://web1/", Status: 200, From: Target, Timeout: 5},
		{URL: "http://web1:8080/private", Status: 401, From: Target, Timeout: 5},
	}}
	if err := checks.Run(t.Context(), node, func(Result) {}); err != nil {
		t.Error(err)
	}
	if _, found := agents.Load("ferry"); !found {
		t.Error("it does not say who asks")
	}
	for _, host := range []string{"web1", "web1:8080"} {
		if _, found := hosts.Load(host); !found {
			t.Errorf("%s was not asked for", host)
		}
	}
	slices.Sort(node.dialed)
	if !slices.Equal(node.dialed, []string{"web1:80", "web1:8080"}) {
		t.Errorf("from the target it connected to %q", node.dialed)
	}
}

// TestFewConnectionsAreMadeFromTheTargetAtOnce locks that checks do not use up the sessions that an ssh server allows.
func TestFewConnectionsAreMadeFromTheTargetAtOnce(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) { time.Sleep(20 * time.Millisecond) })
	node := &fakeNode{address: server.Listener.Addr().String()}
	var checks Checks
	for range 20 {
		checks.HTTP = append(checks.HTTP, HTTP{URL: "http://web1/", Status: 200, From: Target, Timeout: 10})
	}
	if err := checks.Run(t.Context(), node, func(Result) {}); err != nil {
		t.Error(err)
	}
	if most := node.most.Load(); most > maxDials || most < 2 {
		t.Errorf("%d were open at once", most)
	}
	// The last ones are closed behind the request's back.
	for end := time.Now().Add(10 * time.Second); node.open.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d are left open", node.open.Load())
		}
	}
}

func TestCommandThatFailsSaysHow(t *testing.T) {
	long := Command{Run: []string{"x", strings.Repeat("word ", 100) + "\x1b[2J"}, Timeout: 2}
	for name, c := range map[string]struct {
		command Command
		outcome Outcome
		want    string
	}{
		"its status":      {Command{Run: []string{"x"}, Timeout: 2}, Outcome{Status: 1}, "command x: exit status 1"},
		"too late":        {Command{Run: []string{"x"}, Timeout: 2}, Outcome{Status: -1, TimedOut: true, Problem: "killed"}, "command x: did not end within 2s"},
		"why not started": {Command{Run: []string{"x"}, Timeout: 2}, Outcome{Status: -1, Problem: "no such program"}, "command x: no such program"},
		"a long name":     {long, Outcome{Status: 1}, "command x 'word word "},
	} {
		t.Run(name, func(t *testing.T) {
			node := &fakeNode{outcomes: map[string]Outcome{"x": c.outcome}}
			err := Checks{Commands: []Command{c.command}}.Run(t.Context(), node, func(Result) {})
			var failure *Failure
			if !errors.As(err, &failure) || !strings.HasPrefix(err.Error(), c.want) || len(err.Error()) > 200 {
				t.Errorf("got %v", err)
			}
			if c.outcome.TimedOut != (len(failure.Hints()) == 1) {
				t.Errorf("hints %q", failure.Hints())
			}
		})
	}
}

func TestCommandsRunInTheirOrderAndAllOfThem(t *testing.T) {
	node := &fakeNode{outcomes: map[string]Outcome{"b": {Status: 1}}}
	var checks Checks
	for _, word := range []string{"a", "b", "c"} {
		checks.Commands = append(checks.Commands, Command{Run: []string{word}, Timeout: 1})
	}
	if err := checks.Run(t.Context(), node, func(Result) {}); err == nil || err.Error() != "command b: exit status 1" {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(node.ran, []string{"a", "b", "c"}) {
		t.Errorf("ran %q", node.ran)
	}
}

// A connection that is lost is not a node that answers wrongly.
func TestLostConnectionIsNoFailureOfTheNode(t *testing.T) {
	node := &fakeNode{lost: errors.New("connection lost")}
	err := Checks{Commands: []Command{{Run: []string{"a"}, Timeout: 1}}}.Run(t.Context(), node, func(Result) {})
	var failure *Failure
	if !errors.Is(err, node.lost) || errors.As(err, &failure) {
		t.Errorf("got %v", err)
	}
}

func TestCancellingEndsTheChecks(t *testing.T) {
	server := serve(t, answer(503, ""))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	check := get(server.URL)
	check.Timeout = 600
	err := Checks{HTTP: []HTTP{check}}.Run(ctx, nil, func(r Result) { t.Errorf("reported %+v", r) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
