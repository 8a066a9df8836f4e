package safe_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"ferry/integration/site"
	"ferry/internal/agent"
	"ferry/internal/lab"
)

// rollsBack returns to a system that the target has.
func (x *trial) rollsBack(args ...string) site.Outcome {
	x.T.Helper()
	return x.Ferry(append([]string{"rollback", "--sudo-password-file", x.Password}, args...)...)
}

// menu is what ferry generations --json prints.
type menu struct {
	Current, Booted string
	Generations     []struct {
		Number                   int
		Toplevel, Bundle         string
		Current, Booted, Default bool
	}
}

func (x *trial) menu() (m menu) {
	x.T.Helper()
	o := x.Ferry("generations", "--json")
	if err := json.Unmarshal([]byte(o.Out), &m); err != nil || o.Status != 0 {
		x.T.Fatalf("ferry generations: status %d, %v", o.Status, err)
	}
	return m
}

// isAt is isNew for a rollback: to the system of a state that the target was in, in a generation of its own or that one, and
// with its bundle.
func (x *trial) isAt(want site.State) {
	x.T.Helper()
	x.isSettled()
	got := x.State()
	want.Profile, want.Boots = want.Runs, want.Runs
	want.Generation, want.Greeter = got.Generation, got.Greeter
	x.Want(got, want)
	m, number := x.menu(), 0
	if m.Current != want.Runs {
		x.T.Errorf("ferry generations says that it runs %s", m.Current)
	}
	for _, g := range m.Generations {
		if g.Default {
			number = g.Number
		}
		if g.Default && (!g.Current || g.Toplevel != want.Runs || want.Bundle != "" && g.Bundle != want.Bundle) {
			x.T.Errorf("ferry generations says %+v", g)
		}
	}
	if got.Generation != fmt.Sprintf("system-%d-link", number) {
		x.T.Errorf("the profile is %s, and ferry generations says that %d boots", got.Generation, number)
	}
}

// wrote fails the test unless the journal's newest line is of such a deployment.
func (x *trial) wrote(action string, outcome agent.JournalOutcome, before, after site.State) {
	x.T.Helper()
	e := x.lastEntry()
	state := func(s site.State) agent.JournalState {
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(s.Generation, "system-"), "-link"))
		if err != nil {
			x.T.Fatal(err)
		}
		return agent.JournalState{Current: s.Runs, Profile: s.Profile, Generation: n, Bundle: s.Bundle}
	}
	if e.Action != action || e.Outcome != outcome || e.Before != state(before) || e.After != state(after) || e.Node != "web" || e.Who == "" || (e.Reason == "") != (outcome == agent.JournalCommitted) {
		x.T.Errorf("the journal says %+v, want %s %s from %+v to %+v", e, action, outcome, before, after)
	}
}

// deployed deploys another configuration and gives what the target is then.
func (x *trial) deployed(more string) site.State {
	x.T.Helper()
	greeting := x.rewrite(more)
	x.Deploy()
	x.isNew(greeting)
	return x.State()
}

// noBundle is said of a system that runs again and whose bundle is not there.
const noBundle = "web: note: what this system was made of is not known on the target: no configuration is kept there"

// TestRollbackReturnsToWhatRanBeforeTheLastDeployment does it twice, and deploys again.
func TestRollbackReturnsToWhatRanBeforeTheLastDeployment(t *testing.T) {
	t.Parallel()
	eachLogin(t, func(t *testing.T, x *trial) {
		one := x.State()
		two := x.deployed("")
		o := x.rollsBack("web")
		if o.Status != 0 {
			t.Errorf("status %d", o.Status)
		}
		o.Says(t, "web: activate ", "web: confirm ", "web: commit    generation ", "web: done: generation ")
		x.isAt(one)
		x.wrote("rollback", agent.JournalCommitted, two, x.State())

		entries := len(x.journal())
		if o := x.rollsBack(); o.Status != 0 {
			t.Errorf("again: status %d", o.Status)
		} else {
			o.Says(t, "web: nothing to do: "+x.login+"@"+x.Target.Name()+" has nixos-system-web-")
		}
		x.is(x.State())
		if n := len(x.journal()); n != entries {
			t.Errorf("%d entries were written", n-entries)
		}

		// What was gone back from is what is asked for again.
		back := x.State()
		if o := x.Deploy(); strings.Contains(o.Errors, "nothing to do") {
			t.Error("it is said to be there")
		}
		x.isAt(two)
		x.wrote("switch", agent.JournalCommitted, back, x.State())
		x.Deploy().Says(t, "web: nothing to do")
	})
}

