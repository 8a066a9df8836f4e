package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/health"
	"ferry/internal/session"
)

// fakeAnswers answers every request on a connection; words say how.
func fakeAnswers(dir string, wire *agent.Wire, words []string) int {
	for {
		kind, payload, err := wire.Read()
		if err != nil || kind != agent.FrameRequest {
			return 0
		}
		var r agent.Request
		if json.Unmarshal(payload, &r) != nil {
			return 1
		}
		agenttest.Record(dir, strings.TrimSpace(string(r.Method)+" "+r.Action))
		answer := agent.Response{ID: r.ID}
		switch r.Method {
		case agent.MethodBootOnce:
			if slices.Contains(words, "lost") {
				return 255
			}
			answer.BootOnce = new(agent.BootOnceResult)
			switch {
			case r.Action == "forget" && slices.Contains(words, "stuck"), r.Action == "try" && slices.Contains(words, "unclean"):
				answer.BootOnce.Status, answer.BootOnce.Error, answer.BootOnce.Unclean = 1, "/boot is broken", true
			case r.Action == "try" && slices.Contains(words, "cannot"):
				answer.BootOnce.Status, answer.BootOnce.Error = 1, "the menu is full"
			}
		case agent.MethodReboot:
			if slices.Contains(words, "inhibited") {
				answer.Error = &agent.ResponseError{Text: "somebody holds it off"}
			}
		case agent.MethodBooted:
			answer.Booted = &agent.BootedResult{Finished: true, Failed: []string{"old.service"}}
			if slices.Contains(words, "tried") && !slices.Contains(words, "default") {
				answer.Booted.Before = []string{"old.service"}
			}
			if slices.Contains(words, "degraded") {
				answer.Booted.Failed = append(answer.Booted.Failed, "web.service")
			}
		case agent.MethodCheck:
			answer.Check = &agent.CheckResult{Status: 3}
		case agent.MethodCommit:
			answer.Commit = &agent.CommitResult{Generation: 7}
			if slices.Contains(words, "full") {
				answer.Commit.Status = 1
			}
		}
		if wire.WriteJSON(agent.FrameResponse, answer) != nil {
			return 1
		}
		if (r.Method == agent.MethodReboot || r.Action == "try") && slices.Contains(words, "down") {
			return 255
		}
	}
}

// rebootsAs deploys by a reboot to a target that goes through plan, one line for each connection.
func rebootsAs(t *testing.T, options RebootOptions, ask func(context.Context, string) (bool, error), plan ...string) (*fakeNode, error) {
	t.Helper()
	return rebootsWith(t, health.Default(), options, ask, plan...)
}

func rebootsWith(t *testing.T, checks health.Checks, options RebootOptions, ask func(context.Context, string) (bool, error), plan ...string) (*fakeNode, error) {
	t.Helper()
	n := newFakeNode(t, action.Boot, plan...)
	n.Node.Checks = checks
	if options.Timeout == 0 {
		options.Timeout = 3 * time.Second
	}
	n.opts.Reboot, n.opts.Ask, n.opts.Limits = options, ask, DefaultLimits()
	n.Link.RebootPause = 20 * time.Millisecond
	facts, err := n.Link.Open(agenttest.Soon(t))
	if err != nil {
		t.Fatal(err)
	}
	var result Result
	return n, n.rebooted(agenttest.Soon(t), ready, facts, &result)
}

