package deploy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/session"
)

func TestActivationIsFollowedOverALostConnection(t *testing.T) {
	n := newFakeNode(t, action.Switch, "asks logs", "asks resumed serves")
	facts, err := n.Link.Open(agenttest.Soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.activate(agenttest.Soon(t), ready, facts); err != nil {
		t.Fatal(err)
	}
	if n.asked != 1 {
		t.Errorf("asked for the password %d times", n.asked)
	}
	want := []string{"password secret1", "activate test offset 0", "password secret1", "activate test offset 6"}
	if got := n.Record(t); !slices.Equal(got, want) {
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
	n := newFakeNode(t, action.Switch, "dies", "refused", "resumed serves")
	if _, err := n.Link.Open(agenttest.Soon(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.commit(agenttest.Soon(t), ready, "boot", agent.Facts{}); err != nil {
		t.Error(err)
	}
	n = newFakeNode(t, action.Switch, "dies", "unknown", "resumed serves")
	if _, err := n.Link.Open(agenttest.Soon(t)); err != nil {
		t.Fatal(err)
	}
	if generation, err := n.commit(agenttest.Soon(t), ready, "boot", agent.Facts{}); err != nil || generation != 7 {
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
			n := newFakeNode(t, action.Switch, c.plan...)
			facts, err := n.Link.Open(agenttest.Soon(t))
			if err != nil {
				t.Fatal(err)
			}
			_, err = n.activate(agenttest.Soon(t), ready, facts)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if got := n.Connections(t); got != c.connections {
				t.Errorf("%d connections", got)
			}
		})
	}
}

func TestTargetThatForgotIsUnchangedOnlyIfItRunsWhatItDid(t *testing.T) {
	for again, state := range map[string]session.State{"serves": session.Unchanged, "moved serves": session.Unknown} {
		n := newFakeNode(t, action.Switch, "dies", again)
		facts, err := n.Link.Open(agenttest.Soon(t))
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.activate(agenttest.Soon(t), ready, facts)
		var e *session.Error
		if !errors.As(err, &e) || e.State != state {
			t.Errorf("%s: %v", again, err)
		}
	}
}

func TestCtrlCWhileConnectingAgainEnds(t *testing.T) {
	n := newFakeNode(t, action.Switch, "dies", "refused")
	facts, err := n.Link.Open(agenttest.Soon(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(agenttest.Soon(t))
	time.AfterFunc(300*time.Millisecond, cancel)
	_, err = n.activate(ctx, ready, facts)
	var e *session.Error
	if !errors.Is(err, context.Canceled) || !errors.As(err, &e) || e.State != session.Unknown {
		t.Errorf("got %v", err)
	}
}
