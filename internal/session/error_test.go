package session

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/run"
)

func TestErrorGivesItsOwnHintsFirstAndNoMoreThanTwo(t *testing.T) {
	inner := Hint("inner", "three", "", "four")
	e := &Error{Node: "pi", Step: Ship, Err: fmt.Errorf("x: %w", inner), Advice: []string{"one"}}
	if got := strings.Join(e.Hints(), " "); got != "one three" || e.Error() != "pi: ship: x: inner" {
		t.Errorf("%q, %v", got, e)
	}
	failed := &run.Error{Argv: []string{"nix-store"}, Stderr: "a\n\x1b[31mb\n", Err: errors.New("exit status 1")}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"the target's command": {&agent.ResponseError{Stderr: []string{"far"}}, "far"},
		"the agent's start":    {&agent.StartError{Stderr: []string{"shell"}}, "shell"},
		"a command here":       {failed, "a b"},
		"nothing":              {errors.New("x"), ""},
	} {
		if got := strings.Join((&Error{Err: c.err}).Output(), " "); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestShipErrorOfAFullDiskHelps(t *testing.T) {
	full := FullDisk(fmt.Errorf("x: %w", &agent.ResponseError{Kind: agent.KindDiskFull, Text: "No space left on device", Stderr: []string{"error: it"}}))
	e := &Error{Node: "pi", Step: Ship, Err: full}
	if !strings.Contains(e.Error(), "disk is full: No space left on device") || len(e.Hints()) != 1 || len(e.Output()) != 1 {
		t.Errorf("%v, %q, %q", e, e.Hints(), e.Output())
	}
	if other := errors.New("x"); FullDisk(other) != other {
		t.Error("another error was changed")
	}
}