// TestReboots goes through what may become of a reboot: the state that it is in then, and what the target was asked.
func TestReboots(t *testing.T) {
	const first = "first once answers down"
	try := []string{"boot-once try"}
	for name, c := range map[string]struct {
		options RebootOptions
		ask     func(context.Context, string) (bool, error)
		plan    []string
		state   session.State // "": it went well
		says    string
		asks    []string
	}{
		"it comes back and is committed": {
			plan: []string{first, "refused", "second tried answers"},
			asks: append(slices.Clone(try), "booted", "commit boot"),
		},
		"it answers for a while before it goes down": {
			plan: []string{"first once answers", "first answers", "first answers", "unknown", "second tried answers"},
			asks: append(slices.Clone(try), "booted", "commit boot"),
		},
		"the connection is lost while it prepares": {
			plan: []string{"first once lost answers", "refused", "first answers down", "second tried answers"},
			asks: append(slices.Clone(try), "booted", "commit boot"),
		},
		"and then it turns out that it cannot": {
			plan:  []string{"first once lost answers", "first cannot answers"},
			state: session.Unchanged, says: "cannot be rolled back: the menu is full", asks: try,
		},
		"it comes back with the old system": {
			plan:  []string{first, "second once answers"},
			state: session.RolledBack, says: "came back with the old system",
			asks: append(slices.Clone(try), "boot-once forget"),
		},
		"it cannot be tidied up then": {
			plan:  []string{first, "second stuck answers"},
			state: session.Unknown, says: "/boot is broken",
			asks: append(slices.Clone(try), "boot-once forget"),
		},
		"it comes back with another one": {
			plan:  []string{first, "second other answers"},
			state: session.Unknown, says: "neither the new nor the old", asks: try,
		},
		"the new system refuses the login, and the old one comes back": {
			plan:  []string{first, "denied", "denied", "second answers"},
			state: session.RolledBack, says: "came back with the old system",
			asks: append(slices.Clone(try), "boot-once forget"),
		},
		"it does not come back": {
			options: RebootOptions{Timeout: 200 * time.Millisecond}, plan: []string{first, "refused"},
			state: session.Unknown, says: "did not come back in time", asks: try,
		},
		"it does not go down": {
			options: RebootOptions{Timeout: time.Second}, plan: []string{"first once answers"},
			state: session.Unchanged, says: "did not go down; nothing has changed",
			asks: append(slices.Clone(try), "boot-once forget"),
		},
		"somebody holds the reboot off": {
			options: RebootOptions{Yes: true}, plan: []string{"first inhibited answers"},
			state: session.Unknown, says: "somebody holds it off; it boots the new system when it does", asks: []string{"booted", "commit boot", "reboot"},
		},
		"a unit fails in the new system": {
			plan:  []string{first, "second tried degraded answers down", "refused", "third answers"},
			state: session.RolledBack, says: "units failed: web.service; the target rolled back to",
			asks: append(slices.Clone(try), "booted", "reboot", "boot-once forget"),
		},
		"the commit fails": {
			plan:  []string{first, "second tried full answers down", "third answers"},
			state: session.RolledBack, says: "the boot loader could not be written",
			asks: append(slices.Clone(try), "booted", "commit boot", "reboot", "boot-once forget"),
		},
		"it runs the new system, which an earlier ferry has lost": {
			plan: []string{"second tried answers"},
			asks: []string{"booted", "commit boot"},
		},
		"the boot loader is left in pieces": {
			plan:  []string{"first once unclean answers"},
			state: session.Unknown, says: "/boot is broken", asks: []string{"boot-once try"},
		},
		"the boot loader cannot try it": {
			plan:  []string{"first once cannot answers"},
			state: session.Unchanged, says: "cannot be rolled back: the menu is full", asks: []string{"boot-once try"},
		},
		"and that is all right": {
			options: RebootOptions{Yes: true}, plan: []string{"first once cannot answers", "second tried default answers"},
			asks: []string{"boot-once try", "booted", "commit boot", "reboot", "booted"},
		},
		"there is no such boot loader": {
			plan:  []string{"first answers"},
			state: session.Unchanged, says: "its boot loader cannot try a system once", asks: []string{""},
		},
		"and the user says no": {
			ask: func(context.Context, string) (bool, error) { return false, nil }, plan: []string{"first answers"},
			state: session.Unchanged, says: "its boot loader cannot try a system once", asks: []string{""},
		},
		"and the user says yes": {
			ask:  func(context.Context, string) (bool, error) { return true, nil },
			plan: []string{"first answers down", "second tried default answers"},
			asks: []string{"booted", "commit boot", "reboot", "booted"},
		},
		"without a way back it does not come back": {
			options: RebootOptions{Yes: true, Timeout: 200 * time.Millisecond}, plan: []string{"first answers down", "refused"},
			state: session.Unknown, says: "did not come back in time", asks: []string{"booted", "commit boot", "reboot"},
		},
		"without a way back a unit fails": {
			options: RebootOptions{Yes: true}, plan: []string{"first answers down", "second tried default degraded answers"},
			state: session.Unknown, says: "units failed", asks: []string{"booted", "commit boot", "reboot", "booted"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := rebootsAs(t, c.options, c.ask, c.plan...)
			var e *session.Error
			switch {
			case c.state == "" && err != nil:
				t.Errorf("%v", err)
			case c.state != "" && (!errors.As(err, &e) || e.State != c.state || !strings.Contains(err.Error(), c.says)):
				t.Errorf("got %v (%+v)", err, e)
			}
			// A target that is still there is asked again.
			if got := slices.Compact(n.Record(t)); !slices.Equal(got, c.asks) {
				t.Errorf("it was asked %q", got)
			}
		})
	}
}

// TestAPasswordThatTheNewSystemRefusesIsNotAskedFor locks that nobody is asked while the target reboots.
func TestAPasswordThatTheNewSystemRefusesIsNotAskedFor(t *testing.T) {
	n, err := rebootsAs(t, RebootOptions{Timeout: time.Second}, nil, "asks first once answers down", "asks asks second tried answers")
	var e *session.Error
	if !errors.As(err, &e) || e.State != session.Unknown || !strings.Contains(err.Error(), "does not take the password") {
		t.Errorf("got %v", err)
	}
	if n.asked != 1 {
		t.Errorf("asked %d times", n.asked)
	}
}

// TestAFailedCheckIsGoneBackFrom locks that the node's checks come between the reboot and the commit.
func TestAFailedCheckIsGoneBackFrom(t *testing.T) {
	n, err := rebootsWith(t, health.Checks{Units: health.NoNew, Commands: []health.Command{{Run: []string{"/bin/false"}, Timeout: 5}}},
		RebootOptions{}, nil, "first once answers down", "second tried answers down", "third answers")
	var e *session.Error
	if !errors.As(err, &e) || e.State != session.RolledBack || e.Step != session.Check {
		t.Errorf("got %v (%+v)", err, e)
	}
	want := []string{"boot-once try", "booted", "check", "reboot", "boot-once forget"}
	if got := n.Record(t); !slices.Equal(got, want) {
		t.Errorf("it was asked %q", got)
	}
}

func TestUnitsAreJudgedByThePolicy(t *testing.T) {
	for _, c := range []struct {
		policy         health.UnitPolicy
		failed, before []string
		says           string
	}{
		{health.NoNew, []string{"a", "b"}, []string{"a", "b", "c"}, ""},
		{health.NoNew, []string{"a", "b"}, []string{"a"}, "units failed: b"},
		{health.None, []string{"a"}, []string{"a"}, "units failed: a"},
		{health.None, nil, []string{"a"}, ""},
		{health.Ignore, []string{"a"}, nil, ""},
	} {
		err := judgeUnits(c.policy, c.failed, c.before)
		if said := fmt.Sprint(err); err == nil && c.says != "" || err != nil && said != c.says {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
