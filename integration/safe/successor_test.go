package safe_test

import (
	"testing"

	"ferry/internal/lab"
)

// TestASuccessorThatIsKilledIsStartedAgain kills ferry, its agent, the guard, and then the process that the timer starts.
func TestASuccessorThatIsKilledIsStartedAgain(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	before := x.State()
	x.rewrite("")
	cmd, ended := x.begin(activate, "--activation-timeout=10s")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended()
	x.killsAgent()
	x.killsGuard()
	// The old system is held up as the new one was.
	x.OnTarget("rm", "/run/at-activate")
	x.Await(activate)
	x.signals("KILL", "rollback")
	x.goOn(activate)
	x.goesBack()
	x.is(before)
}
