package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/run"
)

func checking(seconds int, argv ...string) agent.Request {
	return agent.Request{Method: agent.MethodCheck, Check: &agent.CheckRequest{Argv: argv, Timeout: seconds}}
}

func TestCheckTellsHowTheCommandEnded(t *testing.T) {
	m := newMachine(t)
	m.Program("/bin/no-interpreter", "#!/nonexistent/sh\n")
	m.Write("/bin/no-program", "text")
	f := m.connect(Options{})
	for name, c := range map[string]struct {
		argv []string
		want agent.CheckResult
	}{
		"well": {[]string{"true"}, agent.CheckResult{}},
		"with a status and both streams": {[]string{"sh", "-c", "echo one; echo 'two\033[31m' >&2; exit 3"},
			agent.CheckResult{Status: 3, Output: []string{"one", "two"}}},
		"by a signal":              {[]string{"sh", "-c", "kill -ABRT $$"}, agent.CheckResult{Status: -1, Error: "killed by signal: aborted"}},
		"never, a program":         {[]string{"no-such-program"}, agent.CheckResult{Status: -1, Error: "there is no such program on the target"}},
		"never, a file":            {[]string{"/nonexistent"}, agent.CheckResult{Status: -1, Error: "there is no such program on the target"}},
		"never, an interpreter":    {[]string{m.Path("/bin/no-interpreter")}, agent.CheckResult{Status: -1, Error: "the interpreter in its first line is not on the target"}},
		"never, not executable":    {[]string{m.Path("/bin/no-program")}, agent.CheckResult{Status: -1, Error: "no-program: fork/exec " + m.Path("/bin/no-program") + ": permission denied"}},
		"never, a bad argument":    {[]string{"true", "a\x00b"}, agent.CheckResult{Status: -1, Error: "true: true: an argument contains a NUL byte"}},
		"reading nothing":          {[]string{"cat"}, agent.CheckResult{}},
		"in / with the fixed PATH": {[]string{"sh", "-c", "pwd; echo $PATH"}, agent.CheckResult{Output: []string{"/", systemPath}}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := f.ask(checking(20, c.argv...))
			if r.Error != nil || r.Check == nil {
				t.Fatalf("%+v, %v", r, r.Error)
			}
			got := *r.Check
			slices.Sort(got.Output)
			if got.Status != c.want.Status || got.Error != c.want.Error || got.TimedOut || !slices.Equal(got.Output, c.want.Output) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// gone waits until a process that wrote its number to file is there no more.
func gone(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// A zombie that nobody has waited for is gone as well.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if _, state, _ := strings.Cut(string(stat), ") "); err != nil || strings.HasPrefix(state, "Z") {
			return
		}
		if time.Now().After(end) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d goes on", pid)
		}
	}
}

// stubborn is a script whose child wants to go on for ever.
const stubborn = `(trap '' TERM; echo begun; sh -c 'echo $PPID' >"$0.new"; mv "$0.new" "$0"; while :; do sleep 0.05; done) &
`

func TestCheckIsEndedWithAllItHasStartedWhenItsTimeIsOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	f := newMachine(t).connect(Options{})
	r, _ := f.ask(checking(1, "sh", "-c", "trap '' TERM\n"+stubborn+"wait", file))
	if r.Error != nil || !r.Check.TimedOut || r.Check.Status != -1 || !slices.Equal(r.Check.Output, []string{"begun"}) {
		t.Errorf("%+v, %v", r.Check, r.Error)
	}
	gone(t, file)
}

func TestWhatACheckLeavesRunningIsEnded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	f := newMachine(t).connect(Options{})
	r, _ := f.ask(checking(20, "sh", "-c", stubborn+`until [ -e "$0" ]; do sleep 0.01; done`, file))
	if r.Error != nil || r.Check.Status != 0 || r.Check.TimedOut || r.Check.Error != "" {
		t.Errorf("%+v, %v", r.Check, r.Error)
	}
	gone(t, file)
}

// TestAnAgentThatIsEndedTakesItsCheckWithIt locks that a connection made again does not leave a command behind: the agent of
// the lost one is ended.
func TestAnAgentThatIsEndedTakesItsCheckWithIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	s := &server{runner: new(run.Runner)}
	ended := make(chan error, 1)
	go func() {
		_, err := s.check(ctx, checking(600, "sh", "-c", stubborn+"wait", file))
		ended <- err
	}()
	for _, err := os.Stat(file); err != nil; _, err = os.Stat(file) {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	gone(t, file)
}

func TestCheckThatWritesWithoutEnd(t *testing.T) {
	f := newMachine(t).connect(Options{})
	r, _ := f.ask(checking(1, "yes", strings.Repeat("x", 100)))
	if r.Error != nil || !r.Check.TimedOut || len(r.Check.Output) != agent.CheckLines {
		t.Errorf("%+v, %v", r.Check, r.Error)
	}
	r, _ = f.ask(checking(1, "sh", "-c", "head -c 3000000 /dev/zero"))
	if r.Error != nil || r.Check.Status != 0 || len(strings.Join(r.Check.Output, "")) > 1<<16 {
		t.Errorf("%+v, %v", r.Check, r.Error)
	}
}

func TestChecksThatMakeNoSense(t *testing.T) {
	f := newMachine(t).connect(Options{})
	for name, r := range map[string]agent.Request{
		"no command":    {Method: agent.MethodCheck},
		"no time":       checking(0, "true"),
		"negative time": checking(-1, "true"),
		"endless time":  checking(1<<30, "true"),
	} {
		if got, _ := f.ask(r); got.Error == nil || got.Check != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got, _ := f.ask(checking(1)); got.Error != nil || got.Check.Status != -1 {
		t.Errorf("an empty command: %+v", got)
	}
}
