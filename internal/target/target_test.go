package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/run"
)

// TestMain lets this test program act as ssh: that is its name then, and FAKE_SSH says what it does. With FAKE_ROLE it acts
// as a ferry on a terminal.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "ssh" {
		os.Exit(fakeSSH(os.Args[1:]))
	}
	if role := os.Getenv("FAKE_ROLE"); role != "" {
		if err := onTerminal(role); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func fakeSSH(args []string) int {
	switch os.Getenv("FAKE_SSH") {
	case "arguments":
		_, _ = io.WriteString(os.Stdout, strings.Join(args, "\n")+"\n")
		return 0
	case "guest":
		// A connection that waits for its end, and tells of what is to run on it.
		if slices.Contains(args, "ControlMaster=no") {
			_, _ = io.WriteString(os.Stdout, strings.Join(args, "\n")+"\n")
			return 7
		}
		_, _ = io.Copy(os.Stdout, os.Stdin)
		return 0
	case "echo":
		_, _ = io.WriteString(os.Stdout, "ferry\n")
		_, _ = io.Copy(os.Stdout, os.Stdin)
		return 0
	case "refuse":
		_, _ = io.WriteString(os.Stderr, "ssh: connect to host pi port 22: Connection refused\r\n")
		return 255
	case "ask":
		return askOnTerminal(args)
	case "alone":
		return loginAlone(args)
	case "deny":
		_, _ = io.WriteString(os.Stderr, "alice@pi: Permission denied (publickey,password).\r\n")
		return 255
	case "deny on the way":
		_, _ = io.WriteString(os.Stderr, "carol@jump: Permission denied (password).\r\nkex_exchange_identification: Connection closed by remote host\r\nConnection closed by UNKNOWN port 65535\r\n")
		return 255
	case "record":
		return recordArguments(args)
	case "silent":
		if makeSocket(args) == nil {
			_, _ = io.Copy(os.Stdout, os.Stdin)
			return 0
		}
	case "flood":
		for {
			if _, err := io.WriteString(os.Stderr, strings.Repeat("x", 4096)); err != nil {
				return 255
			}
		}
	case "hang":
		time.Sleep(time.Hour)
	case "hang logged in":
		_ = os.WriteFile(controlPathOf(args), nil, 0o600)
		time.Sleep(time.Hour)
	}
	return 99
}

// useFakeSSH puts this test program into PATH as ssh.
func useFakeSSH(t *testing.T, mode string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "ssh")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("FAKE_SSH", mode)
	// A program with the race detector waits a second before it ends, unless told not to.
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	// Control folders go here, so that the test can see that they are removed.
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", shortFolder(t))
}

