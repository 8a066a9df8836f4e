package lab

import (
	"slices"
	"testing"
)

// TestTheKernelKeepsAccountOfAMachine has a process with a child of its own, and a second machine that is not meant.
func TestTheKernelKeepsAccountOfAMachine(t *testing.T) {
	t.Parallel()
	target, other := StartTarget(t, Options{NoSystemd: true}), StartTarget(t, Options{NoSystemd: true})
	ended, err := target.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Command(t.Context(), "sh", "-c", "( : ); timeout 10 cksum /dev/null; true").Run(); err != nil {
		t.Fatal(err)
	}
	if err := other.Command(t.Context(), "factor", "6").Run(); err != nil {
		t.Fatal(err)
	}
	all, err := ended()
	if err != nil {
		t.Fatal(err)
	}
	find := func(program string, executed bool) Ended {
		i := slices.IndexFunc(all, func(e Ended) bool { return e.Program == program && e.Executed == executed })
		if i < 0 {
			t.Fatalf("%s (%v) is not in %+v", program, executed, all)
		}
		return all[i]
	}
	shell := find("sh", true)
	if c := find("sh", false); c.Parent != shell.PID {
		t.Errorf("the copy is %+v, its shell %+v", c, shell)
	}
	timeout := find("timeout", true)
	if c := find("cksum", true); timeout.Parent != shell.PID || c.Parent != timeout.PID {
		t.Errorf("%+v is below %+v, which is below %+v", c, timeout, shell)
	}
	if slices.ContainsFunc(all, func(e Ended) bool { return e.Program == "factor" }) {
		t.Errorf("another machine's process is in %+v", all)
	}
}