// TestRollbackToASystemThatIsNamed names generations and store paths, those that are there and others.
func TestRollbackToASystemThatIsNamed(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	installed := x.menu().Generations[0]
	two := x.State()
	three := x.deployed("")
	four := x.deployed("")
	for _, c := range []struct {
		name, to string
		want     site.State
	}{
		{"a generation", "2", two},
		{"the one that runs", "2", two},
		{"a store path", three.Runs, three},
		{"a newer generation", "4", four},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := x.in(t)
			if o := x.rollsBack("--to", c.to); o.Status != 0 {
				t.Errorf("status %d", o.Status)
			}
			x.isAt(c.want)
		})
	}
	const list = "ferry generations web lists what is there"
	for _, c := range []struct {
		name, to, says string
		hints          []string
	}{
		{"a generation that is not there", "77", "connect: the target has no generation 77", []string{list}},
		{"one before the first", "0", "connect: the target has no generation 0", []string{list}},
		{"no system at all", "yesterday", "connect: --to yesterday is neither the number of a generation nor a store path", []string{list}},
		{"a system that is not there", "/nix/store/00000000000000000000000000000000-nixos-system-web", "connect: /nix/store/00000000000000000000000000000000-nixos-system-web is not on the target (any more)", []string{list}},
		{"a path that is no system", two.Bundle, "connect: " + two.Bundle + " is no NixOS system", []string{list}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := x.in(t)
			before := x.State()
			x.rollsBack("--to", c.to).Fails(t, 1, "web: "+c.says, c.hints...)
			x.is(before)
		})
	}
	t.Run("one that ferry has not made", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		o := x.rollsBack("--to", "1")
		if o.Status != 0 {
			t.Errorf("status %d", o.Status)
		}
		o.Says(t, noBundle)
		x.isAt(site.State{Runs: installed.Toplevel, Greeting: "installed"})
		x.wrote("rollback", agent.JournalCommitted, before, x.State())
		x.deployed("")
	})
}

// TestRollbackToWhatHasNoBundleAnyMore returns to a system whose bundle was collected: it runs, and the link to what another
// one was made of does not stay.
func TestRollbackToWhatHasNoBundleAnyMore(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	one := x.State()
	two := x.deployed("")
	x.OnTarget("sh", "-c", "rm -f /nix/var/nix/gcroots/ferry/previous; nix-store --delete "+one.Bundle)
	o := x.rollsBack()
	if o.Status != 0 {
		t.Errorf("status %d", o.Status)
	}
	o.Says(t, noBundle)
	one.Bundle = ""
	x.isAt(one)
	x.wrote("rollback", agent.JournalCommitted, two, x.State())
	x.deployed("")
}

// TestRollbackIsGuardedAsADeploymentIs returns to a system that cuts its network, and goes forward again.
func TestRollbackIsGuardedAsADeploymentIs(t *testing.T) {
	t.Parallel()
	eachLogin(t, func(t *testing.T, x *trial) {
		// It cuts it when /run/cut is there.
		x.deployed(`system.activationScripts.cut = "[ ! -e /run/cut ] || ip link set host0 down";`)
		two := x.deployed("")
		x.OnTarget("touch", "/run/cut")
		x.rollsBack(quickly).Fails(t, 4, "web: confirm: ferry could not come back over a new connection within 3s", "the whole log is on the target: /run/ferry/")
		x.OnTarget("rm", "/run/cut")
		x.is(two)
		x.wrote("rollback", agent.JournalRolledBack, two, two)
		// What ran before the last deployment that changed something is the same still.
		if o := x.rollsBack(); o.Status != 0 {
			t.Errorf("status %d", o.Status)
		}
		if s := x.State(); s.Runs == two.Runs || s.Boots != s.Runs {
			t.Errorf("the target is left as %+v", s)
		}
		x.deployed("")
	})
}

