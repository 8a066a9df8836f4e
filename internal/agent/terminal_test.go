package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/run"
	"ferry/internal/target"

	"golang.org/x/sys/unix"
)

// fakeDoas asks once for a password, on the terminal and without echo, as doas does, and ends when it is wrong. Then it is
// not the command but the agent that FAKE_AGENT describes.
func fakeDoas() int {
	if says := os.Getenv("FAKE_SUDO_SAYS"); says != "" {
		fmt.Fprintln(os.Stderr, says)
		return 1
	}
	password := os.Getenv("FAKE_PASSWORD")
	if password == "" {
		return fakeAgent(os.Getenv("FAKE_AGENT"))
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "doas: a tty is required")
		return 1
	}
	// What was typed before the question is thrown away, as getpass and readpassphrase do.
	old, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil || unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETSF, old) != nil {
		return 2
	}
	fmt.Fprint(tty, "\rdoas (alice@pi) password: ")
	line, err := bufio.NewReaderSize(tty, 1).ReadString('\n')
	fmt.Fprint(tty, os.Getenv("FAKE_ECHO"), "\n")
	_ = unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETSF, old)
	if err != nil || strings.TrimSuffix(line, "\n") != password {
		fmt.Fprintln(os.Stderr, "doas: Authentication failed")
		return 1
	}
	tty.Close()
	return fakeAgent(os.Getenv("FAKE_AGENT"))
}

// fakeDoasTarget is this machine, with a login user who is not root and a doas that asks for password.
func fakeDoasTarget(t *testing.T, password, agent string) (*target.Dialer, target.Address) {
	t.Helper()
	d, _ := fakeTarget(t, password, agent)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "doas")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	addr, err := target.ParseAddress("local")
	if err != nil {
		t.Fatal(err)
	}
	return d, addr
}

func TestOpenAnswersDoasOnATerminal(t *testing.T) {
	for name, c := range map[string]struct {
		password string // of the user; empty: doas does not ask
		given    []string
		asked    int
	}{
		"no password needed": {"", nil, 0},
		"right at once":      {"secret", []string{"secret"}, 1},
		"right at last":      {"secret", []string{"wrong", "", "secret"}, 3},
		"with odd letters":   {" \x03p'\\\"$(x) ü\x04", []string{" \x03p'\\\"$(x) ü\x04"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d, addr := fakeDoasTarget(t, c.password, "serves")
			opts, asked := sudoOptions(c.given...)
			opts.Elevate = []string{"doas"}
			var trace strings.Builder
			opts.Trace = &trace
			s, err := Open(soon(t), d, addr, opts)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if *asked != c.asked {
				t.Errorf("asked %d times", *asked)
			}
			if strings.Contains(trace.String(), "assword") || c.password != "" && strings.Contains(trace.String(), c.password) {
				t.Errorf("the trace is %q", trace.String())
			}
			// Every byte comes through as it is, in both directions.
			every := make([]byte, 256)
			for i := range every {
				every[i] = byte(i)
			}
			const times = 40_001
			result, err := s.Ship(soon(t), pathA, func(w *Stream) error {
				for range times {
					if _, err := w.Write(every); err != nil {
						return err
					}
				}
				_, err := w.Write(every[:1])
				return err
			}, nil)
			var response *ResponseError
			if !errors.As(err, &response) && result.Peak != 256*times+1 {
				t.Errorf("shipped %+v, %v", result, err)
			}
		})
	}
}

func TestOpenFailsOnATerminal(t *testing.T) {
	for name, c := range map[string]struct {
		env   map[string]string
		agent string
		given []string
		kind  ElevateKind
		says  string
	}{
		"wrong password three times": {nil, "serves", []string{"a", "b", "c", "secret"}, WrongPassword, "doas: the password was wrong"},
		"nobody to give a password":  {nil, "serves", []string{"a"}, "", "no more passwords"},
		"user may not":               {map[string]string{"FAKE_SUDO_SAYS": "doas: Operation not permitted"}, "", nil, NotAllowed, "doas does not let this user in"},
		"doas fails otherwise":       {map[string]string{"FAKE_SUDO_SAYS": "doas: not installed setuid"}, "", nil, "", "the agent did not start: doas: not installed setuid"},
		"machine without an agent":   {nil, "no program", []string{"secret"}, "", `"sparc64" machine`},
		"installation fails":         {nil, "cannot install", []string{"secret"}, "", "is the disk full"},
		"line without an end":        {nil, "endless line", []string{"secret"}, "", "a line of more than 65536 bytes"},
		"end after the agent's line": {nil, "no hello", []string{"secret"}, "", "the agent did not start"},
		"an echo of the password":    {map[string]string{"FAKE_ECHO": "hunter2"}, "serves", []string{"hunter2", "hunter2", "hunter2"}, WrongPassword, "the password was wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			d, addr := fakeDoasTarget(t, "secret", c.agent)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			opts, asked := sudoOptions(c.given...)
			opts.Elevate = []string{"doas"}
			var trace strings.Builder
			opts.Trace = &trace
			s, err := Open(soon(t), d, addr, opts)
			if err == nil {
				s.Close()
				t.Fatal("it opened")
			}
			if !strings.Contains(err.Error(), c.says) || strings.ContainsAny(err.Error(), "\x1b\n\r") {
				t.Errorf("got %q", err)
			}
			var elevate *ElevateError
			if errors.As(err, &elevate) != (c.kind != "") || elevate != nil && elevate.Kind != c.kind {
				t.Errorf("got %#v", err)
			}
			if *asked > maxAttempts {
				t.Errorf("asked %d times", *asked)
			}
			if strings.Contains(trace.String(), "hunter2") {
				t.Errorf("the trace is %q", trace.String())
			}
		})
	}
}

