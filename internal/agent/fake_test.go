package agent

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/run"
	"ferry/internal/target"
)

// TestMain lets this test program act as other programs, by the name it is called by: ssh, a target's id and sudo.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "ssh":
		os.Exit(fakeSSH(os.Args[len(os.Args)-1]))
	case "id":
		fmt.Println(os.Getenv("FAKE_UID"))
		os.Exit(0)
	case "sudo":
		os.Exit(fakeSudo(os.Args[1:]))
	case "doas":
		os.Exit(fakeDoas())
	}
	os.Exit(m.Run())
}

// fakeSSH connects to a target that is this machine: the user's login shell runs the command line.
func fakeSSH(line string) int {
	if said := os.Getenv("FAKE_SSH_SAYS"); said != "" {
		fmt.Fprint(os.Stderr, said)
		return 255
	}
	if os.Getenv("FAKE_NO_TTY") != "" && slices.Contains(os.Args, "-tt") {
		fmt.Fprint(os.Stderr, "PTY allocation request failed on channel 0\r\n")
		return 255
	}
	for _, arg := range os.Args {
		if path, ok := strings.CutPrefix(arg, "ControlPath="); ok && os.Getenv("FAKE_LOGGED_IN") != "" {
			_ = os.WriteFile(path, nil, 0o600)
		}
	}
	if shell := os.Getenv("FAKE_LOGIN_SHELL"); shell != "" {
		_ = syscall.Exec("/bin/bash", []string{"bash", "-c", shell + line}, os.Environ())
	}
	_ = syscall.Exec("/bin/sh", []string{"sh", "-c", line}, os.Environ())
	return 255
}

// fakeSudo asks for the password on standard error and reads it from standard input, byte by byte as sudo does, three
// times. Then it is not the command but the agent that FAKE_AGENT describes.
func fakeSudo(args []string) int {
	password := os.Getenv("FAKE_PASSWORD")
	if says := os.Getenv("FAKE_SUDO_SAYS"); says != "" {
		fmt.Fprintln(os.Stderr, says)
		return 1
	}
	if slices.Contains(args, password) || len(args) < 3 || args[0] != "-S" || args[1] != "-p" {
		fmt.Fprintf(os.Stderr, "sudo: called as %q\n", args)
		return 1
	}
	for attempt := 0; password != ""; attempt++ {
		if attempt == 3 {
			fmt.Fprintln(os.Stderr, "sudo: 3 incorrect password attempts")
			return 1
		}
		// In two pieces: a network cuts where it wants.
		fmt.Fprint(os.Stderr, args[2][:10])
		time.Sleep(5 * time.Millisecond)
		fmt.Fprint(os.Stderr, args[2][10:])
		var line []byte
		for b := make([]byte, 1); ; {
			if n, _ := os.Stdin.Read(b); n == 0 {
				fmt.Fprintln(os.Stderr, "\nsudo: no password was provided")
				return 1
			}
			if b[0] == '\n' {
				break
			}
			line = append(line, b[0])
		}
		if string(line) == password {
			break
		}
		fmt.Fprintln(os.Stderr, "Sorry, try again.")
	}
	return fakeAgent(os.Getenv("FAKE_AGENT"))
}

// fakeAgent speaks the protocol in the ways that a target may.
func fakeAgent(how string) int {
	switch how {
	case "needs twice":
		fmt.Println(bootstrapNeed + "x86_64")
		in := bufio.NewReader(os.Stdin)
		var n int64
		_, _ = fmt.Fscanf(in, "%d\n", &n)
		_, _ = io.CopyN(io.Discard, in, n)
		fmt.Println(bootstrapNeed + "x86_64")
	case "needs another":
		fmt.Println(bootstrapNeed + "vax\x1b[31m")
	case "no program":
		fmt.Println(bootstrapMachine + "sparc64\x1b[31m")
	case "cannot install":
		fmt.Println(bootstrapFailed + "to write the agent to /x, is the disk full")
	case "endless line":
		endless(strings.Repeat("x", 4096))
	case "endless greeting":
		endless(strings.Repeat(strings.Repeat("x", 100)+"\n", 40))
	case "no hello":
		fmt.Println(Magic)
	case "odd hello":
		fmt.Println(Magic)
		_, _ = os.Stdout.WriteString("z\x00\x00\x00\x00")
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "huge hello":
		fmt.Println(Magic)
		_, _ = os.Stdout.WriteString("h\xff\xff\xff\xff")
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "silent":
		time.Sleep(time.Hour)
	case "needs and stops":
		fmt.Println(bootstrapNeed + "x86_64")
		time.Sleep(time.Hour)
	case "greets only":
		fmt.Println(Magic)
		time.Sleep(time.Hour)
	default:
		return fakeServe(how)
	}
	return 0
}

func endless(text string) {
	for {
		if _, err := os.Stdout.WriteString(text); err != nil {
			return
		}
	}
}

