// Package agenttest gives tests a target whose agent answers by a plan: the test program itself acts as ssh to it.
package agenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
)

// What a target may run and keep.
const (
	OldSystem   = "/nix/store/00000000000000000000000000000000-old"
	NewSystem   = "/nix/store/11111111111111111111111111111111-new"
	OtherSystem = "/nix/store/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-other"
	OldBundle   = "/nix/store/22222222222222222222222222222222-ferry-pi"
	NewBundle   = "/nix/store/33333333333333333333333333333333-ferry-pi"
)

// Act is what a word of a plan does on a connection to the target in dir, when its agent has said hello; words are all of the
// connection. The connection is over then, with ssh's exit status, or goes on with the next word.
type Act func(dir string, wire *agent.Wire, words []string) (status int, over bool)

// Main runs the tests of m, and lets their program act as ssh to a [Target]. does has the words that the package has besides; dial,
// if it is not nil, is what becomes of a connection that the agent is to make from there.
func Main(m *testing.M, does map[string]Act, dial func(dir, line, address string) int) {
	if filepath.Base(os.Args[0]) == "ssh" {
		os.Exit(ssh(os.Getenv("FAKE_TARGET"), os.Args[len(os.Args)-1], does, dial))
	}
	os.Exit(m.Run())
}

// Target is a target that goes through a plan.
type Target struct {
	// Dir has what the target remembers.
	Dir string
}

// New makes a target, and ssh lead to it. Its plan has a line for each connection: what happens on it, word by word; the last one is for all
// that follow.
func New(t *testing.T, plan ...string) *Target {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "ssh")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "nix-store"), []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := &Target{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(n.Dir, "plan"), []byte(strings.Join(plan, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("FAKE_TARGET", n.Dir)
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	return n
}

// Record is what was written down, line by line.
func (n *Target) Record(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.Dir, "record"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// Connections is how many have been made.
func (n *Target) Connections(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.Dir, "count"))
	if err != nil {
		t.Fatal(err)
	}
	count, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// Soon is a context that ends before a test that hangs is noticed.
func Soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var sudoPrompt = regexp.MustCompile(`ferry-[A-Z0-9]+`)

func ssh(dir, line string, does map[string]Act, dial func(dir, line, address string) int) int {
	if _, address, found := strings.Cut(line, " dial "); found && dial != nil {
		return dial(dir, line, address)
	}
	words := strings.Fields(nextLine(dir))
	hello := agent.Hello{Protocol: agent.Protocol, Facts: agent.Facts{
		Machine: "x86_64", Nix: "2.18", NixOS: true, System: "x86_64-linux", Current: OldSystem, Profile: OldSystem, Bundle: OldBundle, Committed: OldSystem,
	}}
	if program, err := agent.ProgramFor("x86_64-linux"); err == nil {
		hello.Program = agent.Verbatim(agent.Folder + "/agent-" + program.Hash)
	}
	wire := agent.NewWire(os.Stdin, os.Stdout)
	said := false
	hi := func() {
		if !said {
			said = true
			fmt.Println(agent.Magic)
			_ = wire.WriteJSON(agent.FrameHello, hello)
		}
	}
	for _, word := range words {
		switch word {
		case "refused":
			fmt.Fprintln(os.Stderr, "ssh: connect to host pi port 22: Connection refused")
			return 255
		case "unknown":
			fmt.Fprintln(os.Stderr, "ssh: Could not resolve hostname pi: Temporary failure in name resolution")
			return 255
		case "denied":
			fmt.Fprintln(os.Stderr, "alice@pi: Permission denied (publickey).")
			return 255
		case "hangs":
			time.Sleep(time.Hour)
		case "fails":
			fmt.Fprintln(os.Stderr, "sh: disk full")
			return 1
		case "runs":
			_ = syscall.Exec("/bin/sh", []string{"sh", "-c", line}, os.Environ())
		case "asks":
			fmt.Fprint(os.Stderr, sudoPrompt.FindString(line)+"'s question: ")
			var password string
			_, _ = fmt.Scanln(&password)
			Record(dir, "password "+password)
		case "locked":
			hello.Facts.Lock = &agent.Lock{Who: "bob"}
		case "resumed":
			hello.Resumed = true
		case "moved":
			hello.Facts.Current = NewSystem
		case "once":
			hello.Facts.BootOnce = "systemd-boot"
		case "first", "second", "third":
			hello.Facts.BootID = word
			hello.Facts.Booted = OldSystem
		case "default":
			hello.Facts.Profile = NewSystem
		case "tried":
			hello.Facts.Booted, hello.Facts.Current = NewSystem, NewSystem
		case "other":
			hello.Facts.Booted, hello.Facts.Current = OtherSystem, OtherSystem
		case "dies":
			hi()
			_, _, _ = wire.Read()
			return 3
		case "logs":
			hi()
			r := ReadRequest(wire)
			Record(dir, fmt.Sprintf("%s %s offset %d", r.Method, r.Action, r.Offset))
			_ = wire.Write(agent.FrameLog, []byte("one\ntw"))
			return 3
		case "serves":
			hi()
			r := ReadRequest(wire)
			Record(dir, fmt.Sprintf("%s %s offset %d", r.Method, r.Action, r.Offset))
			_ = wire.Write(agent.FrameLog, []byte("o\nthree\n"))
			_ = wire.WriteJSON(agent.FrameResponse, agent.Response{
				ID: r.ID, Activate: &agent.ActivateResult{Current: NewSystem}, Commit: &agent.CommitResult{Generation: 7},
			})
		default:
			if act := does[word]; act != nil {
				hi()
				if status, over := act(dir, wire, words); over {
					return status
				}
			}
		}
	}
	hi()
	_, _, _ = wire.Read()
	return 0
}

// ReadRequest reads a request; the zero value where none comes.
func ReadRequest(wire *agent.Wire) (r agent.Request) {
	_, payload, err := wire.Read()
	if err == nil {
		_ = json.Unmarshal(payload, &r)
	}
	return r
}

// nextLine is the line of the plan for this connection; the last one is for all that follow.
func nextLine(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, "plan"))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	count, _ := os.ReadFile(filepath.Join(dir, "count"))
	n, _ := strconv.Atoi(string(count))
	_ = os.WriteFile(filepath.Join(dir, "count"), []byte(strconv.Itoa(n+1)), 0o644)
	return lines[min(n, len(lines)-1)]
}

// Record writes down what has happened at the target in dir.
func Record(dir, line string) {
	file, err := os.OpenFile(filepath.Join(dir, "record"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		fmt.Fprintln(file, line)
		_ = file.Close()
	}
}