// TestRollbackAfterEachKindOfDeployment returns to exactly what ran before.
func TestRollbackAfterEachKindOfDeployment(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	returns := func(x *trial, want site.State) {
		x.T.Helper()
		before := x.State()
		if o := x.rollsBack(); o.Status != 0 {
			x.T.Errorf("status %d", o.Status)
		}
		x.isAt(want)
		x.wrote("rollback", agent.JournalCommitted, before, x.State())
		greeting := x.rewrite("")
		x.Deploy()
		x.isNew(greeting)
	}
	t.Run("a test", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		x.rewrite("")
		x.Deploy("--action", "test")
		if s := x.State(); s.Runs == before.Runs {
			t.Fatal("it runs what it did before")
		}
		returns(x, before)
	})
	t.Run("a deployment that failed", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		x.deployed("")
		x.rewrite(`system.activationScripts.broken = "false";`)
		if o := x.deploys(); o.Status != 4 {
			t.Errorf("status %d", o.Status)
		}
		returns(x, before)
	})
	t.Run("an action boot", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		x.rewrite("")
		x.Deploy("--action", "boot")
		if s := x.State(); s.Runs != before.Runs || s.Boots == before.Boots {
			t.Fatalf("the target is %+v", s)
		}
		returns(x, before)
	})
	t.Run("a generation made by someone else", func(t *testing.T) {
		x := x.in(t)
		before := x.State()
		x.deployed("")
		x.rewrite("")
		toplevel := x.Toplevel(x.Bundle())
		if err := x.Target.InstallClosure(t.Context(), x.Builder, toplevel); err != nil {
			t.Fatal(err)
		}
		x.switchesByHand("--set", toplevel)
		returns(x, before)
	})
}

// TestRollbackOfATargetThatWasNeverDeployedTo knows nothing to return to.
func TestRollbackOfATargetThatWasNeverDeployedTo(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	before := s.State()
	s.Ferry("rollback", "--sudo-password-file", s.Password).Fails(t, 1, "web: connect: the target does not know what ran before the last deployment",
		"ferry generations web lists what is there", "name one of them: --to GENERATION")
	s.Want(s.State(), before)
}

// TestAPersonIsAskedAboutARollbackThatMayLockThemOut has nobody to ask, someone who says no, and someone who says yes.
func TestAPersonIsAskedAboutARollbackThatMayLockThemOut(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	x.rewrite("")
	x.withoutSSHD()
	x.deploys("--allow-lockout", "--action", "boot")
	before := x.deployed("")
	number := strconv.Itoa(x.menu().Generations[2].Number)
	const what = "web: activate: the new system may lock this very login out: "
	x.rollsBack("--to", number).Fails(t, 1, what, "--allow-lockout")
	x.is(before)
	asked := func(answer string) site.Outcome {
		p := x.Person("rollback", "--sudo-password-file", x.Password, "--to", number, quickly)
		p.Sees("the new system may lock this very login out:")
		p.Sees("activate it all the same? ")
		p.Types(answer + "\n")
		return p.Ends()
	}
	o := asked("n")
	o.Says(t, "ferry: error: "+what)
	if o.Status != 1 {
		t.Errorf("no: status %d", o.Status)
	}
	x.is(before)
	o = asked("y")
	o.Says(t, "ferry: error: web: confirm: ferry could not come back over a new connection within 3s")
	if o.Status != 4 {
		t.Errorf("yes: status %d", o.Status)
	}
	x.is(before)
}

// TestWhatWasGoneBackFromIsNotWhatWasDeployed has commits that are replaced by others, as with git commit --amend: the target's
// system is in nobody's history, and is known by the link that is kept here.
func TestWhatWasGoneBackFromIsNotWhatWasDeployed(t *testing.T) {
	t.Parallel()
	x := newTrial(t, "alice", lab.Options{})
	git := func(args ...string) {
		t.Helper()
		x.Must("git", append([]string{"-C", x.Project, "-c", "user.name=Test", "-c", "user.email=test@example.com"}, args...)...)
	}
	git("init", "--quiet")
	git("commit", "--quiet", "--allow-empty", "--message=begin")
	amended := func(more string) {
		x.rewrite(more)
		git("add", ".")
		git("commit", "--quiet", "--amend", "--allow-empty", "--message=again")
	}
	git("commit", "--quiet", "--allow-empty", "--message=next")
	amended("")
	x.Deploy()
	amended(`system.activationScripts.broken = "false";`)
	if o := x.deploys(); o.Status != 4 {
		t.Fatalf("status %d", o.Status)
	}
	amended("")
	x.Deploy()
	amended("")
	x.Deploy("--action", "test")
	amended("")
	x.Deploy()
	x.rollsBack()
	amended("")
	x.Deploy()
}
