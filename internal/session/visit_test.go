package session

import (
	"context"
	"errors"
	"testing"

	"ferry/internal/agent"
)

// TestAVisitThatIsEndedFirstFailsWithAnErrorOfTheNode locks the kind of error where neither the connection nor the evaluation has
// failed by itself, and that it says why.
func TestAVisitThatIsEndedFirstFailsWithAnErrorOfTheNode(t *testing.T) {
	n := visit(t, "hangs")
	n.Node.Source = []string{"missing"}
	why := errors.New("others have failed")
	ctx, end := context.WithCancelCause(t.Context())
	end(why)
	_, _, err := n.Prepare(ctx, false, func(Built, agent.Facts) bool { return false })
	var e *Error
	if !errors.As(err, &e) || e.Node != "pi" || e.State != Unchanged || !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}
