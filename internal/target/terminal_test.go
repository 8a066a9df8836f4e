package target

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/run"

	"github.com/creack/pty"
)

// onTerminal is what this test program does when a test starts it on a terminal of its own.
func onTerminal(role string) error {
	if role == "background" {
		// As a shell starts a command with an ampersand.
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(context.Background(), self)
		cmd.Env = append(os.Environ(), "FAKE_ROLE=foreground")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd.Run()
	}
	tty := OpenTerminal()
	if tty == nil {
		return errors.New("no terminal")
	}
	addr, err := ParseAddress("pi")
	if err != nil {
		return err
	}
	d := &Dialer{Runner: new(run.Runner), Terminal: tty, Asking: func() func() {
		fmt.Println("ssh has it")
		return func() { fmt.Println("ferry has it") }
	}}
	c, err := d.Start(context.Background(), addr, "line", os.Stdout)
	if err != nil {
		return err
	}
	answer, err := bufio.NewReader(c.Out).ReadString('\n')
	if err != nil {
		return errors.Join(err, c.Wait())
	}
	c.Ready()
	c.Ready()
	fmt.Print("interactive: ", c.Interactive(), ", ssh: ", answer)
	if run.HasTerminal(tty) {
		line, err := bufio.NewReader(tty).ReadString('\n')
		if err != nil {
			return err
		}
		fmt.Print("ferry: ", line)
	}
	_ = c.In.Close()
	return c.Wait()
}

// askOnTerminal is an ssh that asks for a passphrase, if it may.
func askOnTerminal(args []string) int {
	if slices.Contains(args, "BatchMode=yes") {
		fmt.Fprintln(os.Stderr, "Welcome to pi\nalice@pi: Permission denied (publickey).")
		return 255
	}
	tty := OpenTerminal()
	if tty == nil {
		return 255
	}
	fmt.Fprint(tty, "passphrase: ")
	line, err := bufio.NewReader(tty).ReadString('\n')
	if err != nil {
		fmt.Println(err)
		return 255
	}
	fmt.Print("got ", line)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// person is who sits at the terminal of a program.
type person struct {
	t    *testing.T
	cmd  *exec.Cmd
	pty  *os.File
	said chan byte
	seen strings.Builder
}

// sitDown starts ferry in a role, with a fake ssh.
func sitDown(t *testing.T, role, ssh string) *person {
	t.Helper()
	useFakeSSH(t, ssh)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, cmd: exec.CommandContext(t.Context(), self), said: make(chan byte, 1<<16)}
	p.cmd.Env = append(os.Environ(), "FAKE_ROLE="+role, "GORACE=atexit_sleep_ms=0")
	if p.pty, err = pty.Start(p.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.pty.Close() })
	go func() {
		defer close(p.said)
		b := make([]byte, 1)
		for {
			if _, err := p.pty.Read(b); err != nil {
				return
			}
			p.said <- b[0]
		}
	}()
	return p
}

// sees waits until text was on the terminal.
func (p *person) sees(text string) {
	p.t.Helper()
	late := time.After(20 * time.Second)
	for !strings.Contains(p.seen.String(), text) {
		select {
		case b, more := <-p.said:
			if !more {
				p.t.Fatalf("%q does not come after %q", text, p.seen.String())
			}
			p.seen.WriteByte(b)
		case <-late:
			p.t.Fatalf("%q does not come after %q", text, p.seen.String())
		}
	}
}

func (p *person) types(text string) {
	p.t.Helper()
	if _, err := p.pty.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

func TestSSHAsksOnTheTerminalAndFerryGetsItBack(t *testing.T) {
	p := sitDown(t, "foreground", "ask")
	p.sees("ssh has it")
	p.sees("passphrase: ")
	p.types("open sesame\n")
	p.sees("ferry has it")
	p.sees("interactive: true, ssh: got open sesame")
	p.types("for ferry\n")
	p.sees("ferry: for ferry")
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(p.seen.String(), "ferry has it"); n != 1 {
		t.Errorf("it was given back %d times", n)
	}
	if strings.Contains(p.seen.String(), "denied") || strings.Contains(p.seen.String(), "Welcome") {
		t.Errorf("what the first try said is shown: %q", p.seen.String())
	}
}

// A login that needs nobody is made by an ssh that could not ask: the same one can be made again, to confirm.
func TestALoginThatNeedsNobodyIsMadeWithoutTheTerminal(t *testing.T) {
	p := sitDown(t, "foreground", "alone")
	p.sees("ssh has it")
	p.sees("a question of sudo's")
	p.sees("ferry has it")
	p.sees("interactive: false, ssh: no terminal, never asks")
	p.types("for ferry\n")
	p.sees("ferry: for ferry")
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestFerryInTheBackgroundLeavesTheTerminalAlone(t *testing.T) {
	p := sitDown(t, "background", "ask")
	p.sees("ssh pi: alice@pi: Permission denied (publickey)")
	if err := p.cmd.Wait(); err == nil {
		t.Error("it logged in")
	}
	if strings.Contains(p.seen.String(), "ssh has it") {
		t.Errorf("ssh was given the terminal: %q", p.seen.String())
	}
}

// Ctrl-C while ssh asks reaches ssh alone: ferry must take it for what it is.
func TestCtrlCAtSSHsQuestionInterrupts(t *testing.T) {
	p := sitDown(t, "foreground", "ask")
	p.sees("passphrase: ")
	p.types("\x03")
	p.sees("interrupted")
	p.sees("ferry has it")
	_ = p.cmd.Wait()
}

// Ctrl-Z stops neither: ferry would not notice, and nobody would wake ssh again.
func TestCtrlZAtSSHsQuestionIsIgnored(t *testing.T) {
	p := sitDown(t, "foreground", "ask")
	p.sees("passphrase: ")
	p.types("\x1a")
	time.Sleep(100 * time.Millisecond)
	p.types("open sesame\n")
	p.sees("ssh: got open sesame")
	p.types("for ferry\n")
	p.sees("ferry: for ferry")
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}
