package target

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/run"
)

// recordArguments is an ssh that keeps what it was called with, and with which input, in FAKE_RECORD.
func recordArguments(args []string) int {
	in, _ := io.ReadAll(os.Stdin)
	said := strings.Join(append(args, string(in), os.Getenv("SSH_ASKPASS_REQUIRE")), "\n")
	if OpenTerminal() != nil || os.WriteFile(os.Getenv("FAKE_RECORD"), []byte(said), 0o600) != nil {
		return 1
	}
	return 0
}

func TestConfirmMakesAConnectionThatSharesNothingAndAsksNobody(t *testing.T) {
	useFakeSSH(t, "record")
	record := filepath.Join(t.TempDir(), "record")
	t.Setenv("FAKE_RECORD", record)
	d := &Dialer{Runner: new(run.Runner), SSHConfig: "/my config", ConnectTimeout: 1500 * time.Millisecond}
	if err := d.Confirm(t.Context(), parse(t, "alice@pi"), "read -r 'token'", "", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(string(text), "\n")
	if want := []string{"-T", "--", "alice@pi", "read -r 'token'", "secret", "never"}; !slices.Equal(args[len(args)-6:], want) {
		t.Errorf("the end of %q is not %q", args, want)
	}
	if !slices.Equal(args[:2], []string{"-F", "/my config"}) {
		t.Errorf("%q does not begin with the user's configuration", args)
	}
	for _, option := range []string{"ControlPath=none", "ControlMaster=no", "BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=2"} {
		if !slices.Contains(args, option) {
			t.Errorf("%q lacks %s", args, option)
		}
	}
	for _, option := range args {
		if name, _, _ := strings.Cut(option, "="); strings.HasSuffix(name, "Authentication") || strings.HasSuffix(name, "Authentications") {
			t.Errorf("%s is for the user to say", option)
		}
	}
}

func TestConfirmTellsWhyItDidNotWork(t *testing.T) {
	addr := parse(t, "pi")
	d := &Dialer{Runner: new(run.Runner)}
	for mode, c := range map[string]struct {
		within time.Duration
		kind   Kind
	}{"refuse": {20 * time.Second, Refused}, "deny": {20 * time.Second, Denied}, "hang": {200 * time.Millisecond, TimedOut}} {
		useFakeSSH(t, mode)
		ctx, stop := context.WithTimeout(t.Context(), c.within)
		var e *Error
		if err := d.Confirm(ctx, addr, "true", "", nil); !errors.As(err, &e) || e.Kind != c.kind {
			t.Errorf("%s: %v", mode, err)
		}
		stop()
	}
	useFakeSSH(t, "none of these")
	var failed *run.Error
	if err := d.Confirm(t.Context(), addr, "true", "", nil); !errors.As(err, &failed) || failed.Status != 99 {
		t.Errorf("a script that failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Confirm(ctx, addr, "true", "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	var missing *MissingError
	if err := d.Confirm(t.Context(), addr, "true", "", nil); !errors.As(err, &missing) {
		t.Errorf("without ssh: %v", err)
	}
}

// A refusal is an answer, unless it is that of a host on the way.
func TestAnswersTakesARefusalForAnAnswer(t *testing.T) {
	addr := parse(t, "pi")
	d := &Dialer{Runner: new(run.Runner)}
	for mode, kind := range map[string]Kind{"deny": "", "deny on the way": Denied, "refuse": Refused} {
		useFakeSSH(t, mode)
		err := d.Answers(t.Context(), addr)
		var e *Error
		if kind == "" && err != nil || kind != "" && (!errors.As(err, &e) || e.Kind != kind) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

func TestConfirmRunsTheScriptOnTheLocalTarget(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin")
	d := &Dialer{Runner: new(run.Runner)}
	file := filepath.Join(t.TempDir(), "file")
	if err := d.Confirm(t.Context(), parse(t, "local"), "cat >"+file, "", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); string(got) != "secret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	var failed *run.Error
	if err := d.Confirm(t.Context(), parse(t, "local"), "exit 255", "", nil); !errors.As(err, &failed) || failed.Status != 255 {
		t.Errorf("got %v", err)
	}
	if err := d.Answers(t.Context(), parse(t, "local")); err != nil {
		t.Error(err)
	}
}

// TestConfirmSendsNothingBeforeTheScriptReads locks that what a login shell reads first does not get what is the script's.
func TestConfirmSendsNothingBeforeTheScriptReads(t *testing.T) {
	d := &Dialer{Runner: new(run.Runner)}
	for name, before := range map[string]string{"reads for a moment": "read -r -t 1 x; ", "talks": "yes | head -n 100000; printf '$ '; "} {
		file := filepath.Join(t.TempDir(), "file")
		script := `exec bash -c '` + strings.ReplaceAll(before, "'", `'\''`) + `echo "I am ready"; read -r t && echo "$t" >"$0"' ` + file
		if err := d.Confirm(t.Context(), parse(t, "local"), script, "I am ready", []byte("secret\n")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(file); string(got) != "secret\n" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// One that never reads ends all the same.
	var failed *run.Error
	if err := d.Confirm(t.Context(), parse(t, "local"), "exit 66", "I am ready", []byte("secret\n")); !errors.As(err, &failed) || failed.Status != 66 {
		t.Errorf("got %v", err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if err := d.Confirm(ctx, parse(t, "local"), "sleep 1000", "I am ready", []byte("secret\n")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
