package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"ferry/internal/run"
)

func newWatch(marker string) (*promptWatch, *strings.Builder) {
	var trace strings.Builder
	return &promptWatch{marker: marker, asked: make(chan struct{}, 8), flooded: make(chan struct{}), tail: &run.Tail{Limit: 1 << 10}, trace: &trace}, &trace
}

func TestPromptIsSeenHoweverItIsCut(t *testing.T) {
	const marker = "ferry-AB's question: "
	const said = "Last login\nferry-ferry-AB's question: Sorry, try again.\n" + marker
	for size := 1; size <= len(said); size++ {
		w, trace := newWatch(marker)
		for part := range slices.Chunk([]byte(said), size) {
			if n, err := w.Write(part); n != len(part) || err != nil {
				t.Fatalf("wrote %d, %v", n, err)
			}
		}
		if len(w.asked) != 2 {
			t.Errorf("in pieces of %d bytes it was seen %d times", size, len(w.asked))
		}
		if trace.String() != "Last login\nferry-Sorry, try again.\n" || w.tail.String() != trace.String() {
			t.Errorf("in pieces of %d bytes %q was passed on", size, trace.String())
		}
	}
}

func TestPromptWatchHoldsNothingBackThatIsNoPrompt(t *testing.T) {
	w, trace := newWatch("ferry-AB: ")
	for range 1000 {
		if _, err := w.Write([]byte("ferry-AB")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x\n")); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.held) != 0 || len(trace.String()) != 10_000 || len(w.asked) != 0 {
		t.Errorf("%d bytes held, %d passed on, asked %d times", len(w.held), len(trace.String()), len(w.asked))
	}
	// More questions than anybody answers must not block ssh.
	for range 100 {
		if _, err := w.Write([]byte("ferry-AB: ")); err != nil {
			t.Fatal(err)
		}
	}
}

// What sudo 1.9.13, doas 6.8 and shells say, recorded.
func TestStartErrorFromWhatTheTargetSays(t *testing.T) {
	for name, c := range map[string]struct {
		elevate []string
		said    string
		kind    ElevateKind
	}{
		"wrong":           {[]string{"sudo"}, "Sorry, try again.\nSorry, try again.\nsudo: 3 incorrect password attempts\n", WrongPassword},
		"wrong once":      {[]string{"sudo"}, "sudo: no password was provided\nsudo: 1 incorrect password attempt\n", WrongPassword},
		"not in sudoers":  {[]string{"sudo"}, "alice is not in the sudoers file.\n", NotAllowed},
		"other commands":  {[]string{"sudo"}, "Sorry, user alice is not allowed to execute '/usr/bin/sh -c x' as root on pi.\n", NotAllowed},
		"may not run":     {[]string{"sudo"}, "Sorry, user alice may not run sudo on pi.\n", NotAllowed},
		"requiretty":      {[]string{"sudo"}, "sudo: sorry, you must have a tty to run sudo\n", NeedsTerminal},
		"without -S":      {[]string{"env", "sudo"}, "sudo: a terminal is required to read the password; either use the -S option\nsudo: a password is required\n", NeedsTerminal},
		"doas refuses":    {[]string{"doas"}, "doas: Operation not permitted\n", NotAllowed},
		"doas asks":       {[]string{"/run/wrappers/bin/doas"}, "doas: a tty is required\n", NeedsTerminal},
		"missing in dash": {[]string{"sudo"}, "ferry: 1: exec: sudo: not found\n", NotFound},
		"missing in bash": {[]string{"sudo"}, "ferry: line 1: exec: sudo: not found\n", NotFound},
		"missing doas":    {[]string{"doas"}, "ferry: 1: exec: doas: not found\n", NotFound},
		"no password":     {[]string{"sudo", "-n"}, "sudo: a password is required\n", PasswordNeeded},
		"something else":  {[]string{"sudo"}, "mkdir: cannot create directory: Operation not permitted\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newWatch("x")
			if _, err := w.Write([]byte(c.said)); err != nil {
				t.Fatal(err)
			}
			s := &Session{watch: w}
			err := s.startError(t.Context(), errEnded, errors.New("exit status 1"), Options{Elevate: c.elevate})
			var elevate *ElevateError
			var start *StartError
			switch {
			case c.kind == "":
				if !errors.As(err, &start) || len(start.Stderr) == 0 {
					t.Errorf("got %v", err)
				}
			case !errors.As(err, &elevate):
				t.Errorf("got %v", err)
			case elevate.Kind != c.kind:
				t.Errorf("got %s: %v", elevate.Kind, err)
			case elevate.Kind != WrongPassword && len(elevate.Hints()) == 0:
				t.Error("no hint")
			}
		})
	}
}

func TestStartErrorOfAnEndedContextIsTheContexts(t *testing.T) {
	w, _ := newWatch("x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&Session{watch: w}).startError(ctx, errEnded, nil, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestIdentityIsSafeInACommandLine(t *testing.T) {
	for in, want := range map[string]string{"alice@host.local": "alice@host.local", "a b;$(x)\n'": "a_b___x___", "": "", "zoë": "zo_"} {
		if got := identity(in); got != want {
			t.Errorf("identity(%q) is %q", in, got)
		}
	}
}
