package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/nix"
	"ferry/internal/run"
	"ferry/internal/target"
)

// TestMain lets this test program act as ssh to a target whose agent is there already. The file FAKE_TARGET/plan has a line
// for each connection: what happens on it, word by word.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "ssh" {
		os.Exit(fakeSSH(os.Getenv("FAKE_TARGET"), os.Args[len(os.Args)-1]))
	}
	os.Exit(m.Run())
}

var sudoPrompt = regexp.MustCompile(`ferry-[A-Z0-9]+`)

func fakeSSH(dir, line string) int {
	if _, address, found := strings.Cut(line, " dial "); found {
		return fakeDial(dir, line, address)
	}
	words := strings.Fields(nextLine(dir))
	hello := agent.Hello{Protocol: agent.Protocol, Facts: agent.Facts{
		Machine: "x86_64", Nix: "2.18", NixOS: true, System: "x86_64-linux", Current: oldSystem, Profile: oldSystem, Bundle: oldBundle, Committed: oldSystem,
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
			record(dir, "password "+password)
		case "locked":
			hello.Facts.Lock = &agent.Lock{Who: "bob"}
		case "resumed":
			hello.Resumed = true
		case "moved":
			hello.Facts.Current = newSystem
		case "once":
			hello.Facts.BootOnce = "systemd-boot"
		case "first", "second", "third":
			hello.Facts.BootID = word
			hello.Facts.Booted = oldSystem
		case "default":
			hello.Facts.Profile = newSystem
		case "tried":
			hello.Facts.Booted, hello.Facts.Current = newSystem, newSystem
		case "other":
			hello.Facts.Booted, hello.Facts.Current = otherSystem, otherSystem
		case "answers":
			hi()
			return fakeAnswers(dir, wire, words)
		case "dies":
			hi()
			_, _, _ = wire.Read()
			return 3
		case "logs":
			hi()
			r := readRequest(wire)
			record(dir, fmt.Sprintf("%s %s offset %d", r.Method, r.Action, r.Offset))
			_ = wire.Write(agent.FrameLog, []byte("one\ntw"))
			return 3
		case "serves":
			hi()
			r := readRequest(wire)
			record(dir, fmt.Sprintf("%s %s offset %d", r.Method, r.Action, r.Offset))
			_ = wire.Write(agent.FrameLog, []byte("o\nthree\n"))
			_ = wire.WriteJSON(agent.FrameResponse, agent.Response{
				ID: r.ID, Activate: &agent.ActivateResult{Current: newSystem}, Commit: &agent.CommitResult{Generation: 7},
			})
		case "lacks":
			hi()
			fakeDisk(dir, wire)
		case "switches":
			hi()
			fakeSwitch(dir, wire)
		case "checks":
			hi()
			r := readRequest(wire)
			record(dir, fmt.Sprintf("%s %q for %d s", r.Method, r.Check.Argv, r.Check.Timeout))
			_ = wire.WriteJSON(agent.FrameResponse, agent.Response{ID: r.ID, Check: fakeCheck(r.Check.Argv)})
		}
	}
	hi()
	_, _, _ = wire.Read()
	return 0
}

