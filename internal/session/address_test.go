package session

import (
	"io"
	"slices"
	"strings"
	"testing"

	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/inventory"
)

// TestTheNextAddressIsTriedWhereNothingAnswers locks in which order a node's addresses are tried, and that only a host that
// does not answer leads to the next.
func TestTheNextAddressIsTriedWhereNothingAnswers(t *testing.T) {
	for title, c := range map[string]struct {
		plan    []string
		reached string // the address, or a part of the error
		tries   int
	}{
		"the first answers":          {[]string{"resumed"}, "alice@pi.lan", 1},
		"the second answers":         {[]string{"refused", "resumed"}, "alice@pi", 2},
		"an unknown name":            {[]string{"unknown", "resumed"}, "alice@pi", 2},
		"the last answers":           {[]string{"refused", "refused", "resumed"}, "alice@pi.example.org", 3},
		"none answers":               {[]string{"refused"}, "refused", 3},
		"the first denies the login": {[]string{"denied", "resumed"}, "Permission denied", 1},
	} {
		t.Run(title, func(t *testing.T) {
			n := visit(t, c.plan...)
			var err error
			n.Link.addresses, err = addressesOf(inventory.Node{Target: "alice@pi.lan", Fallbacks: []string{"alice@pi", "alice@pi.example.org"}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = n.Link.Open(agenttest.Soon(t))
			got := n.Link.Address().String()
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.reached) || n.Connections(t) != c.tries {
				t.Errorf("%s after %d tries, want %s after %d", got, n.Connections(t), c.reached, c.tries)
			}
			if len(n.events) != c.tries-1 {
				t.Errorf("%d addresses did not answer, and it is said %d times: %q", c.tries-1, len(n.events), n.events)
			}
		})
	}
}

// TestALostConnectionIsMadeAgainAtAnyAddress locks that the address that answered last is tried first, and then the others.
func TestALostConnectionIsMadeAgainAtAnyAddress(t *testing.T) {
	n := visit(t, "refused", "asks logs", "refused", "asks resumed serves")
	var err error
	if n.Link.addresses, err = addressesOf(inventory.Node{Target: "alice@pi.lan", Fallbacks: []string{"alice@pi"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Link.Open(agenttest.Soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.Link.Follow(agenttest.Soon(t), func(conn *agent.Session) error {
		_, err := conn.Activate(agenttest.Soon(t), agent.Request{Action: "test"}, io.Discard)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// It was lost at the second address, which was tried first and refused: so the first is reached.
	if n.Link.Address().String() != "alice@pi.lan" || n.Connections(t) != 4 {
		t.Errorf("reached at %s after %d connections", n.Link.Address(), n.Connections(t))
	}
}

func TestElevation(t *testing.T) {
	if got := Elevation(inventory.Node{}); !slices.Equal(got, []string{"sudo"}) {
		t.Errorf("%q", got)
	}
	node := inventory.Node{Elevate: []string{"doas", "-u", "root"}}
	if got := Elevation(node); !slices.Equal(got, node.Elevate) {
		t.Errorf("%q", got)
	}
}
