package deploy

import (
	"errors"
	"strings"
	"testing"

	"ferry/internal/action"
	"ferry/internal/agent"
	"ferry/internal/agent/agenttest"
	"ferry/internal/session"
)

// TestWhatIsGoneFromATargetsDiskIsNamed has a target that lacks paths which this machine has not either: nothing is activated.
func TestWhatIsGoneFromATargetsDiskIsNamed(t *testing.T) {
	n := newFakeNode(t, action.Switch, "lacks")
	if _, err := n.Link.Open(agenttest.Soon(t)); err != nil {
		t.Fatal(err)
	}
	err := n.complete(agenttest.Soon(t), agenttest.NewBundle, false)
	var failed *session.Error
	if !errors.As(err, &failed) || failed.State != session.Unchanged || failed.Step != session.Ship {
		t.Fatalf("%v", err)
	}
	const want = "pi: ship: 5 paths that the target's Nix takes for valid are not on its disk: " + string(agenttest.OldBundle) + ", " + agenttest.OldSystem + " and 3 more"
	if err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if hints := strings.Join(failed.Hints(), "\n"); !strings.Contains(hints, "nix-store --repair-path "+string(agenttest.OldBundle)) {
		t.Errorf("hints: %s", hints)
	}
	if got := strings.Join(n.Record(t), ", "); got != "on-disk "+string(agenttest.NewBundle) {
		t.Errorf("the target was asked for %s", got)
	}
}

// fakeDisk is a target whose disk lacks paths that its Nix has.
func fakeDisk(dir string, wire *agent.Wire) {
	r := agenttest.ReadRequest(wire)
	agenttest.Record(dir, string(r.Method)+" "+string(r.Toplevel))
	_ = wire.WriteJSON(agent.FrameResponse, agent.Response{ID: r.ID, OnDisk: &agent.OnDiskResult{
		Paths: 9, Wrong: []agent.WrongPath{{Path: agenttest.OldBundle, Gone: true}, {Path: agenttest.OldSystem, Gone: true}}, More: 3,
	}})
}
