package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/inventory"
	"ferry/internal/target"
)

// TestNodesAreAskedAgainWhenThatMayHelp has each kind of failure, with and without somebody to ask.
func TestNodesAreAskedAgainWhenThatMayHelp(t *testing.T) {
	dropped := &target.Error{Kind: target.Lost}
	needy := &agent.ElevateError{Kind: agent.PasswordNeeded}
	gone := &target.Error{Kind: target.Refused}
	for name, c := range map[string]struct {
		terminal bool
		nodes    int
		errs     map[int][]error // what each asking of a node gives
		want     string          // how each node is asked: u without, p with a person; then what the last gave
	}{
		"all well":            {true, 3, nil, "u ok, u ok, u ok"},
		"one is dropped":      {false, 2, map[int][]error{1: {dropped, nil}}, "u ok, uu ok"},
		"one stays away":      {false, 2, map[int][]error{1: {dropped, dropped}}, "u ok, uu lost"},
		"one is off":          {true, 2, map[int][]error{1: {gone}}, "u ok, u refused"},
		"a password":          {true, 2, map[int][]error{0: {needy, nil}}, "up ok, u ok"},
		"a password, no one":  {false, 2, map[int][]error{0: {needy}}, "u password, u ok"},
		"no password given":   {true, 2, map[int][]error{0: {needy, context.Canceled}}, "up nobody, u ok"},
		"one node":            {true, 1, map[int][]error{0: {needy}}, "p password"},
		"more than at a time": {false, 3 * atOnce, nil, strings.TrimSuffix(strings.Repeat("u ok, ", 3*atOnce), ", ")},
	} {
		t.Run(name, func(t *testing.T) {
			terminal := os.Stdin
			if !c.terminal {
				terminal = nil
			}
			l := Session{Dialer: &target.Dialer{Terminal: terminal}, Password: func(context.Context, string, string, int) ([]byte, error) { return nil, nil }}
			var mu sync.Mutex
			looks := make([]string, c.nodes)
			errs := l.Each(t.Context(), make([]inventory.Node, c.nodes), func(_ context.Context, l Session, i int) error {
				mu.Lock()
				defer mu.Unlock()
				how := "u"
				if l.Password != nil {
					how = "p"
				}
				n := len(looks[i])
				looks[i] += how
				if list := c.errs[i]; n < len(list) {
					return list[n]
				}
				return nil
			})
			var got []string
			for i, err := range errs {
				got = append(got, looks[i]+" "+word(err))
			}
			if text := strings.Join(got, ", "); text != c.want {
				t.Errorf("got %s\nwant %s", text, c.want)
			}
		})
	}
}

func word(err error) string {
	var connect *target.Error
	var elevate *agent.ElevateError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &connect):
		return map[target.Kind]string{target.Lost: "lost", target.Refused: "refused"}[connect.Kind]
	case errors.As(err, &elevate):
		return "password"
	}
	return strings.Fields(fmt.Sprint(err))[0]
}

// TestOnlyWhatAPersonCouldMendIsAskedAgain after a look without one.
func TestOnlyWhatAPersonCouldMendIsAskedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"nothing":        {nil, false},
		"a password":     {&agent.ElevateError{Kind: agent.PasswordNeeded}, true},
		"a wrong one":    {&agent.ElevateError{Kind: agent.WrongPassword}, false},
		"no answer":      {Hint("no answer within 1m0s"), false},
		"something else": {errors.New("x"), false},
	} {
		if got := wantsPerson(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
