package chaos_test

import (
	"slices"
	"strings"
	"testing"
)

// TestTheInvariantSeesWhatIsWrong has what a target says that is not as it should be: a test that sees nothing would pass for ever.
func TestTheInvariantSeesWhatIsWrong(t *testing.T) {
	entry := journalEntry{Toplevel: "new", Outcome: "committed"}
	entry.Before.Current, entry.Before.Profile, entry.After.Current, entry.After.Profile = "old", "old", "new", "new"
	back := entry
	back.Outcome, back.After = "rolled back", back.Before
	halfBack := back
	halfBack.After.Profile = "new"
	neither := entry
	neither.Outcome = "vanished"
	for name, c := range map[string]struct {
		wrong bool
		found []string
	}{
		"a log for root":               {false, unprotected("/run/ferry/*-*/*|/run/ferry/a-switch/log|600|0|regular file\n")},
		"a log for everybody":          {true, unprotected("/run/ferry/*-*/*|/run/ferry/a-switch/log|644|0|regular file\n")},
		"what all may read":            {false, unprotected("/run/ferry/*-*/shown|/run/ferry/a-switch/shown|644|0|regular file\n/run/ferry/*-*/*|/run/ferry/a-switch/shown|644|0|regular file\n")},
		"somebody else's lock":         {true, unprotected("/run/ferry/lock|/run/ferry/lock|600|1000|regular file\n")},
		"a link in its place":          {true, unprotected("/run/ferry/lock|/run/ferry/lock|600|0|symbolic link\n")},
		"an empty lock":                {false, unprotected("/run/ferry/lock|/run/ferry/lock|600|0|regular empty file\n")},
		"a timer":                      {true, stillArmed("Sat 2026-05-02 10:00 ferry-rollback-a.timer\n", true)},
		"what a restart leaves":        {false, stillArmed("/var/lib/ferry/armed-a\n/nix/var/nix/gcroots/ferry/back\n", true)},
		"the same without a restart":   {true, stillArmed("/var/lib/ferry/armed-a\n", false)},
		"committed, and that it is":    {false, nonEmpty(entry.means())},
		"rolled back, and that it is":  {false, nonEmpty(back.means())},
		"rolled back, and boots new":   {true, nonEmpty(halfBack.means())},
		"an outcome that there is not": {true, nonEmpty(neither.means())},
		"an account that is the same":  {false, nonEmpty(changed("alice:x\nroot:x\n", "alice:x\nroot:x\n"))},
		"an account that has changed":  {true, nonEmpty(changed("alice:x\nroot:x\n", "alice:!\nroot:x\n"))},
		"an account that is gone":      {true, nonEmpty(changed("alice:x\nroot:x\n", "root:x\n"))},
	} {
		if (len(c.found) > 0) != c.wrong {
			t.Errorf("%s: found %q", name, c.found)
		}
	}
}

func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// TestWhatATargetMayBeFollowsFromWhatItsFerriesSaid is the judgement of each end.
func TestWhatATargetMayBeFollowsFromWhatItsFerriesSaid(t *testing.T) {
	m := &machine{toplevels: map[string]string{"one": "1", "two": "2", "bad": "b"}}
	for name, c := range map[string]struct {
		restart   bool
		all       []deployed
		run, boot string
	}{
		"done":                          {all: []deployed{{doSwitch, "one", mayStay, 0}}, run: "1", boot: "1"},
		"gone back":                     {all: []deployed{{doSwitch, "one", mayStay, 4}}, run: "0", boot: "0"},
		"not known":                     {all: []deployed{{doSwitch, "one", mayStay, 5}}, run: "1 0", boot: "1 0"},
		"killed, and bad":               {all: []deployed{{doSwitch, "bad", mustGo, -1}}, run: "0", boot: "0"},
		"tested":                        {all: []deployed{{doTest, "one", mayStay, 0}}, run: "1", boot: "0"},
		"tested, and restarted":         {all: []deployed{{doTest, "one", mayStay, 0}}, restart: true, run: "1 0", boot: "0"},
		"installed":                     {all: []deployed{{doBoot, "one", mayStay, 0}}, run: "0", boot: "1"},
		"needs a reboot":                {all: []deployed{{doSwitch, "one", bootsOnly, 0}}, run: "0", boot: "1"},
		"rebooted":                      {all: []deployed{{doReboot, "one", mayStay, 0}}, restart: true, run: "1 1", boot: "1"},
		"two, of which one was refused": {all: []deployed{{doSwitch, "one", mayStay, 0}, {doSwitch, "two", mayStay, 1}}, run: "1", boot: "1"},
		"two, one after the other":      {all: []deployed{{doSwitch, "one", mayStay, 0}, {doSwitch, "two", mayStay, 0}}, run: "1 2", boot: "1 2"},
	} {
		r := &round{machine: m, before: look{runs: "0", boots: "0"}}
		if c.restart {
			r.plan.strikes = []strike{{fault: fault{restart: true}}}
		}
		got := r.allows(c.all)
		if strings.Join(got.run, " ") != c.run || strings.Join(got.boot, " ") != c.boot {
			t.Errorf("%s: it may run %q and boot %q, want %q and %q", name, got.run, got.boot, c.run, c.boot)
		}
		if c.all[0].installs() != slices.Contains(got.installed, "1") {
			t.Errorf("%s: installed are %q", name, got.installed)
		}
	}
}
