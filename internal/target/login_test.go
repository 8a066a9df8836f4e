package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/run"
)

// loginAlone is an ssh whose user needs nobody to log in: it makes its socket, and then the far side speaks.
func loginAlone(args []string) int {
	if !slices.Contains(args, "BatchMode=yes") {
		fmt.Println("was asked for")
		return 0
	}
	if err := makeSocket(args); err != nil {
		fmt.Println(err)
		return 1
	}
	// The far side may say something on standard error first, and wait for the answer.
	fmt.Fprint(os.Stderr, "a question of sudo's: ")
	time.Sleep(50 * time.Millisecond)
	terminal := "a terminal"
	if OpenTerminal() == nil {
		terminal = "no terminal"
	}
	fmt.Printf("%s, %s asks\n", terminal, os.Getenv("SSH_ASKPASS_REQUIRE"))
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func makeSocket(args []string) error {
	for _, a := range args {
		if path, found := strings.CutPrefix(a, "ControlPath="); found {
			return os.WriteFile(path, nil, 0o600)
		}
	}
	return errors.New("no control path")
}

// syncBuilder is a strings.Builder that may be read while it is written to.
type syncBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuilder) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuilder) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startAlone makes the first of two tries.
func startAlone(ctx context.Context, t *testing.T, mode string) (c *Channel, said *syncBuilder) {
	t.Helper()
	useFakeSSH(t, mode)
	control, cleanup, err := controlPath()
	if err != nil {
		t.Fatal(err)
	}
	said = new(syncBuilder)
	d := &Dialer{Runner: new(run.Runner)}
	c, err = d.loginAlone(ctx, parse(t, "pi"), connection{control: control, persist: "no", line: "line"}, said, cleanup)
	if err != nil {
		t.Fatal(err)
	}
	return c, said
}

func TestALoginIsThroughBeforeTheFarSideSaysAnything(t *testing.T) {
	c, said := startAlone(t.Context(), t, "silent")
	if said.String() != "" {
		t.Errorf("it said %q", said)
	}
	if _, err := io.WriteString(c.In, "hello"); err != nil {
		t.Fatal(err)
	}
	_ = c.In.Close()
	if out, err := io.ReadAll(c.Out); string(out) != "hello" || err != nil {
		t.Errorf("read %q, %v", out, err)
	}
	if err := c.Wait(); err != nil || c.Interactive() {
		t.Errorf("interactive %v, %v", c.Interactive(), err)
	}
}

// sudo asks on standard error and waits.
func TestWhatTheFarSideSaysOnStandardErrorComesThroughAtOnce(t *testing.T) {
	c, said := startAlone(t.Context(), t, "alone")
	for late := time.After(20 * time.Second); said.String() != "a question of sudo's: "; {
		select {
		case <-late:
			t.Fatalf("got %q", said)
		case <-time.After(time.Millisecond):
		}
	}
	_ = c.In.Close()
	if out, err := io.ReadAll(c.Out); !strings.HasSuffix(string(out), ", never asks\n") || err != nil {
		t.Errorf("read %q, %v", out, err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// Whatever a person could not help with is the result, with what ssh said about it.
func TestALoginThatFailsForAnotherReasonIsNotTriedAgain(t *testing.T) {
	for mode, kind := range map[string]Kind{"refuse": Refused, "deny": Denied} {
		// Here a denied one has no terminal to be tried again with.
		c, said := startAlone(t.Context(), t, mode)
		if out, err := io.ReadAll(c.Out); len(out) > 0 || err != nil {
			t.Errorf("%s: read %q, %v", mode, out, err)
		}
		var e *Error
		if err := c.Wait(); !errors.As(err, &e) || e.Kind != kind {
			t.Errorf("%s: %v", mode, err)
		}
		if !strings.Contains(said.String(), "pi") {
			t.Errorf("%s: standard error was not passed on: %q", mode, said)
		}
		if left, _ := os.ReadDir(os.TempDir()); len(left) != 0 {
			t.Errorf("%s: the control folder is left: %v", mode, left)
		}
	}
}

func TestCancellingEndsALoginThatIsWaitedFor(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	c, _ := startAlone(ctx, t, "hang")
	if err := c.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A hostile machine's banner without end: nobody waits for it, and it is not kept.
func TestAFloodBeforeTheLoginIsPassedOn(t *testing.T) {
	c, said := startAlone(t.Context(), t, "flood")
	for late := time.After(20 * time.Second); len(said.String()) <= 2*maxHeld; {
		select {
		case <-late:
			t.Fatalf("got %d bytes", len(said.String()))
		case <-time.After(time.Millisecond):
		}
	}
	c.Close()
	_ = c.Wait()
}

func TestNeedsPersonTellsWhatAPersonCouldHelpWith(t *testing.T) {
	failed := func(status int) error { return &run.Error{Status: status, Err: errors.New("exit status")} }
	for name, c := range map[string]struct {
		err  error
		said string
		want bool
	}{
		"denied":                    {failed(255), "alice@pi: Permission denied (publickey,password).\r\n", true},
		"denied on the way":         {failed(255), "carol@jump: Permission denied (password).\r\nkex_exchange_identification: Connection closed by remote host\r\nConnection closed by UNKNOWN port 65535\r\n", true},
		"a proxy that says no more": {failed(255), "Connection closed by UNKNOWN port 65535\r\n", true},
		"the far side's own":        {failed(1), "cat: file: Permission denied (really)\n", false},
		"too many keys":             {failed(255), "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\r\n", false},
		"a key file":                {failed(255), "Load key \"/root/key\": Permission denied\r\nHost key verification failed.\r\n", false},
		"refused":                   {failed(255), "ssh: connect to host pi port 22: Connection refused\r\n", false},
		"it worked":                 {nil, "Permission denied (banner)", false},
		"ended by ferry":            {&run.Error{Status: -1, Err: context.Canceled}, "Permission denied (publickey).", false},
	} {
		if got := needsPerson(c.err, c.said); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
