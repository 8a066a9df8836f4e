package agent

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dialProgram is an agent on the target that does what the script says when it is called to dial.
func dialProgram(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent 'x")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n[ \"$1 $2\" = 'dial web1:80' ] || exit 9\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDialIsAConnection(t *testing.T) {
	s := open(t, "serves")
	program := dialProgram(t, "echo 'Welcome to the target'; echo 'a prompt> "+Connected+"'; cat; echo goodbye; sleep 100")
	ctx, cancel := context.WithCancel(soon(t))
	conn, err := dial(ctx, s.channel, program, "dial", "web1:80")
	if err != nil {
		t.Fatal(err)
	}
	// As net/http does when it has its connection.
	cancel()
	if conn.RemoteAddr().String() != "web1:80" || conn.RemoteAddr().Network() != "tcp" {
		t.Errorf("it leads to %v", conn.RemoteAddr())
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("hello\n"))
	if _, err := io.ReadFull(conn, line); err != nil || string(line) != "hello\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(line); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if err := errors.Join(conn.SetDeadline(time.Time{}), conn.(*dialed).CloseWrite()); err != nil {
		t.Error(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "goodbye\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(line); err == nil {
		t.Error("it can be read after it was closed")
	}
	// The session is as it was.
	if _, err := s.Missing(soon(t), nil, false); err == nil || IsLost(err) {
		t.Errorf("got %v", err)
	}
}

func TestDialThatFailsSaysWhatTheAgentSaid(t *testing.T) {
	for name, c := range map[string]struct{ script, says string }{
		"refused":            {"echo noise; echo 'ferry-agent: connect to web1:80: connection \033[31mrefused' >&2; exit 1", "connect to web1:80: connection refused"},
		"says nothing":       {"exit 0", "the agent did not start"},
		"without a reason":   {"exit 3", "exit status 3"},
		"an endless line":    {"yes | tr -d '\\n'", "a line of more than"},
		"endless lines":      {"yes", "prints without end"},
		"a lost connection":  {"exit 255", "the connection was lost"},
		"one session only":   {"echo 'mux_client_request_session: session request failed: Session open refused by peer' >&2; exit 255", "allows no further session"},
		"the master is gone": {"echo 'Connection closed by UNKNOWN port 65535' >&2; exit 255", "Connection closed by UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, "serves")
			conn, err := dial(soon(t), s.channel, dialProgram(t, c.script), "dial", "web1:80")
			if err == nil {
				_ = conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	s := open(t, "serves")
	ctx, cancel := context.WithTimeout(soon(t), 200*time.Millisecond)
	defer cancel()
	if _, err := dial(ctx, s.channel, dialProgram(t, "sleep 100"), "dial", "web1:80"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestDialWantsAMachineThatItKnows(t *testing.T) {
	// The fake agent does not say what it runs on.
	if _, err := open(t, "serves").Dial(soon(t), "web1:80"); err == nil || !strings.Contains(err.Error(), `no agent for a "" machine`) {
		t.Errorf("got %v", err)
	}
}

// TestDialStartsTheProgramThatWasLookedAt locks that it is found by the path that has no link in it, under the name that its content
// has: by another one somebody who has a folder on the way could put another program there.
func TestDialStartsTheProgramThatWasLookedAt(t *testing.T) {
	programs, err := Programs()
	if err != nil {
		t.Fatal(err)
	}
	for says, want := range map[string]string{
		"/persist/ferry/agent-HASH": "/persist/ferry/agent-HASH", "": "", "agent-HASH": "", "/persist/../tmp/agent-HASH": "",
		"/persist/ferry/agent-0000": "", "/tmp/other": "", "/\x1b[31m/agent-HASH": "",
	} {
		s := new(Session)
		s.Hello.Facts.Machine = programs[0].Machine
		s.Hello.Program = Verbatim(strings.ReplaceAll(says, "HASH", programs[0].Hash))
		got, err := s.installed()
		if got != strings.ReplaceAll(want, "HASH", programs[0].Hash) || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", says, got, err)
		}
	}
}

// TestTheProgramOfAMachineIsTheOneTheBootstrapTakes locks that both mean the same names of a machine.
func TestTheProgramOfAMachineIsTheOneTheBootstrapTakes(t *testing.T) {
	var programs []Program
	for _, machine := range []string{"x86_64", "i686", "aarch64", "armv7l", "armv6l", "riscv64"} {
		programs = append(programs, Program{Machine: machine, Hash: "hash-of-" + machine})
	}
	for machine, want := range map[string]string{
		"x86_64": "x86_64", "i586": "i686", "i686": "i686", "aarch64": "aarch64", "arm64": "aarch64", "armv7l": "armv7l", "armv7hl": "armv7l",
		"armv8l": "armv7l", "armv6l": "armv6l", "riscv64": "riscv64", "sparc64": "", "": "", "x86_64 x": "",
	} {
		p, found := programOf(machine, programs)
		if found != (want != "") || p.Machine != want {
			t.Errorf("%q: %+v, %v", machine, p, found)
		}
		bin := scripts(t, map[string]string{"uname": "echo '" + machine + "'"})
		argv := asRoot("/bin/sh", "-c", bootstrapScript(placeAt(t.TempDir(), bin), programs, nil))
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		// It fails: nobody sends it what it asks for.
		out, _ := cmd.Output()
		_, taken, _ := strings.Cut(string(out), bootstrapNeed)
		if taken, _, _ = strings.Cut(taken, "\n"); taken != want {
			t.Errorf("%q: the bootstrap says %q", machine, out)
		}
	}
}

// What the target says before the connection may be anything.
func FuzzAwaitConnected(f *testing.F) {
	f.Add([]byte("Welcome\r\n$ " + Connected + "\nHTTP/1.1 200 OK\r\n"))
	f.Add([]byte(Connected))
	f.Add([]byte(strings.Repeat("x", maxLine+1)))
	f.Fuzz(func(t *testing.T, said []byte) {
		in := bufio.NewReaderSize(strings.NewReader(string(said)), maxLine)
		if err := awaitConnected(in); err != nil {
			return
		}
		rest, err := io.ReadAll(in)
		if err != nil || !strings.HasSuffix(string(said), Connected+"\n"+string(rest)) && !strings.HasSuffix(string(said), Connected+"\r\n"+string(rest)) {
			t.Errorf("%q is left of %q, %v", rest, said, err)
		}
	})
}
