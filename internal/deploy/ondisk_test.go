package deploy

import (
	"errors"
	"strings"
	"testing"

	"ferry/internal/agent"
)

// TestWhatIsGoneFromATargetsDiskIsNamed has a target that lacks paths which this machine has not either: nothing is activated.
func TestWhatIsGoneFromATargetsDiskIsNamed(t *testing.T) {
	n := newFakeNode(t, Switch, "lacks")
	if _, err := n.Link.open(soon(t)); err != nil {
		t.Fatal(err)
	}
	err := n.complete(soon(t), newBundle, false)
	var failed *Error
	if !errors.As(err, &failed) || failed.State != Unchanged || failed.Step != Ship {
		t.Fatalf("%v", err)
	}
	const want = "pi: ship: 5 paths that the target's Nix takes for valid are not on its disk: " + string(oldBundle) + ", " + oldSystem + " and 3 more"
	if err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if hints := strings.Join(failed.Hints(), "\n"); !strings.Contains(hints, "nix-store --repair-path "+string(oldBundle)) {
		t.Errorf("hints: %s", hints)
	}
	if got := strings.Join(n.record(t), ", "); got != "on-disk "+string(newBundle) {
		t.Errorf("the target was asked for %s", got)
	}
}

// fakeDisk is a target whose disk lacks paths that its Nix has.
func fakeDisk(dir string, wire *agent.Wire) {
	r := readRequest(wire)
	record(dir, string(r.Method)+" "+string(r.Toplevel))
	_ = wire.WriteJSON(agent.FrameResponse, agent.Response{ID: r.ID, OnDisk: &agent.OnDiskResult{
		Paths: 9, Wrong: []agent.WrongPath{{Path: oldBundle, Gone: true}, {Path: oldSystem, Gone: true}}, More: 3,
	}})
}