func readRequest(wire *agent.Wire) (r agent.Request) {
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

func record(dir, line string) {
	file, err := os.OpenFile(filepath.Join(dir, "record"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		fmt.Fprintln(file, line)
		_ = file.Close()
	}
}

// fakeNode is a deployment to a target that goes through plan.
type fakeNode struct {
	*deployment
	dir    string
	asked  int
	events []string
}

func newFakeNode(t *testing.T, action Action, plan ...string) *fakeNode {
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
	n := &fakeNode{dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(n.dir, "plan"), []byte(strings.Join(plan, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("FAKE_TARGET", n.dir)
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	address, err := target.ParseAddress("alice@pi")
	if err != nil {
		t.Fatal(err)
	}
	runner := new(run.Runner)
	v := Session{Nix: &nix.Client{Runner: runner}, Roots: Roots{Dir: t.TempDir()}, Observe: func(e Event) {
		if e.Kind == Line || e.Kind == Note {
			n.events = append(n.events, string(e.Kind)+" "+e.Text)
		}
	}}.At(&inventory.Inventory{File: "/ferry.nix"}, inventory.Node{Name: "pi"})
	v.Job = "job12345"
	n.deployment = &deployment{Visit: v, opts: Options{Action: action}}
	n.Link = newLink(&target.Dialer{Runner: runner}, []target.Address{address}, agent.Options{
		Elevate: []string{"sudo"}, Session: "job12345", Lock: true,
		Password: func(_ context.Context, _ string, attempt int) ([]byte, error) {
			n.asked++
			return []byte("secret" + strconv.Itoa(attempt)), nil
		},
	}, n.note)
	t.Cleanup(n.Link.close)
	return n
}

func (n *fakeNode) record(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, "record"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func (n *fakeNode) connections(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, "count"))
	if err != nil {
		t.Fatal(err)
	}
	count, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var ready = Built{Bundle: newBundle, Toplevel: newSystem}

func TestActivationIsFollowedOverALostConnection(t *testing.T) {
	n := newFakeNode(t, Switch, "asks logs", "asks resumed serves")
	facts, err := n.Link.open(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.activate(soon(t), ready, facts); err != nil {
		t.Fatal(err)
	}
	if n.asked != 1 {
		t.Errorf("asked for the password %d times", n.asked)
	}
	want := []string{"password secret1", "activate test offset 0", "password secret1", "activate test offset 6"}
	if got := n.record(t); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	lines := slices.DeleteFunc(slices.Clone(n.events), func(e string) bool { return strings.HasPrefix(e, "note ") })
	if !slices.Equal(lines, []string{"line one", "line two", "line three"}) {
		t.Errorf("%q", n.events)
	}
	if len(n.events) != 5 {
		t.Errorf("the loss is not told once: %q", n.events)
	}
}

func TestConnectionThatIsDownForAWhileIsMadeAgain(t *testing.T) {
	n := newFakeNode(t, Switch, "dies", "refused", "resumed serves")
	if _, err := n.Link.open(soon(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.commit(soon(t), ready, "boot", agent.Facts{}); err != nil {
		t.Error(err)
	}
	n = newFakeNode(t, Switch, "dies", "unknown", "resumed serves")
	if _, err := n.Link.open(soon(t)); err != nil {
		t.Fatal(err)
	}
	if generation, err := n.commit(soon(t), ready, "boot", agent.Facts{}); err != nil || generation != 7 {
		t.Errorf("%d, %v", generation, err)
	}
}

func TestConnectionIsNotMadeAgainForEver(t *testing.T) {
	for name, c := range map[string]struct {
		plan        []string
		says        string
		connections int
	}{
		"when the agent dies each time": {[]string{"dies", "resumed dies"}, "again and again", 4},
		"when the login fails":          {[]string{"dies", "denied"}, "connecting again: ssh alice@pi: alice@pi: Permission denied", 2},
		"when another one deploys":      {[]string{"dies", "locked"}, "bob is deploying to this target", 2},
		"when the target has forgotten": {[]string{"dies", "serves"}, "restarted or deployed to by someone else", 2},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t, Switch, c.plan...)
			facts, err := n.Link.open(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			_, err = n.activate(soon(t), ready, facts)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if got := n.connections(t); got != c.connections {
				t.Errorf("%d connections", got)
			}
		})
	}
}

func TestTargetThatForgotIsUnchangedOnlyIfItRunsWhatItDid(t *testing.T) {
	for again, state := range map[string]State{"serves": Unchanged, "moved serves": Unknown} {
		n := newFakeNode(t, Switch, "dies", again)
		facts, err := n.Link.open(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.activate(soon(t), ready, facts)
		var e *Error
		if !errors.As(err, &e) || e.State != state {
			t.Errorf("%s: %v", again, err)
		}
	}
}

func TestFirstConnectionIsTriedOnce(t *testing.T) {
	n := newFakeNode(t, Switch, "refused")
	var e *target.Error
	if _, err := n.Link.open(soon(t)); !errors.As(err, &e) || e.Kind != target.Refused {
		t.Errorf("got %v", err)
	}
	if got := n.connections(t); got != 1 {
		t.Errorf("%d connections", got)
	}
}

func TestCtrlCWhileConnectingAgainEnds(t *testing.T) {
	n := newFakeNode(t, Switch, "dies", "refused")
	facts, err := n.Link.open(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(soon(t))
	time.AfterFunc(300*time.Millisecond, cancel)
	_, err = n.activate(ctx, ready, facts)
	var e *Error
	if !errors.Is(err, context.Canceled) || !errors.As(err, &e) || e.State != Unknown {
		t.Errorf("got %v", err)
	}
}

func TestClosedLinkForgetsThePassword(t *testing.T) {
	n := newFakeNode(t, Switch, "asks")
	if _, err := n.Link.open(soon(t)); err != nil {
		t.Fatal(err)
	}
	password := n.Link.password
	if string(password) != "secret1" {
		t.Fatalf("%q", password)
	}
	n.Link.close()
	if string(password) != strings.Repeat("\x00", 7) || n.Link.password != nil {
		t.Errorf("%q", password)
	}
}

// A password that has become wrong is asked for again, and then the new one is kept.
func TestWrongKeptPasswordIsAskedForAgain(t *testing.T) {
	n := newFakeNode(t, Switch, "asks", "asks asks resumed serves")
	if _, err := n.Link.open(soon(t)); err != nil {
		t.Fatal(err)
	}
	n.Link.current().Close()
	if _, err := n.commit(soon(t), ready, "root", agent.Facts{}); err != nil {
		t.Fatal(err)
	}
	want := []string{"password secret1", "password secret1", "password secret2", "commit root offset 0"}
	if got := n.record(t); !slices.Equal(got, want) || string(n.Link.password) != "secret2" {
		t.Errorf("%q, kept %q", got, n.Link.password)
	}
}
