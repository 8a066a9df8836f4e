package safe_test

import (
	"testing"

	"ferry/internal/lab"
)

// TestARollbackThatAPowerCutBreaksOffLeavesAKnownSystem cuts the power in the commit of a rollback, when its profile is set: what
// boots then is a system that ferry knows, and the next deployment needs no --replace-unknown.
func TestARollbackThatAPowerCutBreaksOffLeavesAKnownSystem(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "root", lab.Options{})
	one := x.State()
	two := x.deployed("")
	commit.Begin(x.Rehearsal)
	_, ended := x.Background("rollback", "--sudo-password-file", x.Password)
	x.Await(commit)
	if err := x.Target.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := x.Target.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o := ended(); o.Status != 5 {
		t.Errorf("status %d, want 5", o.Status)
	}
	if cut := x.State(); cut.Profile != one.Runs || cut.Boots != two.Runs {
		t.Fatalf("it was not cut in its commit: %+v", cut)
	}
	greeting := x.rewrite("")
	if o := x.deploys(); o.Status != 0 {
		t.Errorf("the next deployment: status %d", o.Status)
	}
	x.isNew(greeting)
}
