package server

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/agent"
	"ferry/internal/run"
)

func TestNothingIsChangedWithoutTheLock(t *testing.T) {
	m := newMachine(t)
	held, _, err := takeLock(m.Root, locked("s1"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer held.release()
	for name, opts := range map[string]Options{"locked by another": locked("s2"), "not asked for": {Who: "alice@here"}} {
		f := m.connect(opts)
		for _, r := range []agent.Request{activation("test"), commitment("boot")} {
			if r, _ := f.ask(r); r.Error == nil || r.Error.Kind != agent.KindLocked {
				t.Errorf("%s: %+v", name, r)
			}
		}
		f.send(agent.Request{Method: agent.MethodShip})
		if r, _ := f.answer(); r.Error == nil || r.Error.Kind != agent.KindLocked {
			t.Errorf("%s: %+v", name, r)
		}
		if err := f.wire.DataWriter().Close(); err != nil {
			t.Fatal(err)
		}
		if r, _ := f.ask(agent.Request{Method: "none"}); r.Error == nil {
			t.Errorf("%s: after the refusal: %+v", name, r)
		}
	}
	if calls := m.calls(); calls != nil {
		t.Errorf("ran %q", calls)
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*agent.Request)
		kind   agent.ErrorKind
		says   string
	}{
		"no toplevel":              {func(r *agent.Request) { r.Toplevel = "" }, agent.KindInvalid, "not in /nix/store"},
		"no bundle":                {func(r *agent.Request) { r.Bundle = "" }, agent.KindInvalid, "not in /nix/store"},
		"a program as toplevel":    {func(r *agent.Request) { r.Toplevel = "/tmp" }, agent.KindInvalid, "not in /nix/store"},
		"a path below a toplevel":  {func(r *agent.Request) { r.Toplevel = newSystem + "/../x" }, agent.KindInvalid, "not a store path"},
		"a toplevel that is gone":  {func(r *agent.Request) { r.Toplevel = newSystem + "-gone" }, agent.KindInvalid, "is not on the target"},
		"a job called like a path": {func(r *agent.Request) { r.Job = "../../../etc" }, "", "is not allowed"},
		"a job without a name":     {func(r *agent.Request) { r.Job = "" }, "", "is not allowed"},
		"an offset before the log": {func(r *agent.Request) { r.Offset = -1 }, "", "is not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			f := m.connect(locked("s1"))
			for _, r := range []agent.Request{activation("test"), commitment("boot")} {
				c.change(&r)
				got, _ := f.ask(r)
				if got.Error == nil || got.Error.Kind != c.kind || !strings.Contains(got.Error.Text, c.says) {
					t.Errorf("%s: %+v, %v", r.Method, got, got.Error)
				}
			}
			if calls := m.calls(); calls != nil {
				t.Errorf("ran %q", calls)
			}
		})
	}
}

func TestOnlyANixOSIsChangedUnlessForced(t *testing.T) {
	m := newMachine(t)
	if err := os.Remove(m.Path("/etc/NIXOS")); err != nil {
		t.Fatal(err)
	}
	f := m.connect(locked("s1"))
	r := activation("test")
	if got, _ := f.ask(r); got.Error == nil || got.Error.Kind != agent.KindNotNixOS {
		t.Errorf("%+v", got)
	}
	r.ForceNotNixOS = true
	if got, _ := f.ask(r); got.Error != nil || got.Activate.Status != 0 {
		t.Errorf("forced: %+v, %v", got.Activate, got.Error)
	}
}

func TestServeEndsWhenTheOtherSideSpeaksNonsense(t *testing.T) {
	for name, c := range map[string]struct {
		kind    agent.FrameType
		payload string
		says    string
	}{
		"a stream without a request": {agent.FrameData, "x", "where a request was expected"},
		"no JSON":                    {agent.FrameRequest, "{", "request: "},
		"deep JSON":                  {agent.FrameRequest, strings.Repeat("[", 1<<19), "request: "},
		"a wrong type":               {agent.FrameRequest, `{"id":"x"}`, "request: "},
	} {
		t.Run(name, func(t *testing.T) {
			f := newMachine(t).connect(locked("s1"))
			if err := f.wire.Write(c.kind, []byte(c.payload)); err != nil {
				t.Fatal(err)
			}
			err := <-f.ended
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			f.ended <- nil
		})
	}
}

func TestResponseError(t *testing.T) {
	failed := &run.Error{Argv: []string{"nix-store", "--serve", "--write"}, Status: 1, Stderr: "warning\nerror: writing to file: \x1b[31mNo space left on device\n", Err: errors.New("exit status 1")}
	for name, c := range map[string]struct {
		err  error
		want agent.ResponseError
	}{
		"a command": {fmt.Errorf("ship: %w", failed), agent.ResponseError{
			Kind: agent.KindDiskFull, Text: "error: writing to file: No space left on device", Command: "nix-store --serve --write",
		}},
		"several lines": {errors.New("one\ntwo\x07"), agent.ResponseError{Text: "one two?"}},
		"ready":         {fmt.Errorf("x: %w", errLocked), *errLocked},
		"a full disk":   {&os.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}, agent.ResponseError{Kind: agent.KindDiskFull, Text: "write /x: no space left on device"}},
	} {
		got := responseError(c.err)
		if got.Kind != c.want.Kind || got.Text != c.want.Text || got.Command != c.want.Command {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
