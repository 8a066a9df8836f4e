package session

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/inventory"
	"ferry/internal/run"
	"ferry/internal/target"
)

// visited is a visit to a target that goes through a plan.
type visited struct {
	*Visit
	*agenttest.Target
	asked  int
	events []string
}

func visit(t *testing.T, plan ...string) *visited {
	t.Helper()
	n := &visited{Target: agenttest.New(t, plan...)}
	v, err := Session{
		Dialer: &target.Dialer{Runner: new(run.Runner)},
		Password: func(_ context.Context, _, _ string, attempt int) ([]byte, error) {
			n.asked++
			return []byte("secret" + strconv.Itoa(attempt)), nil
		},
		Observe: func(e Event) {
			if e.Kind == Line || e.Kind == Note {
				n.events = append(n.events, string(e.Kind)+" "+e.Text)
			}
		},
	}.Visit(&inventory.Inventory{File: "/ferry.nix"}, inventory.Node{Name: "pi", Target: "alice@pi"}, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	n.Visit = v
	t.Cleanup(v.Close)
	return n
}

func TestFirstConnectionIsTriedOnce(t *testing.T) {
	n := visit(t, "refused")
	var e *target.Error
	if _, err := n.Link.Open(agenttest.Soon(t)); !errors.As(err, &e) || e.Kind != target.Refused {
		t.Errorf("got %v", err)
	}
	if got := n.Connections(t); got != 1 {
		t.Errorf("%d connections", got)
	}
}

func TestClosedLinkForgetsThePassword(t *testing.T) {
	n := visit(t, "asks")
	if _, err := n.Link.Open(agenttest.Soon(t)); err != nil {
		t.Fatal(err)
	}
	password := n.Link.password
	if string(password) != "secret1" {
		t.Fatalf("%q", password)
	}
	n.Link.Close()
	if string(password) != strings.Repeat("\x00", 7) || n.Link.password != nil {
		t.Errorf("%q", password)
	}
}

// A password that has become wrong is asked for again, and then the new one is kept.
func TestWrongKeptPasswordIsAskedForAgain(t *testing.T) {
	n := visit(t, "asks", "asks asks resumed serves")
	if _, err := n.Link.Open(agenttest.Soon(t)); err != nil {
		t.Fatal(err)
	}
	n.Link.Agent().Close()
	err := n.Link.Do(agenttest.Soon(t), func(conn *agent.Session) error {
		_, err := conn.Commit(agenttest.Soon(t), agent.Request{Action: "root"}, io.Discard)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"password secret1", "password secret1", "password secret2", "commit root offset 0"}
	if got := n.Record(t); !slices.Equal(got, want) || string(n.Link.password) != "secret2" {
		t.Errorf("%q, kept %q", got, n.Link.password)
	}
}
