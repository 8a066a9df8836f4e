package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/target"
)

const (
	pathA nix.StorePath = "/nix/store/00000000000000000000000000000000-a"
	pathB nix.StorePath = "/nix/store/11111111111111111111111111111111-b"
)

// soon bounds a test that would hang if what it tests were wrong.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func sudoOptions(passwords ...string) (Options, *int) {
	asked := new(int)
	return Options{Elevate: []string{"sudo"}, Who: "alice@here", Session: "s1", Lock: true,
		Password: func(_ context.Context, _ string, attempt int) ([]byte, error) {
			*asked = attempt
			if attempt > len(passwords) {
				return nil, errors.New("no more passwords")
			}
			return []byte(passwords[attempt-1]), nil
		}}, asked
}

// open opens a session that must work.
func open(t *testing.T, agent string) *Session {
	t.Helper()
	d, addr := fakeTarget(t, "", agent)
	opts, _ := sudoOptions()
	s, err := Open(soon(t), d, addr, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestOpenAnswersSudo(t *testing.T) {
	for name, c := range map[string]struct {
		password string // of the user; empty: sudo does not ask
		given    []string
		asked    int
	}{
		"no password needed": {"", nil, 0},
		"right at once":      {"secret", []string{"secret"}, 1},
		"right at last":      {"secret", []string{"wrong", "", "secret"}, 3},
		"with odd letters":   {" p'\\\"$(x) ü", []string{" p'\\\"$(x) ü"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d, addr := fakeTarget(t, c.password, "serves")
			opts, asked := sudoOptions(c.given...)
			s, err := Open(soon(t), d, addr, opts)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if *asked != c.asked {
				t.Errorf("asked %d times", *asked)
			}
			if s.Installed {
				t.Error("the agent was sent, and nobody asked for it")
			}
		})
	}
}

func TestOpenFails(t *testing.T) {
	for name, c := range map[string]struct {
		env   map[string]string
		agent string
		given []string
		kind  ElevateKind
		says  string
	}{
		"wrong password three times":  {nil, "serves", []string{"a", "b", "c"}, WrongPassword, "the password was wrong"},
		"nobody to give a password":   {nil, "serves", []string{"a"}, "", "no more passwords"},
		"user may not":                {map[string]string{"FAKE_SUDO_SAYS": "alice is not in the sudoers file."}, "", nil, NotAllowed, "may not use sudo"},
		"ssh fails":                   {map[string]string{"FAKE_SSH_SAYS": "ssh: connect to host pi port 22: Connection refused\r\n"}, "", nil, "", "ssh alice@pi: connect to host pi port 22: Connection refused"},
		"login shell ends":            {map[string]string{"FAKE_LOGIN_SHELL": "echo 'this account is closed' >&2; exit 1; "}, "", nil, "", "this account is closed"},
		"machine without an agent":    {nil, "no program", []string{"secret"}, "", `"sparc64" machine`},
		"agent that was not offered":  {nil, "needs another", []string{"secret"}, "", `an agent for "vax"`},
		"agent asked for twice":       {nil, "needs twice", []string{"secret"}, "", "twice"},
		"installation fails":          {nil, "cannot install", []string{"secret"}, "", "is the disk full"},
		"line without an end":         {nil, "endless line", []string{"secret"}, "", "a line of more than 65536 bytes"},
		"greeting without an end":     {nil, "endless greeting", []string{"secret"}, "", "prints without end"},
		"end after the agent's line":  {nil, "no hello", []string{"secret"}, "", "the agent did not start"},
		"something else than a hello": {nil, "odd hello", []string{"secret"}, "", "not ferry's agent"},
		"hello that is too long":      {nil, "huge hello", []string{"secret"}, "", "the limit is"},
	} {
		t.Run(name, func(t *testing.T) {
			d, addr := fakeTarget(t, "secret", c.agent)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			opts, _ := sudoOptions(c.given...)
			begin := time.Now()
			s, err := Open(soon(t), d, addr, opts)
			if err == nil {
				s.Close()
				t.Fatal("it opened")
			}
			if !strings.Contains(err.Error(), c.says) || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("got %q", err)
			}
			var elevate *ElevateError
			if errors.As(err, &elevate) != (c.kind != "") || elevate != nil && elevate.Kind != c.kind {
				t.Errorf("got %#v", err)
			}
			if took := time.Since(begin); took > endGrace {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestOpenWithoutSudoOnTheTarget(t *testing.T) {
	d, addr := fakeTarget(t, "", "serves")
	opts, _ := sudoOptions()
	opts.Elevate = []string{"no-such-sudo"}
	_, err := Open(soon(t), d, addr, opts)
	var elevate *ElevateError
	if !errors.As(err, &elevate) || elevate.Kind != NotFound {
		t.Errorf("got %v", err)
	}
}

// A login shell that shows what it runs also shows the prompt that sudo is to use: that is no question.
func TestOpenDoesNotTakeAnEchoForAQuestion(t *testing.T) {
	for _, shell := range []string{"set -x; ", "set -v\n", "set -xv; export SHELLOPTS\n"} {
		d, addr := fakeTarget(t, "", "serves")
		t.Setenv("FAKE_LOGIN_SHELL", shell)
		opts, asked := sudoOptions("secret")
		var trace strings.Builder
		opts.Trace = &trace
		s, err := Open(soon(t), d, addr, opts)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if *asked != 0 {
			t.Errorf("%q: the password was given away", shell)
		}
		if !strings.Contains(trace.String(), "sudo") {
			t.Errorf("%q: the trace is %q", shell, trace.String())
		}
	}
}

func TestPasswordIsForgottenAndStaysOutOfProcesses(t *testing.T) {
	d, addr := fakeTarget(t, "open-sesame", "serves")
	password := []byte("open-sesame")
	opts, _ := sudoOptions()
	var lines []string
	d.Runner.Trace = func(argv []string) { lines = append(lines, run.QuoteAll(argv)) }
	opts.Password = func(context.Context, string, int) ([]byte, error) { return password, nil }
	s, err := Open(soon(t), d, addr, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if string(password) != strings.Repeat("\x00", 11) {
		t.Errorf("it is still there: %q", password)
	}
	if len(lines) != 1 || strings.Contains(lines[0], "sesame") {
		t.Errorf("ran %q", lines)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if text, err := os.ReadFile(p); err == nil && strings.Contains(string(text), "sesame") {
			t.Errorf("%s: %q", p, text)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	for name, agent := range map[string]string{"while sudo asks": "asks", "before the agent's line": "silent"} {
		t.Run(name, func(t *testing.T) {
			password := ""
			if agent == "asks" {
				password = "secret"
			}
			d, addr := fakeTarget(t, password, agent)
			ctx, cancel := context.WithCancel(soon(t))
			opts, _ := sudoOptions()
			opts.Password = func(ctx context.Context, _ string, _ int) ([]byte, error) {
				cancel()
				<-ctx.Done()
				return nil, ctx.Err()
			}
			if agent == "silent" {
				time.AfterFunc(200*time.Millisecond, cancel)
			}
			if _, err := Open(ctx, d, addr, opts); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			cancel()
		})
	}
}

func TestSessionOutlivesTheContextOfOpen(t *testing.T) {
	d, addr := fakeTarget(t, "", "serves")
	ctx, cancel := context.WithCancel(soon(t))
	opts, _ := sudoOptions()
	s, err := Open(ctx, d, addr, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cancel()
	time.Sleep(50 * time.Millisecond)
	if _, err := s.Missing(soon(t), []nix.StorePath{pathA, pathB}, false); err != nil {
		t.Error(err)
	}
}

func TestHelloIsCleaned(t *testing.T) {
	facts := open(t, "serves").Hello.Facts
	if facts.Host != "pi" || facts.Current != "" || facts.Profile == "" || facts.Lock.Who != "bob?ferry: done" {
		t.Errorf("got %+v, %+v", facts, facts.Lock)
	}
	if facts.Deployed != (Manifest{Node: "pi"}) || facts.Pending != "" || facts.Version+facts.Specialisation != "??" ||
		facts.Last.Who != "bob?" || facts.LastCommit.Who != "carol?" || facts.Previous.Current != "" {
		t.Errorf("got %+v, %+v, %+v, %+v", facts, facts.Last, facts.LastCommit, facts.Previous)
	}
}

func TestRequests(t *testing.T) {
	s := open(t, "serves")
	missing, err := s.Missing(soon(t), []nix.StorePath{pathA, pathB}, false)
	if err != nil || !slices.Equal(missing, []nix.StorePath{pathB}) {
		t.Errorf("missing %v, %v", missing, err)
	}
	var last Progress
	shipped, err := s.Ship(soon(t), pathA, func(w *Stream) error {
		_, err := w.Write(make([]byte, 3<<20))
		return err
	}, func(p Progress) { last = p })
	if err != nil || shipped.Peak != 3<<20 || last.Registered != 3 {
		t.Errorf("shipped %+v after %+v, %v", shipped, last, err)
	}
	var log strings.Builder
	activated, err := s.Activate(soon(t), Request{}, &log)
	if err != nil || activated.Status != 4 || log.String() != "line 0\nline 1\nline 2\n" {
		t.Errorf("activated %+v, %v: %q", activated, err, log.String())
	}
	if activated.Current != "" || activated.Failed[0] != "a.service" {
		t.Errorf("not cleaned: %+v", activated)
	}
	committed, err := s.Commit(soon(t), Request{}, nil)
	if err != nil || committed.Generation != 7 || committed.Error != "bad" {
		t.Errorf("committed %+v, %v", committed, err)
	}
}

// A path that vanishes in the middle is this side's error, and the agent is still there for the next request.
func TestStreamThatFailsHereLeavesTheSession(t *testing.T) {
	s := open(t, "serves")
	gone := errors.New("the path is gone")
	_, err := s.Ship(soon(t), pathA, func(w *Stream) error {
		if _, err := w.Write([]byte("odd")); err != nil {
			return err
		}
		return gone
	}, nil)
	if !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Missing(soon(t), []nix.StorePath{pathA, pathB}, false); err != nil {
		t.Error(err)
	}
}

// endlessly writes until it is stopped, as a ship of many gigabytes does.
func endlessly(w *Stream) error {
	piece := make([]byte, 64<<10)
	for {
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
}

func TestRefusalEndsTheStreamAtOnce(t *testing.T) {
	s := open(t, "refuses early")
	for range 2 {
		_, err := s.Ship(soon(t), pathA, endlessly, nil)
		var refused *ResponseError
		if !errors.As(err, &refused) || refused.Kind != KindDiskFull || refused.Text != "No space left" || refused.Stderr[0] != "error: ?writing" {
			t.Errorf("got %#v", err)
		}
	}
}

func TestAgentsThatMisbehaveInTheMiddleOfAShip(t *testing.T) {
	for agent, says := range map[string]string{
		"dies":               "the agent on alice@pi ended: panic: out of memory",
		"dies in the stream": "the agent on alice@pi ended",
		"bad frame":          "unexpected frame 'q'",
		"huge frame":         "the limit is",
		"bad JSON":           "cannot be read",
		"succeeds early":     "before it had everything",
	} {
		t.Run(agent, func(t *testing.T) {
			s := open(t, agent)
			begin := time.Now()
			_, err := s.Ship(soon(t), pathA, endlessly, nil)
			if err == nil || !strings.Contains(err.Error(), says) || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("got %v", err)
			}
			if IsLost(err) != strings.HasPrefix(agent, "dies") {
				t.Errorf("%v is lost: %v", err, IsLost(err))
			}
			if took := time.Since(begin); took > endGrace {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestAnswersThatAreWrong(t *testing.T) {
	for agent, says := range map[string]string{
		"answers another":   "instead of 1",
		"names paths twice": "path 0 of 2 after path 0",
		"names no path":     "path 99 of 2",
	} {
		t.Run(agent, func(t *testing.T) {
			_, err := open(t, agent).Missing(soon(t), []nix.StorePath{pathA, pathB}, false)
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := open(t, "no result").Commit(soon(t), Request{}, nil); err == nil || !strings.Contains(err.Error(), "no result") {
		t.Errorf("got %v", err)
	}
}

func TestCancellingEndsARequestWhateverTheAgentDoes(t *testing.T) {
	for name, send := range map[string]func(*Stream) error{
		"while a write blocks":  endlessly,
		"while the agent works": func(*Stream) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, "never answers")
			ctx, cancel := context.WithCancel(soon(t))
			time.AfterFunc(100*time.Millisecond, cancel)
			begin := time.Now()
			if _, err := s.Ship(ctx, pathA, send, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
			if _, err := s.Missing(soon(t), nil, false); !IsLost(err) {
				t.Errorf("the session after that: %v", err)
			}
		})
	}
}

func TestCloseFromAnotherGoroutineEndsARequest(t *testing.T) {
	s := open(t, "dies in the stream")
	time.AfterFunc(100*time.Millisecond, s.Close)
	_, err := s.Ship(soon(t), pathA, func(w *Stream) error {
		_, err := w.Write([]byte("a little"))
		time.Sleep(200 * time.Millisecond)
		return err
	}, nil)
	if err == nil {
		t.Error("it went well")
	}
}

func TestIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"the agent ended": {&LostError{}, true},
		"ssh lost it":     {&target.Error{Kind: target.Lost}, true},
		"refused":         {&target.Error{Kind: target.Refused}, true},
		"denied":          {&target.Error{Kind: target.Denied}, false},
		"disk full":       {&ResponseError{Kind: KindDiskFull}, false},
		"nothing":         {nil, false},
	} {
		if got := IsLost(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
