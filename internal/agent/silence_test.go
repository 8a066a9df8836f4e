package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"ferry/internal/target"
)

// TestAnAgentThatDoesNotAnswerIsNotWaitedForForEver locks that whatever ferry asks has an answer, a sign every now and then, or an
// end: with a target that answers the hello and then nothing, one that stops in the middle of a stream, and one that only says that
// it is there.
func TestAnAgentThatDoesNotAnswerIsNotWaitedForForEver(t *testing.T) {
	for name, c := range map[string]struct {
		agent string
		ask   func(ctx context.Context, s *Session) error
		busy  bool
	}{
		"a request":       {"never answers", func(ctx context.Context, s *Session) error { _, err := s.Generations(ctx); return err }, false},
		"the switch":      {"never answers", func(ctx context.Context, s *Session) error { _, err := s.Activate(ctx, Request{}, nil); return err }, false},
		"a stream":        {"stops in the stream", func(ctx context.Context, s *Session) error { return shipForEver(ctx, s) }, false},
		"a look for long": {"beats", func(ctx context.Context, s *Session) error { _, err := s.Generations(ctx); return err }, true},
	} {
		t.Run(name, func(t *testing.T) {
			d, addr := fakeTarget(t, "", c.agent)
			opts, _ := sudoOptions()
			opts.silence, opts.longest = 100*time.Millisecond, 300*time.Millisecond
			s, err := Open(soon(t), d, addr, opts)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var silent *SilentError
			if err := c.ask(soon(t), s); !errors.As(err, &silent) || silent.Busy != c.busy || !IsLost(err) || len(silent.Hints()) == 0 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestAnAgentThatIsAtWorkIsWaitedFor locks that what takes long is no silence.
func TestAnAgentThatIsAtWorkIsWaitedFor(t *testing.T) {
	d, addr := fakeTarget(t, "", "beats for a while")
	opts, _ := sudoOptions()
	opts.silence = 200 * time.Millisecond
	s, err := Open(soon(t), d, addr, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Activate(soon(t), Request{}, nil); err != nil {
		t.Error(err)
	}
}

// TestAnAgentWithoutAHelloIsNotWaitedForForEver is the same for the beginning.
func TestAnAgentWithoutAHelloIsNotWaitedForForEver(t *testing.T) {
	d, addr := fakeTarget(t, "", "greets only")
	opts, _ := sudoOptions()
	opts.silence = 100 * time.Millisecond
	var silent *SilentError
	if _, err := Open(soon(t), d, addr, opts); !errors.As(err, &silent) {
		t.Errorf("got %v", err)
	}
}

// shipForEver sends a stream that has no end.
func shipForEver(ctx context.Context, s *Session) error {
	_, err := s.Ship(ctx, pathA, func(w *Stream) error {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return err
			}
		}
	}, func(Progress) {})
	return err
}

// TestAProbeTellsWhatALoginShellDoes runs what a probe runs, as sshd does, with login shells that do something else.
func TestAProbeTellsWhatALoginShellDoes(t *testing.T) {
	for name, c := range map[string]struct{ bashrc, says string }{
		"what it should":           {"", ""},
		"what it should, and more": {"echo Welcome; printf '$ '", ""},
		"another shell":            {"exec dash", "starts another shell"},
		"another shell, talking":   {"echo Welcome; exec dash -v", "starts another shell"},
		"reads a line":             {"read -r x", "reads the input"},
		"reads all":                {"cat >/dev/null", "reads the input"},
		"shows all":                {"cat", "reads the input"},
		"reads all for ever":       {"exec cat", "reads the input"},
		"ends":                     {"exit 3", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, addr := fakeTarget(t, "", "serves")
			t.Setenv("FAKE_LOGIN_SHELL", c.bashrc+"\n")
			channel, err := d.Start(soon(t), addr, "cat", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { channel.Close(); _ = channel.Wait() }()
			err = probe(soon(t), channel, addr)
			if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v", err)
			}
			var shell *ShellError
			if err != nil && (!errors.As(err, &shell) || !strings.Contains(strings.Join(shell.Hints(), " "), "case $- in *i*) ;; *) return;; esac")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestALoginShellThatDoesSomethingElseIsToldSoon locks that nobody waits for an agent that was never started, and that one which
// only comes late is waited for.
func TestALoginShellThatDoesSomethingElseIsToldSoon(t *testing.T) {
	for name, c := range map[string]struct {
		bashrc string
		fails  bool
	}{
		"another shell": {"exec dash", true},
		"reads a line":  {"read -r x", true},
		"slow":          {"sleep 1", false},
	} {
		t.Run(name, func(t *testing.T) {
			d, addr := fakeTarget(t, "", "serves")
			t.Setenv("FAKE_LOGIN_SHELL", c.bashrc+"\n")
			t.Setenv("FAKE_LOGGED_IN", "1")
			opts, _ := sudoOptions()
			opts.pace = 20 * time.Millisecond
			s, err := Open(soon(t), d, addr, opts)
			var shell *ShellError
			switch {
			case c.fails && !errors.As(err, &shell):
				t.Errorf("got %v", err)
			case !c.fails && err != nil:
				t.Error(err)
			}
			if err == nil {
				s.Close()
			}
		})
	}
}

// TestWhatSaysNothingBeforeTheAgentIsNotWaitedForForEver is about a login that does not come through, and a program that makes
// root and says nothing.
func TestWhatSaysNothingBeforeTheAgentIsNotWaitedForForEver(t *testing.T) {
	for _, in := range []string{"", "1"} {
		d, addr := fakeTarget(t, "", "silent")
		t.Setenv("FAKE_LOGGED_IN", in)
		opts, _ := sudoOptions()
		opts.pace = time.Millisecond
		var start *StartError
		var slow *target.Error
		if _, err := Open(soon(t), d, addr, opts); !errors.As(err, &start) && !errors.As(err, &slow) {
			t.Errorf("logged in %q: got %v", in, err)
		}
	}
}

// TestATargetThatTakesNoAgentIsNotWaitedForForEver asks for the agent, and does not read it.
func TestATargetThatTakesNoAgentIsNotWaitedForForEver(t *testing.T) {
	d, addr := fakeTarget(t, "", "needs and stops")
	t.Setenv("FAKE_LOGGED_IN", "1")
	opts, _ := sudoOptions()
	opts.pace = time.Millisecond
	var start *StartError
	if _, err := Open(soon(t), d, addr, opts); !errors.As(err, &start) {
		t.Errorf("got %v", err)
	}
}
