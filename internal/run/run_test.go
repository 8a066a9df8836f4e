package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func sh(script string) Command { return Command{Argv: []string{"sh", "-c", script}} }

func TestRunPassesStreamsFolderAndEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KEPT", "kept")
	c := sh(`cat; pwd -P; echo "$KEPT $ADDED"; echo problem >&2`)
	c.In, c.Dir, c.Env = strings.NewReader("input\n"), dir, []string{"ADDED=first", "ADDED=last"}
	var stderr bytes.Buffer
	c.Err = &stderr
	out, err := new(Runner).Output(t.Context(), c)
	real, _ := filepath.EvalSymlinks(dir)
	if want := "input\n" + real + "\nkept last\n"; err != nil || string(out) != want || stderr.String() != "problem\n" {
		t.Errorf("%q, %q, %v", out, &stderr, err)
	}
}

func TestRunWithoutInputReadsNothing(t *testing.T) {
	if out, err := new(Runner).Output(t.Context(), sh("cat; echo end")); err != nil || string(out) != "end\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestTraceGetsWordsThatPaste(t *testing.T) {
	var lines []string
	r := Runner{Trace: func(argv []string) { lines = append(lines, QuoteAll(argv)) }}
	if err := r.Run(t.Context(), Command{Argv: []string{"true", "it's", "$x"}}); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1 || lines[0] != `true 'it'"'"'s' '$x'` {
		t.Errorf("%q", lines)
	}
	var none *Runner
	if err := none.Run(t.Context(), Command{Argv: []string{"true"}}); err != nil {
		t.Error(err)
	}
}

func TestErrorSaysWhatFailedAndWhy(t *testing.T) {
	for script, want := range map[string]string{
		"exit 3":                             "sh: exit status 3",
		"echo one >&2; echo two >&2; exit 1": "sh: exit status 1: two",
		`printf '\033[31mred\033[0m\r\n\n  \n' >&2; exit 1`: "sh: exit status 1: red",
		"kill -9 $$": "sh: signal: killed",
	} {
		err := new(Runner).Run(t.Context(), sh(script))
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", script, err, want)
		}
		var failed *Error
		if !errors.As(err, &failed) || failed.CommandLine() != "sh -c "+Quote(script) {
			t.Errorf("%s: %+v", script, failed)
		}
	}
	var failed *Error
	if err := new(Runner).Run(t.Context(), sh("echo all of it >&2; exit 7")); !errors.As(err, &failed) || failed.Status != 7 || failed.Stderr != "all of it\n" {
		t.Errorf("%+v", failed)
	}
	if err := new(Runner).Run(t.Context(), sh("kill -9 $$")); !errors.As(err, &failed) || failed.Status != -1 {
		t.Errorf("%+v", failed)
	}
}

func TestErrorKeepsTheEndOfStandardError(t *testing.T) {
	var all bytes.Buffer
	c := sh("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo line $i; done >&2; exit 1")
	c.Err = &all
	var failed *Error
	if err := new(Runner).Run(t.Context(), c); !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if len(failed.Stderr) != 64<<10 || !strings.HasSuffix(failed.Stderr, "line 30000\n") || !strings.HasSuffix(all.String(), failed.Stderr) || all.Len() < 300_000 {
		t.Errorf("%d of %d bytes", len(failed.Stderr), all.Len())
	}
}

func TestProgramsThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		argv     []string
		notFound bool
	}{
		"no words":       {nil, false},
		"no program":     {[]string{""}, false},
		"NUL":            {[]string{"true", "a\x00b"}, false},
		"not there":      {[]string{"no-such-program-anywhere"}, true},
		"not executable": {[]string{plain}, false},
	} {
		err := new(Runner).Run(t.Context(), Command{Argv: c.argv})
		var failed *Error
		if !errors.As(err, &failed) || failed.Status != -1 || NotFound(err) != c.notFound {
			t.Errorf("%s: %+v", what, err)
		}
	}
}

func TestCancelLetsTheProcessCleanUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	c := sh(`trap 'echo cleaned; exit 0' TERM; echo ready >&2; while :; do sleep 0.02; done`)
	c.Out, c.Err = &out, onWrite(cancel)
	err := new(Runner).Run(ctx, c)
	if !errors.Is(err, context.Canceled) || out.String() != "cleaned\n" {
		t.Errorf("%v, %q", err, &out)
	}
	var failed *Error
	if !errors.As(err, &failed) || failed.Status != -1 {
		t.Errorf("%+v", err)
	}
}

func TestCancelKillsAProcessThatDoesNotEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := sh(`trap '' TERM; echo $$ >&2; while :; do sleep 0.02; done`)
	var stderr bytes.Buffer
	c.Err, c.Grace = io.MultiWriter(&stderr, onWrite(cancel)), 100*time.Millisecond
	started := time.Now()
	if err := new(Runner).Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if took := time.Since(started); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(stderr.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v", pid, err)
	}
}

func TestInsistRepeatsTheSignal(t *testing.T) {
	for insist, want := range map[bool]string{false: "", true: "cleaned\n"} {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		c := sh(`trap 'trap "echo cleaned; exit 0" TERM' TERM; echo ready >&2; while :; do sleep 0.02; done`)
		c.Out, c.Err, c.Grace, c.Insist = &out, onWrite(cancel), time.Second, insist
		if err := new(Runner).Run(ctx, c); !errors.Is(err, context.Canceled) || out.String() != want {
			t.Errorf("insist %v: %v, %q", insist, err, &out)
		}
	}
}

func TestDeadlineIsTheError(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := new(Runner).Run(ctx, Command{Argv: []string{"sleep", "1000"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := new(Runner).Run(ctx, Command{Argv: []string{"true"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("started too late: %v", err)
	}
}

// onWrite is a writer that calls f for every write.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

func TestOwnGroupKeepsTheTerminalsSignalsAway(t *testing.T) {
	for own, want := range map[bool]bool{false: true, true: false} {
		c := sh("ps -o pgid= -p $$ || cut -d' ' -f5 /proc/$$/stat")
		c.OwnGroup = own
		out, err := new(Runner).Output(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if ours := strings.TrimSpace(string(out)) == fmt.Sprint(syscall.Getpgrp()); ours != want {
			t.Errorf("own %v: group %s, ours is %d", own, out, syscall.Getpgrp())
		}
	}
}

func TestPipeTalksBothWays(t *testing.T) {
	p, in, out, err := new(Runner).Pipe(t.Context(), sh("read a; echo got $a; cat; echo bye >&2; exit 4"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Pid() <= 0 {
		t.Errorf("pid %d", p.Pid())
	}
	buf := make([]byte, 100)
	if _, err := io.WriteString(in, "one\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(out, buf[:8]); err != nil || string(buf[:n]) != "got one\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if _, err := io.WriteString(in, "two\n"); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	if rest, err := io.ReadAll(out); err != nil || string(rest) != "two\n" {
		t.Errorf("%q, %v", rest, err)
	}
	var failed *Error
	if err := p.Wait(); !errors.As(err, &failed) || failed.Status != 4 || p.Stderr() != "bye\n" {
		t.Errorf("%v", err)
	}
}

func TestPipeOfAProgramThatIsMissing(t *testing.T) {
	if _, _, _, err := new(Runner).Pipe(t.Context(), Command{Argv: []string{"no-such-program-anywhere"}}); !NotFound(err) {
		t.Errorf("%v", err)
	}
}

func TestSignalAndKillEndAProcess(t *testing.T) {
	for what, end := range map[string]func(*Process){
		"signal: interrupt": func(p *Process) { _ = p.Signal(syscall.SIGINT) },
		"signal: killed":    (*Process).Kill,
	} {
		p, err := new(Runner).Start(t.Context(), Command{Argv: []string{"sleep", "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		end(p)
		var exit *exec.ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.String() != what {
			t.Errorf("%v, want %s", err, what)
		}
	}
}

// TestErrFileIsStandardErrorItself: it is told by the error, and written to when nobody waits.
func TestErrFileIsStandardErrorItself(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "errors"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c := sh("head -c 100000 /dev/zero | tr '\\0' x >&2; echo bye >&2; exit 4")
	c.ErrFile = file
	err = new(Runner).Run(t.Context(), c)
	var failed *Error
	if !errors.As(err, &failed) || failed.Status != 4 || len(failed.Stderr) != stderrTail || !strings.HasSuffix(failed.Stderr, "xbye\n") {
		t.Errorf("%v", err)
	}
}
