package deploy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/health"
	"ferry/internal/inventory"
	"ferry/internal/run"
	"ferry/internal/session"
	"ferry/internal/target"
)

// fakeCheck is a target that runs a check's command.
func fakeCheck(dir string, wire *agent.Wire) {
	r := agenttest.ReadRequest(wire)
	agenttest.Record(dir, fmt.Sprintf("%s %q for %d s", r.Method, r.Check.Argv, r.Check.Timeout))
	_ = wire.WriteJSON(agent.FrameResponse, agent.Response{ID: r.ID, Check: endOfCheck(r.Check.Argv)})
}

// endOfCheck is how a check's command ends there.
func endOfCheck(argv []string) *agent.CheckResult {
	switch argv[0] {
	case "fails":
		return &agent.CheckResult{Status: 3, Output: []string{"no\x1b[31m", "not yet"}}
	case "hangs":
		return &agent.CheckResult{Status: -1, TimedOut: true}
	case "missing":
		return &agent.CheckResult{Status: -1, Error: "there is no such program on the target"}
	}
	return &agent.CheckResult{}
}

// fakeDial is ssh when it runs the agent to connect: every name on the target leads to the address in the file dial.
func fakeDial(dir, line, address string) int {
	agenttest.Record(dir, line)
	to, err := os.ReadFile(filepath.Join(dir, "dial"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "ferry-agent: connect to %s: connection refused\n", address)
		return 1
	}
	conn, err := net.Dial("tcp", string(to))
	if err != nil {
		return 9
	}
	fmt.Println(agent.Connected)
	go func() { _, _ = io.Copy(conn, os.Stdin) }()
	_, _ = io.Copy(os.Stdout, conn)
	return 0
}

// checked makes the checks of a node and gives what was reported.
func checked(t *testing.T, n *fakeNode, checks health.Checks) ([]string, error) {
	t.Helper()
	if _, err := n.Link.Open(agenttest.Soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := checks.Validate(); err != nil {
		t.Fatal(err)
	}
	var reported []string
	err := runChecks(agenttest.Soon(t), checks, n.Link, func(e session.Event) {
		reported = append(reported, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, e.Step, e.Text)))
	})
	return reported, err
}

func commands(names ...string) health.Checks {
	checks := health.Default()
	for _, name := range names {
		checks.Commands = append(checks.Commands, health.Command{Run: []string{name, "a b"}, Timeout: 20})
	}
	return checks
}

func requestFrom(place health.Place, url string) health.Checks {
	return health.Checks{Units: health.NoNew, HTTP: []health.HTTP{{URL: url, Status: 200, From: place, Timeout: 1}}}
}

func TestChecksThatPassAreTold(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	n := newFakeNode(t, action.Switch, "checks checks")
	checks := commands("one", "two")
	checks.HTTP = requestFrom(health.Here, server.URL).HTTP
	reported, err := checked(t, n, checks)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(reported[1:4])
	want := []string{
		"started check", "line check command one 'a b': ok", "line check command two 'a b': ok", "line check http " + server.URL + ": ok",
		"finished check 3 checks passed",
	}
	if !slices.Equal(reported, want) {
		t.Errorf("reported %q", reported)
	}
	if got := n.Record(t); !slices.Equal(got, []string{`check ["one" "a b"] for 20 s`, `check ["two" "a b"] for 20 s`}) {
		t.Errorf("the agent was asked for %q", got)
	}
}

func TestNoChecksAreNoStep(t *testing.T) {
	n := newFakeNode(t, action.Switch, "dies")
	if reported, err := checked(t, n, health.Default()); err != nil || reported != nil {
		t.Errorf("reported %q, %v", reported, err)
	}
}

func TestCheckThatFailsIsAFailureOfTheNode(t *testing.T) {
	for name, want := range map[string]string{
		"fails": "exit status 3", "hangs": "did not end within 20s", "missing": "there is no such program on the target",
	} {
		n := newFakeNode(t, action.Switch, "checks checks")
		reported, err := checked(t, n, commands("good", name))
		var failure *health.Failure
		if !errors.As(err, &failure) || err.Error() != "command "+name+" 'a b': "+want {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Contains(reported, "line check "+err.Error()) || strings.HasPrefix(reported[len(reported)-1], "finished") {
			t.Errorf("%s: reported %q", name, reported)
		}
		if name == "fails" && !slices.Equal(session.Output(err), []string{"no", "not yet"}) {
			t.Errorf("it wrote %q", session.Output(err))
		}
	}
}

func TestCommandIsRunAgainWhenTheConnectionIsLost(t *testing.T) {
	n := newFakeNode(t, action.Switch, "checks dies", "resumed checks")
	if _, err := checked(t, n, commands("one", "two")); err != nil {
		t.Fatal(err)
	}
	if got := n.Record(t); !slices.Equal(got, []string{`check ["one" "a b"] for 20 s`, `check ["two" "a b"] for 20 s`}) {
		t.Errorf("the agent was asked for %q", got)
	}
	n = newFakeNode(t, action.Switch, "checks dies", "denied")
	var failure *health.Failure
	if _, err := checked(t, n, commands("one", "two")); err == nil || errors.As(err, &failure) || !strings.Contains(err.Error(), "command two") {
		t.Errorf("a node that cannot be asked: %v", err)
	}
}

func TestRequestFromTheTargetIsMadeThere(t *testing.T) {
	var host string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { host = r.Host }))
	t.Cleanup(server.Close)
	n := newFakeNode(t, action.Switch, "checks")
	if err := os.WriteFile(filepath.Join(n.Dir, "dial"), []byte(server.Listener.Addr().String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := checked(t, n, requestFrom(health.Target, "http://only.there:8080/")); err != nil {
		t.Fatal(err)
	}
	program, err := agent.ProgramFor("x86_64-linux")
	if err != nil {
		t.Fatal(err)
	}
	if want := "/var/lib/ferry/agent-" + program.Hash + " dial only.there:8080"; host != "only.there:8080" || !slices.Contains(n.Record(t), want) {
		t.Errorf("%q was asked, by %q", host, n.Record(t))
	}
}

func TestRequestFromTheTargetThatFailsSaysWhatTheTargetSaw(t *testing.T) {
	n := newFakeNode(t, action.Switch, "checks")
	_, err := checked(t, n, requestFrom(health.Target, "https://only.there/"))
	var failure *health.Failure
	if !errors.As(err, &failure) || err.Error() != "http https://only.there/ from the target: connect to only.there:443: connection refused" {
		t.Errorf("got %v", err)
	}
}

func TestOnThisMachineTargetIsHere(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	v, err := session.Session{Dialer: &target.Dialer{Runner: new(run.Runner)}}.Visit(nil, inventory.Node{Target: "local"}, session.Reading)
	if err != nil {
		t.Fatal(err)
	}
	if err := runChecks(agenttest.Soon(t), requestFrom(health.Target, server.URL), v.Link, func(session.Event) {}); err != nil {
		t.Error(err)
	}
}