// shortFolder is a folder whose name leaves room for a socket's.
func shortFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ferry-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func parse(t *testing.T, s string) Address {
	t.Helper()
	a, err := ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestStartGivesSSHTheTargetAndTheLineAsTheyAre(t *testing.T) {
	useFakeSSH(t, "arguments")
	d := &Dialer{Runner: new(run.Runner), SSHConfig: "/my config"}
	c, err := d.Start(t.Context(), parse(t, "alice@pi"), "echo 'a  b'", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c.Out)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if want := []string{"-T", "--", "alice@pi", "echo 'a  b'"}; !slices.Equal(args[len(args)-4:], want) {
		t.Errorf("the end of %q is not %q", args, want)
	}
	if !slices.Equal(args[:2], []string{"-F", "/my config"}) {
		t.Errorf("%q does not begin with the user's configuration", args)
	}
	for _, option := range []string{"StrictHostKeyChecking=yes", "UpdateHostKeys=no", "BatchMode=yes", "ControlMaster=yes", "ForwardAgent=no"} {
		if !slices.Contains(args, option) {
			t.Errorf("%q lacks %s", args, option)
		}
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) != 0 {
		t.Errorf("the control folder is left: %v", left)
	}
}

func controlPathOf(args []string) string {
	for _, a := range args {
		if path, found := strings.CutPrefix(a, "ControlPath="); found {
			return path
		}
	}
	return ""
}

func TestCommandRunsOnTheConnectionThatIsThere(t *testing.T) {
	useFakeSSH(t, "guest")
	d := &Dialer{Runner: new(run.Runner), SSHConfig: "/my config"}
	var master []string
	d.Runner.Trace = func(argv []string) { master = argv }
	c, err := d.Start(t.Context(), parse(t, "alice@pi"), "agent", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	d.Runner.Trace = nil
	guest, err := c.Command(t.Context(), "echo 'a  b'", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(guest.Out)
	if err != nil {
		t.Fatal(err)
	}
	var failed *run.Error
	if err := guest.Wait(); !errors.As(err, &failed) || failed.Status != 7 {
		t.Errorf("it ended with %v", err)
	}
	args := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if want := []string{"-T", "--", "alice@pi", "echo 'a  b'"}; !slices.Equal(args[len(args)-4:], want) {
		t.Errorf("the end of %q is not %q", args, want)
	}
	if path := controlPathOf(args); path == "" || path != controlPathOf(master) {
		t.Errorf("%q does not use the connection of %q", args, master)
	}
	// The last one: without the connection, ssh would make one of its own.
	for _, option := range []string{"/my config", "BatchMode=yes", "ForwardAgent=no", "RemoteCommand=none", "ProxyCommand=false"} {
		if !slices.Contains(args, option) {
			t.Errorf("%q lacks %s", args, option)
		}
	}
	_ = c.In.Close()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	local, err := d.Start(t.Context(), parse(t, "local"), "cat", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	guest, err = local.Command(t.Context(), "echo here", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(guest.Out); err != nil || string(out) != "here\n" {
		t.Errorf("on this machine: %q, %v", out, err)
	}
	_ = local.In.Close()
	if err := errors.Join(guest.Wait(), local.Wait()); err != nil {
		t.Error(err)
	}
}

func TestWaitTellsWhySSHEnded(t *testing.T) {
	useFakeSSH(t, "refuse")
	var stderr strings.Builder
	c, err := (&Dialer{Runner: new(run.Runner)}).Start(t.Context(), parse(t, "pi"), "true", &stderr)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(c.Out); len(out) > 0 || err != nil {
		t.Fatalf("read %q, %v", out, err)
	}
	var e *Error
	if err := c.Wait(); !errors.As(err, &e) || e.Kind != Refused {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(stderr.String(), "Connection refused") {
		t.Errorf("standard error was not passed on: %q", stderr.String())
	}
}

func TestCloseFreesAWriterAndEndsSSH(t *testing.T) {
	useFakeSSH(t, "hang")
	c, err := (&Dialer{Runner: new(run.Runner)}).Start(t.Context(), parse(t, "pi"), "true", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := c.In.Write(make([]byte, 1<<20))
		written <- err
	}()
	time.Sleep(20 * time.Millisecond)
	c.Close()
	c.Close()
	if err := <-written; err == nil {
		t.Error("the write went well")
	}
	if err := c.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) != 0 {
		t.Errorf("the control folder is left: %v", left)
	}
}

func TestCancellingEndsSSH(t *testing.T) {
	useFakeSSH(t, "hang")
	ctx, cancel := context.WithCancel(t.Context())
	c, err := (&Dialer{Runner: new(run.Runner)}).Start(ctx, parse(t, "pi"), "true", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := c.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLocalTargetRunsWithoutSSHAndWithoutATerminal(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin")
	c, err := (&Dialer{Runner: new(run.Runner)}).Start(t.Context(), parse(t, "local"), "cat; true </dev/tty || echo none", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.In, "hello "); err != nil {
		t.Fatal(err)
	}
	_ = c.In.Close()
	out, err := io.ReadAll(c.Out)
	if err != nil || string(out) != "hello none\n" {
		t.Errorf("read %q, %v", out, err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

func TestMasterWaitsForTheLoginAndEndsWithClose(t *testing.T) {
	useFakeSSH(t, "echo")
	m, err := (&Dialer{Runner: new(run.Runner)}).Master(t.Context(), parse(t, "pi"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Args) != 4 || !strings.HasPrefix(m.Args[1], "ControlPath=/") {
		t.Errorf("arguments are %q", m.Args)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	t.Setenv("FAKE_SSH", "refuse")
	var e *Error
	if _, err := (&Dialer{Runner: new(run.Runner)}).Master(t.Context(), parse(t, "pi"), io.Discard); !errors.As(err, &e) || e.Kind != Refused {
		t.Errorf("got %v", err)
	}
	if _, err := (&Dialer{Runner: new(run.Runner)}).Master(t.Context(), parse(t, "local"), io.Discard); err == nil {
		t.Error("this machine has a master")
	}
}

// A socket's path may have 107 bytes, and ssh adds 17 while it makes one.
func TestControlPathIsPrivateAndShort(t *testing.T) {
	for name, bases := range map[string][2]string{
		"short":                 {shortFolder(t), "/tmp"},
		"long":                  {filepath.Join(shortFolder(t), strings.Repeat("x", 100)), "/tmp"},
		"missing":               {"/nonexistent/run", "/tmp"},
		"with a percent sign":   {"/tmp/a%b", "/tmp"},
		"with a space":          {"/tmp/a b", "/tmp"},
		"relative":              {"run", "/tmp"},
		"nowhere but in /tmp":   {"", "/nonexistent/tmp"},
		"as long as may be":     {"/" + strings.Repeat("x", 59), "/tmp"},
		"with a quote and more": {"/tmp/'$(x)", "/tmp/\"x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", bases[0])
			t.Setenv("TMPDIR", bases[1])
			path, cleanup, err := controlPath()
			if err != nil {
				t.Fatal(err)
			}
			defer cleanup()
			if len(path)+17 >= 108 || strings.ContainsAny(path, "% '\"$") {
				t.Errorf("%q is no path for a socket", path)
			}
			info, err := os.Stat(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o700 {
				t.Errorf("others may enter: %v", info.Mode())
			}
			cleanup()
			if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
				t.Errorf("after cleanup: %v", err)
			}
		})
	}
}

// TestAMasterThatSaysNothingIsNotWaitedForForEver locks that a login which does not come through, and a login shell that runs
// something else, end.
func TestAMasterThatSaysNothingIsNotWaitedForForEver(t *testing.T) {
	for mode, says := range map[string]string{"hang": "the login takes more than", "hang logged in": "the login shell has not run a command"} {
		useFakeSSH(t, mode)
		c, err := (&Dialer{Runner: new(run.Runner)}).Start(t.Context(), parse(t, "pi"), "true", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.answers(parse(t, "pi"), time.Millisecond); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}
