package deploy

import (
	"context"
	"errors"
	"strings"
	"testing"

	"ferry/internal/agent"
)

// TestALockoutIsOnlyGoneOnWithWhenAPersonSaysSo locks who may answer, and what is said otherwise.
func TestALockoutIsOnlyGoneOnWithWhenAPersonSaysSo(t *testing.T) {
	risks := []agent.Risk{{Kind: agent.RiskPort, Text: "sshd moves"}, {Kind: agent.RiskSudo, Text: "no sudo"}}
	broken := errors.New("the terminal is gone")
	says := func(answer bool, err error) func(context.Context, string) (bool, error) {
		return func(_ context.Context, question string) (bool, error) {
			if want := "the new system may lock this very login out:\n  sshd moves\n  no sudo\nactivate it all the same?"; question != want {
				t.Errorf("asked %q", question)
			}
			return answer, err
		}
	}
	never := func(context.Context, string) (bool, error) {
		t.Error("asked, and there is nothing to ask")
		return false, nil
	}
	const refused = "the new system may lock this very login out: sshd moves; no sudo"
	for name, c := range map[string]struct {
		risks []agent.Risk
		allow bool
		ask   func(context.Context, string) (bool, error)
		want  string
	}{
		"no risk":          {nil, false, never, ""},
		"allowed":          {risks, true, never, ""},
		"nobody to ask":    {risks, false, nil, refused},
		"agreed":           {risks, false, says(true, nil), ""},
		"not agreed":       {risks, false, says(false, nil), refused},
		"no way to ask":    {risks, false, says(true, broken), broken.Error()},
		"one and a person": {risks[:1], false, func(context.Context, string) (bool, error) { return true, nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := lockout(t.Context(), c.risks, c.allow, c.ask); err != nil {
				got = err.Error()
				var hints interface{ Hints() []string }
				if got == refused && (!errors.As(err, &hints) || !strings.Contains(hints.Hints()[0], "--allow-lockout")) {
					t.Errorf("hints: %v", err)
				}
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