func fakeServe(how string) int {
	fmt.Print("Welcome to the target\nand a prompt without an end> " + Magic + "\n")
	wire := NewWire(os.Stdin, os.Stdout)
	_ = wire.WriteJSON(FrameHello, Hello{Protocol: Protocol, Facts: Facts{
		Host: "pi\x1b[31m", Current: "/nix/store/x; reboot", Profile: "/nix/store/00000000000000000000000000000000-system",
		Lock:     &Lock{Who: "bob\nferry: done"},
		Deployed: Manifest{Node: "\x1b[31mpi", Revision: "$(reboot)"}, Pending: "/", Version: "\x07", Specialisation: "\n",
		Last: &JournalEntry{Who: "bob\n"}, LastCommit: &JournalEntry{Who: "carol\n"}, Previous: &JournalState{Current: "/"},
	}})
	for {
		_, payload, err := wire.Read()
		if err != nil {
			return 0
		}
		var r Request
		_ = json.Unmarshal(payload, &r)
		data := wire.DataReader()
		switch how {
		case "dies":
			fmt.Fprintln(os.Stderr, "panic: out of \x1b[31mmemory")
			return 2
		case "dies in the stream":
			_, _ = io.CopyN(io.Discard, data, 1<<20)
			return 2
		case "bad frame":
			_, _ = os.Stdout.WriteString("q\x00\x00\x00\x00")
			time.Sleep(time.Hour)
		case "huge frame":
			_, _ = os.Stdout.WriteString("r\xff\xff\xff\xff")
			time.Sleep(time.Hour)
		case "bad JSON":
			_ = wire.Write(FrameResponse, []byte(strings.Repeat("[", 1<<19)))
			time.Sleep(time.Hour)
		case "never answers":
			time.Sleep(time.Hour)
		case "stops in the stream":
			_, _ = io.CopyN(io.Discard, data, 1<<20)
			time.Sleep(time.Hour)
		case "beats", "beats for a while":
			for i := 0; i < 40 || how == "beats"; i++ {
				if wire.Write(FrameAlive, nil) != nil {
					return 0
				}
				time.Sleep(10 * time.Millisecond)
			}
			fakeAnswer(wire, data, r)
		case "refuses early":
			_ = wire.WriteJSON(FrameResponse, Response{ID: r.ID, Error: &ResponseError{
				Kind: KindDiskFull, Text: "No space\x1b[31m left", Stderr: []string{"error: \x07writing"},
			}})
			_ = data.Drain()
		case "succeeds early":
			_ = wire.WriteJSON(FrameResponse, Response{ID: r.ID, Ship: &ShipResult{}})
			_ = data.Drain()
		case "answers another":
			_ = data.Drain()
			_ = wire.WriteJSON(FrameResponse, Response{ID: r.ID + 1})
		case "names paths twice":
			_ = data.Drain()
			_ = wire.WriteJSON(FrameResponse, Response{ID: r.ID, Missing: []int{0, 0}})
		case "names no path":
			_ = data.Drain()
			_ = wire.WriteJSON(FrameResponse, Response{ID: r.ID, Missing: []int{99}})
		case "no result":
			_ = wire.WriteJSON(FrameResponse, Response{ID: r.ID})
		default:
			fakeAnswer(wire, data, r)
		}
	}
}

// fakeAnswer answers as the agent does.
func fakeAnswer(wire *Wire, data *DataReader, r Request) {
	response := Response{ID: r.ID}
	switch r.Method {
	case MethodMissing:
		_ = data.Drain()
		response.Missing = []int{1}
	case MethodShip:
		n, err := io.Copy(io.Discard, data)
		if err == nil && n%2 == 1 {
			response.Error = &ResponseError{Text: "stream of paths: unexpected EOF"}
		}
		for i := range 3 {
			_ = wire.WriteJSON(FrameProgress, Progress{Registered: i + 1})
		}
		response.Ship = &ShipResult{Registered: 3, Peak: n}
	case MethodActivate:
		for i := range 3 {
			_ = wire.Write(FrameLog, fmt.Appendf(nil, "line %d\n", i))
		}
		response.Activate = &ActivateResult{Status: 4, Current: "/nix/store/$(reboot)", Failed: []string{"a\x1b[31m.service"}}
	case MethodInspect:
		if r.Ahead {
			_ = data.Drain()
			response.Wanted = []Verbatim{"/etc/shadow", "/nix/store"}
			break
		}
		for range 2 * maxRisks {
			response.Risks = append(response.Risks, Risk{Kind: "port\n", Text: "sshd \x1b[31mmoves\nferry: done"})
		}
	case MethodCommit:
		response.Commit = &CommitResult{Generation: 7, Error: "\x1b]0;x\x07bad"}
	case MethodGenerations:
		response.Generations = &GenerationsResult{Current: "here", Booted: string(pathB), Generations: []Generation{
			{Number: 7, Toplevel: string(pathA), Version: "24\x1b[31m.05", Bundle: "/etc", Revision: "--help"},
		}}
	}
	_ = wire.WriteJSON(FrameResponse, response)
}

// fakeTarget is a target whose login user is not root and whose sudo asks for password, or does not if that is empty.
func fakeTarget(t *testing.T, password, agent string) (*target.Dialer, target.Address) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"ssh", "id", "sudo"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("FAKE_UID", "1000")
	// A program with the race detector waits a second before it ends, unless told not to.
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	t.Setenv("FAKE_PASSWORD", password)
	t.Setenv("FAKE_AGENT", agent)
	addr, err := target.ParseAddress("alice@pi")
	if err != nil {
		t.Fatal(err)
	}
	return &target.Dialer{Runner: new(run.Runner)}, addr
}