// TestOpenWithoutATerminalThere is a target whose sshd gives none: the line runs on pipes, and works if nothing is asked.
func TestOpenWithoutATerminalThere(t *testing.T) {
	fakeDoasTarget(t, "secret", "serves")
	pi, err := target.ParseAddress("alice@pi")
	if err != nil {
		t.Fatal(err)
	}
	d := &target.Dialer{Runner: new(run.Runner)}
	t.Setenv("FAKE_NO_TTY", "yes")
	opts, asked := sudoOptions("secret")
	opts.Elevate = []string{"doas"}
	_, err = Open(soon(t), d, pi, opts)
	var elevate *ElevateError
	if !errors.As(err, &elevate) || elevate.Kind != NeedsTerminal || *asked != 0 {
		t.Errorf("got %v, asked %d times", err, *asked)
	}
	t.Setenv("FAKE_PASSWORD", "")
	s, err := Open(soon(t), d, pi, opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestQuestionsAreSeenHoweverTheyAreCut also has what looks like one before the marker and after the agent's line.
func TestQuestionsAreSeenHoweverTheyAreCut(t *testing.T) {
	const marker = "ferry-AB's question: "
	const said = "motd\r\nPassword: " + marker + "\r\n\rdoas (alice@pi) password: \n[sudo] password for alice:\npassword is wrong\nPassword: " +
		Magic + "\nh\nPassword: "
	for size := 1; size <= len(said); size++ {
		asked := make(chan struct{}, 8)
		q := &questions{ReadCloser: io.NopCloser(&pieces{[]byte(said), size}), marker: marker, asked: asked}
		out, err := io.ReadAll(q)
		if err != nil || string(out) != said {
			t.Fatalf("in pieces of %d bytes %q was passed on, %v", size, out, err)
		}
		// A question counts if a piece ends with it: what goes on at once waits for nothing.
		if size == 1 && len(asked) != 3 || len(asked) > 3 {
			t.Errorf("in pieces of %d bytes there were %d questions", size, len(asked))
		}
	}
}

// pieces is a reader that gives at most size bytes at once.
type pieces struct {
	left []byte
	size int
}

func (r *pieces) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.size)], r.left)
	r.left = r.left[n:]
	return n, nil
}

// Whatever the login shell is, the script and elevate's words reach the end as they were written.
func TestTerminalLineInEveryLoginShell(t *testing.T) {
	uname := "case $1 in -m) echo x86_64;; *) exec /bin/uname \"$@\";; esac"
	for shell, argv := range loginShells(t) {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			elevate := []string{"odd", "it's", `a\"b`, "$HOME `x` !! ~", "*"}
			bin := scripts(t, map[string]string{"uname": uname, "odd": `printf '[%s]' "$1" "$2" "$3" "$4" >"$0.called"; shift 4; exec "$@"`})
			program, text := newProgram("x86_64")
			line := terminalLine(elevate, "marker", bootstrapScript(placeAt(filepath.Join(t.TempDir(), "ferry"), bin).nobodys(), []Program{program}, nil))
			f := runFar(t, bin, append(append([]string{"unshare", "--user"}, argv...), line)...)
			if got := f.line(t); got != bootstrapNeed+"x86_64" {
				t.Fatalf("it says %q\n%s", got, f.stderr.String())
			}
			f.send(t, pack(t, text))
			f.expectAgent(t, nil, "x86_64")
			if called, _ := os.ReadFile(filepath.Join(bin, "odd.called")); string(called) != `[it's][a\"b][$HOME `+"`x`"+` !! ~][*]` {
				t.Errorf("called as %s", called)
			}
		})
	}
}
